import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_platform.core.crypto.secrets_file import ensure_secret_file, read_secret_file
from mlops_platform.core.errors import ConfigurationError

RACER = """
import secrets, sys
from pathlib import Path
from mlops_platform.core.crypto.secrets_file import ensure_secret_file
sys.stdin.readline()
sys.stdout.write(ensure_secret_file(Path(sys.argv[1]), lambda: secrets.token_hex(16)))
"""


def never() -> str:
    raise AssertionError("an existing secret must not be made again")


class TestEnsureSecretFile:
    def test_makes_the_secret_once_and_keeps_it(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets" / "pepper"
        assert ensure_secret_file(path, lambda: "first") == "first"
        assert ensure_secret_file(path, never) == "first"

    def test_file_and_new_directory_are_closed_to_others_whatever_the_umask(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets" / "pepper"
        before = os.umask(0)
        try:
            ensure_secret_file(path, lambda: "value")
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_leaves_no_draft_behind(self, tmp_path: Path) -> None:
        ensure_secret_file(tmp_path / "pepper", lambda: "value")
        assert [entry.name for entry in tmp_path.iterdir()] == ["pepper"]

    def test_an_existing_directory_keeps_its_mode(self, tmp_path: Path) -> None:
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o755)
        ensure_secret_file(folder / "pepper", lambda: "value")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755

    def test_racing_processes_agree_on_one_secret(self, tmp_path: Path) -> None:
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, str(tmp_path / "pepper")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            for _ in range(4)
        ]
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = {racer.communicate()[0] for racer in racers}
        assert len(answers) == 1
        assert answers == {read_secret_file(tmp_path / "pepper")}

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_a_file_that_others_can_read_is_refused_with_the_remedy(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "pepper"
        path.write_text("value")
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
            ensure_secret_file(path, never)
        assert path.read_text() == "value"

    @pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 70_000])
    def test_an_unusable_file_is_refused_and_not_replaced(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "pepper"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match=str(path)):
            ensure_secret_file(path, never)
        assert path.read_bytes() == content

    def test_a_fifo_in_its_place_is_refused_and_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pepper", 0o600)
        with pytest.raises(ConfigurationError, match="not a regular file"):
            ensure_secret_file(tmp_path / "pepper", never)

    def test_a_place_that_cannot_be_written_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="Not a directory"):
            ensure_secret_file(tmp_path / "file" / "pepper", lambda: "value")

    def test_nothing_is_read_where_nothing_is(self, tmp_path: Path) -> None:
        assert read_secret_file(tmp_path / "pepper") is None

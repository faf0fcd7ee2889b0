import subprocess
import sys
from pathlib import Path

import pytest

from mlops_platform.core.db.embedded.lock import HomeLock
from mlops_platform.core.errors import ConfigurationError

HOLDER = """
import sys
from pathlib import Path
sys.path[:] = sys.argv[2].split(":")
from mlops_platform.core.db.embedded.lock import HomeLock
HomeLock(Path(sys.argv[1])).acquire()
sys.stdout.write("held\\n"); sys.stdout.flush()
sys.stdin.read()
"""


def hold_elsewhere(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(home), ":".join(sys.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


class TestHomeLock:
    def test_another_process_is_refused_and_told_who_holds_it(self, tmp_path: Path) -> None:
        with hold_elsewhere(tmp_path) as other:
            with pytest.raises(ConfigurationError, match=rf"process {other.pid}\b"):
                HomeLock(tmp_path).acquire()
            assert HomeLock(tmp_path).holder() == other.pid
            other.kill()

    def test_a_killed_holder_does_not_lock_the_home_for_ever(self, tmp_path: Path) -> None:
        with hold_elsewhere(tmp_path) as other:
            other.kill()
        assert HomeLock(tmp_path).holder() is None
        with HomeLock(tmp_path):
            pass

    def test_asking_who_holds_it_does_not_take_it(self, tmp_path: Path) -> None:
        asking, taking = HomeLock(tmp_path), HomeLock(tmp_path)
        assert asking.holder() is None
        with taking:
            assert asking.holder() is not None
        assert asking.holder() is None

    def test_it_can_be_taken_again_after_release(self, tmp_path: Path) -> None:
        first = HomeLock(tmp_path)
        first.acquire()
        first.release()
        first.release()
        with HomeLock(tmp_path):
            pass

    def test_a_home_that_cannot_hold_a_lock_is_one_clear_line(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="No such file"):
            HomeLock(tmp_path / "missing").acquire()

    def test_a_link_in_the_place_of_the_lock_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_text("precious")
        (tmp_path / "up.lock").symlink_to(tmp_path / "target")
        with pytest.raises(ConfigurationError):
            HomeLock(tmp_path).acquire()
        assert (tmp_path / "target").read_text() == "precious"

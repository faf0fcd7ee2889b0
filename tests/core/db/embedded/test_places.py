import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from mlops_platform.core.db.embedded import binaries
from mlops_platform.core.db.embedded.account import Account, server_account
from mlops_platform.core.db.embedded.server import EmbeddedPostgres
from mlops_platform.core.errors import ConfigurationError

Make = Callable[..., EmbeddedPostgres]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")


def marks(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of a directory and of each of its ancestors."""
    return {
        folder: (status.st_mode, status.st_uid, status.st_gid)
        for folder in (path, *path.parents)
        for status in [folder.stat()]
    }


async def answers(dsn: str) -> bool:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval("SELECT 42") == 42
    finally:
        await connection.close()


class TestPermissions:
    @pytest.mark.parametrize("mode", [0o700, 0o755])
    async def test_no_directory_that_was_there_changes_its_mode_or_owner(
        self, embedded: Make, base: Path, mode: int
    ) -> None:
        home = base / "private" / "home"
        home.mkdir(parents=True)
        home.parent.chmod(mode)
        home.chmod(mode)
        before = marks(home)
        server = embedded(home)
        assert await answers(server.start().app_dsn())
        server.stop()
        assert marks(home) == before

    async def test_secrets_log_and_record_are_for_their_owner_alone(self, embedded: Make, base: Path) -> None:
        address = embedded().start()
        home = base / "home"
        files = [*(home / "secrets").iterdir(), home / "logs" / "postgres.log", home / "postgres.json"]
        assert len(files) == 5
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        folders = [home / "secrets", home / "logs", home / "postgres" / "data", address.socket_dir]
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}

    def test_a_home_that_we_make_cannot_be_listed_by_others(self, embedded: Make, base: Path) -> None:
        embedded().start()
        assert stat.S_IMODE((base / "home").stat().st_mode) & 0o066 == 0

    @as_root
    def test_the_server_cannot_change_its_own_configuration_or_read_the_secrets(self, embedded: Make, base: Path) -> None:
        server = embedded()
        server.start()
        home, account = base / "home", server_account(name="nobody")
        for command in (
            ["cat", str(home / "secrets" / "postgres_postgres_password")],
            ["touch", str(home / "postgres" / "pg_hba.conf")],
            ["touch", str(home / "postgres" / "new")],
            ["ls", str(home)],
        ):
            done = subprocess.run(command, user=account.uid, group=account.gid, extra_groups=[], check=False, cwd="/")
            assert done.returncode != 0, command


class TestWhereThingsAre:
    async def test_a_long_home_gets_a_short_private_socket_directory_that_goes_away(
        self, embedded: Make, base: Path
    ) -> None:
        home = base / ("long" * 30)
        server = embedded(home)
        address = server.start()
        assert len(os.fsencode(address.socket_dir)) < 60
        assert stat.S_IMODE(address.socket_dir.stat().st_mode) == 0o700
        assert str(address.socket_dir) in (home / "postgres.json").read_text()
        assert await answers(address.app_dsn())
        server.stop()
        assert not address.socket_dir.exists()

    async def test_a_home_with_a_name_full_of_punctuation_works(self, embedded: Make, base: Path) -> None:
        server = embedded(base / 'it\'s, a "hôme" \\ with: 100% #1')
        assert await answers(server.start().app_dsn())

    async def test_a_home_can_be_moved_with_its_data(self, embedded: Make, base: Path) -> None:
        server = embedded()
        owner = await asyncpg.connect(server.start().owner_dsn())
        await owner.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await owner.close()
        server.stop()
        (base / "home").rename(base / "moved")
        owner = await asyncpg.connect(embedded(base / "moved").start().owner_dsn())
        assert await owner.fetchval("SELECT answer FROM kept") == 42
        await owner.close()

    @as_root
    async def test_as_root_with_a_private_home_the_data_is_in_the_system_s_place(self, embedded: Make, base: Path) -> None:
        (base / "root").mkdir(mode=0o700)
        home = base / "root" / "home"
        server = embedded(home)
        address = server.start()
        assert address.socket_dir.is_relative_to(base / "system")
        assert str(base / "system") in (home / "postgres.json").read_text()
        server.stop()
        again = server.start()
        assert again == address
        assert len(list((base / "system").glob("*/data"))) == 1

    @as_root
    def test_a_home_removed_and_made_anew_starts_empty(self, embedded: Make, base: Path) -> None:
        (base / "root").mkdir(mode=0o700)
        server = embedded(base / "root" / "home")
        server.start()
        server.stop()
        shutil.rmtree(base / "root" / "home")
        server.start()
        assert len(list((base / "system").glob("*/data"))) == 2

    @as_root
    def test_data_that_went_missing_is_not_replaced_by_an_empty_database(self, embedded: Make, base: Path) -> None:
        (base / "root").mkdir(mode=0o700)
        server = embedded(base / "root" / "home")
        server.start()
        server.stop()
        shutil.rmtree(base / "system")
        with pytest.raises(ConfigurationError, match="which is missing"):
            server.start()


class TestAccount:
    @as_root
    def test_root_never_runs_the_server_as_root(self) -> None:
        assert server_account(name="nobody").uid != 0
        with pytest.raises(LookupError):
            server_account(name="root")

    @as_root
    def test_existing_data_keeps_its_user(self) -> None:
        assert server_account(name="nobody", data_owner=4321).uid == 4321

    @as_root
    def test_without_a_system_user_it_is_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlops_platform.core.db.embedded.account.SYSTEM_USER", "no-such-user")
        monkeypatch.setattr("mlops_platform.core.db.embedded.account.shutil.which", lambda *_, **__: None)
        assert server_account() == server_account(name="nobody")

    @as_root
    async def test_programs_out_of_the_user_s_reach_are_copied_and_run(
        self, embedded: Make, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = binaries._in_wheel()  # as when the environment is under /root
        monkeypatch.setattr(Account, "can_reach", lambda _, path: not path.is_relative_to(wheel))
        server = embedded()
        for _ in range(2):
            address = server.start()
            assert server.pid is not None
            assert Path(psutil.Process(server.pid).exe()).is_relative_to(base / "system")
            assert await answers(address.app_dsn())
            server.stop()
        assert len(list((base / "system").iterdir())) == 1

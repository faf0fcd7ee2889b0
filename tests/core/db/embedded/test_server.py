import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import psutil
import pytest

from mlops_platform.core.db.embedded import process
from mlops_platform.core.db.embedded.account import server_account
from mlops_platform.core.db.embedded.binaries import installation
from mlops_platform.core.db.embedded.server import EmbeddedPostgres
from mlops_platform.core.errors import ConfigurationError
from tests.factories.embedded import connected

Make = Callable[..., EmbeddedPostgres]

PARENT = """
import sys
from pathlib import Path
sys.path[:] = sys.argv[3].split(":")
from mlops_platform.core.db.embedded.server import EmbeddedPostgres
home = Path(sys.argv[1])
user = sys.argv[2] or None
server = EmbeddedPostgres(home, system_root=home.parent / "system", system_user=user)
address = server.start()
sys.stdout.write(f"{server.pid} {address.owner_dsn()}\\n"); sys.stdout.flush()
sys.stdin.read()
"""


def data_of(base: Path) -> Path:
    return base / "home" / "postgres" / "data"


def account():
    return server_account(name="nobody")


def start_in_another_process(home: Path) -> subprocess.Popen[str]:
    user = "nobody" if os.geteuid() == 0 else ""
    command = [sys.executable, "-c", PARENT, str(home), user, ":".join(sys.path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class TestStartAndStop:
    async def test_both_roles_connect_and_after_stop_nothing_is_left(self, embedded: Make, base: Path) -> None:
        server = embedded()
        address = server.start()
        for dsn, role in ((address.app_dsn(), "mlops_app"), (address.owner_dsn(), "mlops_owner")):
            async with connected(dsn) as connection:
                assert await connection.fetchval("SELECT current_user || '@' || current_database()") == f"{role}@mlops"
        server.stop()
        assert server.pid is None
        assert process._working_in(data_of(base)) == []
        assert list(address.socket_dir.iterdir()) == []
        server.stop()

    async def test_what_was_committed_is_there_after_a_restart(self, embedded: Make) -> None:
        server = embedded()
        async with connected(server.start().owner_dsn()) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        async with connected(server.start().owner_dsn()) as connection:
            assert await connection.fetchval("SELECT answer FROM kept") == 42

    async def test_stop_ends_sessions_that_are_open(self, embedded: Make) -> None:
        server = embedded()
        connection = await asyncpg.connect(server.start().owner_dsn())
        await connection.execute("BEGIN")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.execute("COMMIT")
        connection.terminate()

    def test_a_second_server_of_the_home_is_refused_and_the_first_lives_on(self, embedded: Make) -> None:
        first = embedded()
        first.start()
        with pytest.raises(ConfigurationError, match=rf"in use by another running platform \(process {os.getpid()}\)"):
            embedded().start()
        assert first.pid is not None
        assert psutil.pid_exists(first.pid)

    def test_an_interrupt_in_the_terminal_does_not_reach_it(self, embedded: Make) -> None:
        server = embedded()
        server.start()
        assert server.pid is not None
        assert os.getsid(server.pid) != os.getsid(0)

    async def test_it_lives_on_when_the_thread_that_started_it_ends(self, embedded: Make) -> None:
        server = embedded()
        with ThreadPoolExecutor(1) as pool:
            address = pool.submit(server.start).result()
        async with connected(address.app_dsn()) as connection:
            assert await connection.fetchval("SELECT 42") == 42

    async def test_a_server_that_is_killed_comes_back_by_itself_with_its_data(self, embedded: Make) -> None:
        server = embedded(fsync=True)
        address = server.start()
        async with connected(address.owner_dsn()) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        killed = server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while server.pid in {killed, None} and time.monotonic() < deadline:
            os.sched_yield()
        answer = None
        while answer is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                async with connected(address.owner_dsn()) as connection:
                    answer = await connection.fetchval("SELECT answer FROM kept")
        assert answer == 42

    async def test_the_environment_of_the_caller_changes_nothing(
        self, embedded: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {"PGDATA": "/", "TZ": "Asia/Tokyo", "LC_ALL": "xx_YY", "PGPORT": "1", "PGOPTIONS": "-x"}.items():
            monkeypatch.setenv(name, value)
        address = embedded().start()
        monkeypatch.delenv("PGOPTIONS")
        async with connected(address.app_dsn()) as connection:
            assert await connection.fetchval("SHOW timezone") == "UTC"


class TestKilledParent:
    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
    async def test_no_server_outlives_a_killed_parent_and_the_next_start_finds_the_data(
        self, embedded: Make, base: Path
    ) -> None:
        with start_in_another_process(base / "home") as parent:
            assert parent.stdout is not None
            pid, dsn = parent.stdout.readline().split()
            postmaster = psutil.Process(int(pid))
            async with connected(dsn) as connection:
                await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            parent.kill()
            postmaster.wait(timeout=10)
        assert process._working_in(data_of(base)) == []
        async with connected(embedded().start().owner_dsn()) as connection:
            assert await connection.fetchval("SELECT answer FROM kept") == 42

    async def test_an_orphan_is_stopped_and_replaced(self, embedded: Make, base: Path) -> None:
        server = embedded()
        address = server.start()
        async with connected(address.owner_dsn()) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        orphan = start_unbound(base)
        try:
            address = embedded().start()
            assert orphan.wait(timeout=10) == 0  # a clean shutdown, not a kill
            async with connected(address.owner_dsn()) as connection:
                assert await connection.fetchval("SELECT answer FROM kept") == 42
        finally:
            orphan.kill()
            orphan.wait()

    def test_a_stranger_with_the_pid_of_the_lock_file_is_left_alone(self, embedded: Make, base: Path) -> None:
        server = embedded()
        server.start()
        server.stop()
        command = process.command_line(["/bin/sleep", "60"], account(), death_signal=signal.SIGKILL)
        stranger = subprocess.Popen(command)
        try:
            (data_of(base) / "postmaster.pid").write_text(f"{stranger.pid}\n{data_of(base)}\n0\n5432\n\n\n0 0\nready\n")
            embedded().start()
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def start_unbound(base: Path) -> subprocess.Popen[bytes]:
    """A server as a parent killed on a system without parent-death signals would leave it."""
    root = base / "home" / "postgres"
    programs = installation(account(), base / "system")
    command = [str(programs / "bin/postgres"), "-D", str(root / "data"), "-c", f"config_file={root / 'postgresql.conf'}"]
    unbound = subprocess.Popen(
        process.command_line(command, account(), death_signal=0),
        cwd=root / "data",
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    lock = root / "data" / "postmaster.pid"
    deadline = time.monotonic() + 10
    while not (lock.exists() and "ready" in lock.read_text()):
        assert unbound.poll() is None
        assert time.monotonic() < deadline
    return unbound


class TestRepair:
    @pytest.mark.parametrize("moment", ["data/base", "data/base/1/PG_VERSION", "data/base/4", "data/base/5"])
    def test_a_parent_killed_during_initdb_leaves_nothing_that_matters(
        self, embedded: Make, base: Path, moment: str
    ) -> None:
        root = base / "home" / "postgres"
        with start_in_another_process(base / "home") as parent:
            deadline = time.monotonic() + 10
            while not list(root.glob(f"initdb-*/{moment}")) and time.monotonic() < deadline:
                assert parent.poll() is None
            parent.kill()
        assert not data_of(base).exists()
        assert list(root.glob("initdb-*"))
        embedded().start()
        assert list(root.glob("initdb-*")) == []

    async def test_lost_password_files_are_made_anew_and_the_data_stays(self, embedded: Make, base: Path) -> None:
        server = embedded()
        before = server.start()
        async with connected(before.owner_dsn()) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        for secret in (base / "home" / "secrets").iterdir():
            secret.unlink()
        after = server.start()
        assert after.owner_password != before.owner_password
        async with connected(after.owner_dsn()) as connection:
            assert await connection.fetchval("SELECT answer FROM kept") == 42

    def test_a_lock_file_that_a_crash_left_empty_is_no_obstacle(self, embedded: Make, base: Path) -> None:
        server = embedded()
        server.start()
        server.stop()
        (data_of(base) / "postmaster.pid").touch()
        server.start()

    def test_what_a_dead_server_left_in_the_socket_directory_is_no_obstacle(self, embedded: Make, base: Path) -> None:
        server = embedded()
        address = server.start()
        server.stop()
        (address.socket_dir / ".s.PGSQL.5432").touch()
        (address.socket_dir / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n")
        server.start()

    def test_a_log_that_grew_large_is_set_aside(self, embedded: Make, base: Path) -> None:
        logs = base / "home" / "logs"
        logs.mkdir(parents=True)
        (base / "home").chmod(0o711)
        (logs / "postgres.log").write_bytes(b"x" * (8 * 1024 * 1024 + 1))
        embedded().start()
        assert (logs / "postgres.log").stat().st_size < 100_000
        assert (logs / "postgres.log.1").exists()


class TestRefusals:
    """Each is one clear line, and nothing is left running."""

    def test_data_of_another_major_version(self, embedded: Make, base: Path) -> None:
        server = embedded()
        server.start()
        server.stop()
        (data_of(base) / "PG_VERSION").write_text("17\n")
        with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 17.*brings 18.*pg_dump"):
            server.start()

    def test_a_home_that_is_a_file(self, embedded: Make, base: Path) -> None:
        (base / "home").touch()
        with pytest.raises(ConfigurationError, match=r"MLOPS_HOME .*home cannot be written"):
            embedded().start()

    def test_a_home_where_even_root_cannot_write(self, embedded: Make) -> None:
        with pytest.raises(ConfigurationError, match="MLOPS_HOME /proc/self/mlops cannot be written"):
            embedded(Path("/proc/self/mlops")).start()

    def test_a_home_whose_name_cannot_be_printed(self, embedded: Make, base: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot be printed"):
            embedded(base / "a\nb").start()

    def test_missing_programs(self, embedded: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mlops_platform.core.db.embedded.binaries._PACKAGE", "no_such_package")
        with pytest.raises(ConfigurationError, match="pip install"):
            embedded().start()

    def test_damaged_data_is_named_with_the_server_s_own_words(self, embedded: Make, base: Path) -> None:
        server = embedded()
        server.start()
        server.stop()
        (data_of(base) / "global" / "pg_control").unlink()
        with pytest.raises(ConfigurationError, match=r"did not start: .*pg_control.*postgres\.log") as refusal:
            server.start()
        assert "\n" not in str(refusal.value)
        assert server.pid is None

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
    def test_a_full_disk(self, embedded: Make, base: Path) -> None:
        disk = base / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=711", "tmpfs", str(disk)], check=False)
        if mounted.returncode != 0:
            pytest.skip("this machine does not let root mount")
        try:
            with pytest.raises(ConfigurationError, match="No space left") as refusal:
                embedded(disk / "home").start()
            assert "\n" not in str(refusal.value)
            assert list((disk / "home" / "postgres").glob("*/data")) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_data_that_became_unreachable_is_not_replaced_by_an_empty_database(self, embedded: Make, base: Path) -> None:
        server = embedded()
        server.start()
        server.stop()
        (base / "home").chmod(0o700)
        with pytest.raises(ConfigurationError, match="can no longer reach its data"):
            server.start()

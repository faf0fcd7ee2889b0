"""The embedded server as `mlops up` sees it: start, stop, pid."""

import logging
import os
import secrets
import threading
import time
from pathlib import Path

from mlops_platform.core.crypto.secrets_file import ensure_secret_file
from mlops_platform.core.db.embedded import cluster
from mlops_platform.core.db.embedded.address import APP_ROLE, OWNER_ROLE, EmbeddedAddress
from mlops_platform.core.db.embedded.binaries import installation
from mlops_platform.core.db.embedded.lock import HomeLock
from mlops_platform.core.db.embedded.places import (
    SYSTEM_ROOT,
    Places,
    find_places,
    prepare_home,
    remove_if_temporary,
    socket_directory,
    sweep,
    write_record,
)
from mlops_platform.core.db.embedded.process import Child, complaint, stop_leftovers
from mlops_platform.core.errors import ConfigurationError

PORT = 5432  # only the name of the socket in a directory of our own: it meets no other server
LARGEST_LOG_BYTES = 8 * 1024 * 1024
_POLL_SECONDS = 0.005
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """A PostgreSQL that lives as long as this process, and is started again when it dies on its own.

    Synchronous: call it before the event loop runs, or from a thread.
    """

    def __init__(
        self,
        home: Path,
        *,
        fsync: bool = True,
        max_connections: int = 100,
        start_seconds: float = 60,
        stop_seconds: float = 30,
        system_root: Path = SYSTEM_ROOT,
        system_user: str | None = None,
    ) -> None:
        """`fsync=False` is for tests alone. The last two matter to root only: see `places` and `account`."""
        self._home = home.absolute()
        self._fsync = fsync
        self._max_connections = max_connections
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._system_root = system_root
        self._system_user = system_user
        self._guard = threading.Lock()  # held by whoever replaces the child
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._child: Child | None = None
        self._lock: HomeLock | None = None
        self._places: Places | None = None
        self._socket_dir: Path | None = None

    @property
    def pid(self) -> int | None:
        """The postmaster's; None when it does not run."""
        child = self._child
        return child.pid if child is not None and not child.ended else None

    def start(self) -> EmbeddedAddress:
        """Bring the server up, from whatever state the last run left; return when it accepts connections."""
        if self._lock is not None:
            raise RuntimeError("this server is already started")
        self._stopping.clear()
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> EmbeddedAddress:
        prepare_home(self._home)
        places = find_places(self._home, system_root=self._system_root, system_user=self._system_user)
        self._places = places
        self._lock = HomeLock(places.root, name="server.lock")
        self._lock.acquire()
        passwords, lost = self._passwords(places)
        programs = installation(places.account, self._system_root)
        try:
            socket_dir = self._socket_dir = socket_directory(places)
            write_record(places, socket_dir)  # before there is data: data that no record names would be lost
            self._prepare(places, programs, passwords, lost=lost)
            sweep(socket_dir)
            cluster.configure(places, socket_dir, port=PORT, max_connections=self._max_connections, fsync=self._fsync)
            self._child = self._launch(places, programs)
        except OSError as error:
            raise ConfigurationError(f"Cannot prepare {error.filename or places.root}: {error.strerror}.") from error
        self._watcher = threading.Thread(
            target=self._watch, args=(places, programs), name="embedded-postgresql-watcher", daemon=True
        )
        self._watcher.start()
        return EmbeddedAddress(socket_dir, PORT, passwords[OWNER_ROLE], passwords[APP_ROLE])

    def superuser_dsn(self, database: str = "postgres") -> str:
        """For tests and repairs; no part of the running platform uses it."""
        if self._places is None or self._socket_dir is None:
            raise RuntimeError("the server is not started")
        password = ensure_secret_file(self._places.secret(cluster.SUPERUSER), _random_password)
        return EmbeddedAddress(self._socket_dir, PORT, "", "").dsn(cluster.SUPERUSER, password, database=database)

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, everything is written. May be called at any time, and again."""
        self._stopping.set()
        with self._guard:
            if self._child is not None:
                self._child.stop(timeout_seconds=self._stop_seconds)
                self._child = None
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        if self._places is not None and self._socket_dir is not None:
            remove_if_temporary(self._places, self._socket_dir)
            self._socket_dir = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _passwords(self, places: Places) -> tuple[dict[str, str], bool]:
        roles = (cluster.SUPERUSER, OWNER_ROLE, APP_ROLE)
        lost = not all(places.secret(role).exists() for role in roles)
        return {role: ensure_secret_file(places.secret(role), _random_password) for role in roles}, lost

    def _prepare(self, places: Places, programs: Path, passwords: dict[str, str], *, lost: bool) -> None:
        cluster.sweep_drafts(places)
        if not places.data.exists():
            cluster.create(places, programs, passwords, sync=self._fsync)
            return
        cluster.check_version(places.data)
        stop_leftovers(places.data, timeout_seconds=self._stop_seconds)
        if lost:
            cluster.set_passwords(places, programs, passwords)

    def _launch(self, places: Places, programs: Path) -> Child:
        _rotate(places.log)
        offset = places.log.stat().st_size
        command = [str(programs / "bin/postgres"), "-D", str(places.data), "-c", f"config_file={places.config}"]
        child = Child(command, places.account, cwd=places.data, log=places.log)
        try:
            child.start()
            self._wait_until_ready(child, places, offset)
        except BaseException:
            child.stop(timeout_seconds=self._stop_seconds)
            raise
        return child

    def _wait_until_ready(self, child: Child, places: Places, offset: int) -> None:
        deadline = time.monotonic() + self._start_seconds
        while not _is_ready(places.data, child.pid):
            if child.wait(_POLL_SECONDS):
                raise ConfigurationError(f"PostgreSQL did not start: {_log_since(places.log, offset)} (log: {places.log})")
            if self._stopping.is_set():
                raise ConfigurationError("PostgreSQL was stopped while it started.")
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"PostgreSQL was not ready within {self._start_seconds:g} seconds: {_log_since(places.log, offset)} "
                    f"(log: {places.log})"
                )

    def _watch(self, places: Places, programs: Path) -> None:
        """Start the server again whenever it ends unasked (killed, out of memory); the clients' pools reconnect."""
        while (child := self._child) is not None:
            child.wait(None)
            pause = _SHORTEST_PAUSE_SECONDS
            while not self._stopping.is_set() and not self._relaunched(places, programs):
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            if self._stopping.is_set():
                return

    def _relaunched(self, places: Places, programs: Path) -> bool:
        with self._guard:
            if self._stopping.is_set():
                return False
            _log.warning("PostgreSQL ended on its own; starting it again (log: %s)", places.log)
            try:
                stop_leftovers(places.data, timeout_seconds=self._stop_seconds)
                if self._socket_dir is not None:
                    sweep(self._socket_dir)
                self._child = self._launch(places, programs)
            except (ConfigurationError, OSError) as error:
                _log.error("PostgreSQL cannot be started again yet: %s", error)
                return False
            return True


def _is_ready(data: Path, pid: int) -> bool:
    """PostgreSQL writes its state into the eighth line of its lock file, as `pg_ctl` reads it."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _random_password() -> str:
    return secrets.token_hex(24)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _log_since(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        return complaint(file.read(65536).decode(errors="replace"))

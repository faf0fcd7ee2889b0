"""Where the parts of the embedded server are: in the home when the server's user can get there, else beside it.

Only directories that are made here get a mode or an owner. What root writes stays in directories of root, so that the
server's user cannot put a link in its way.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_platform.core.crypto.secrets_file import sync_directory
from mlops_platform.core.db.embedded.account import Account, server_account
from mlops_platform.core.errors import ConfigurationError

SYSTEM_ROOT = Path("/var/lib/mlops")
RECORD = "postgres.json"
# sockaddr_un holds 107 bytes on Linux and 103 on macOS; the name in the directory is "/.s.PGSQL.5432.lock" at most.
LONGEST_SOCKET_DIR = 103 - len("/.s.PGSQL.5432.lock")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@~-]+")


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of one embedded server."""

    home: Path
    root: Path  # ours; holds the next ones
    account: Account

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def config(self) -> Path:
        return self.root / "postgresql.conf"

    @property
    def access(self) -> Path:
        return self.root / "pg_hba.conf"

    @property
    def log(self) -> Path:
        return self.home / "logs" / "postgres.log"

    def secret(self, role: str) -> Path:
        return self.home / "secrets" / f"postgres_{role}_password"

    @property
    def record(self) -> Path:
        return self.home / RECORD


def prepare_home(home: Path) -> None:
    """Make the home. As root it may be passed through, not listed: the server's user has its data below it."""
    if not str(home).isprintable():
        raise ConfigurationError(f"MLOPS_HOME {str(home)!r} holds characters that cannot be printed: choose another name.")
    try:
        if not home.is_dir():
            home.mkdir(parents=True)
            home.chmod(0o711 if os.geteuid() == 0 else 0o700)
        probe = home / f".writable-{secrets.token_hex(4)}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"MLOPS_HOME {home} cannot be written: {error.strerror}. Make it writable, or set MLOPS_HOME to another one."
        ) from error


def find_places(home: Path, *, system_root: Path, system_user: str | None) -> Places:
    """Where the server of this home is, or will be; makes the directory and the record of it."""
    try:
        root = _recorded_root(home)
        owner = _owner(root / "data")
        account = server_account(name=system_user, data_owner=owner)
        _check_owner(root / "data", owner, account)
        if not account.can_reach(root.parent):
            if owner is not None:
                raise ConfigurationError(
                    f"PostgreSQL can no longer reach its data in {root}: give its parent directories mode o+x again."
                )
            root = _system_place(home, system_root, account)
        if not root.is_dir():
            _make(root, 0o711 if account.switch else 0o700)
        make_missing(home / "logs", 0o700)
    except LookupError as error:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and {error}: make it, or start as another user."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"Cannot prepare {error.filename or home} for PostgreSQL: {error.strerror}.") from error
    return Places(home, root, account)


def socket_directory(places: Places) -> Path:
    """A directory of mode 0700 for the socket: in the root, or in the runtime directory when that path will not do.

    Too long for the system, or with characters that mean something in a connection URL (a comma separates hosts).
    """
    own = places.root / "run"
    if len(os.fsencode(own)) <= LONGEST_SOCKET_DIR and _PLAIN_PATH.fullmatch(str(own)):
        make_missing(own, 0o700)
        places.account.own(own)
        return own
    earlier = _read_record(places.home).get("socket_dir")
    if isinstance(earlier, str) and _is_private(Path(earlier), places.account):
        return Path(earlier)
    made = Path(tempfile.mkdtemp(prefix="mlops-", dir=_runtime_directory(places.account)))
    places.account.own(made)
    return made


def write_record(places: Places, socket_dir: Path) -> None:
    """Note in the home where the data and the socket are: other commands and the next start look there."""
    inside = places.root.is_relative_to(places.home)  # then relative: a home may be moved
    root = places.root.relative_to(places.home) if inside else places.root
    record = {"root": str(root), "socket_dir": str(socket_dir)}
    if record == _read_record(places.home):
        return
    draft = places.record.with_suffix(f".{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(descriptor)
    draft.replace(places.record)
    sync_directory(places.home)


def sweep(socket_dir: Path) -> None:
    """Remove what a server that is gone left in its socket directory."""
    for leftover in socket_dir.glob(".s.PGSQL.*"):
        leftover.unlink(missing_ok=True)


def remove_if_temporary(places: Places, socket_dir: Path) -> None:
    """Leave nothing behind in the runtime directory."""
    if socket_dir.parent != places.root:
        shutil.rmtree(socket_dir, ignore_errors=True)


def _recorded_root(home: Path) -> Path:
    recorded = _read_record(home).get("root")
    if not isinstance(recorded, str):
        return home / "postgres"
    root = home / recorded
    if not root.is_dir():
        raise ConfigurationError(
            f"The database of {home} should be in {root}, which is missing. Restore it from a backup, "
            f"or remove {home / RECORD} to begin with an empty database."
        )
    return root


def _check_owner(data: Path, owner: int | None, account: Account) -> None:
    if owner is not None and owner != account.uid:
        raise ConfigurationError(
            f"The database in {data} belongs to user {owner} and this is user {account.uid}: start as the user (or root) "
            "who started it first, or set MLOPS_HOME to another directory."
        )


def _read_record(home: Path) -> dict[str, Any]:
    try:
        content = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigurationError(f"{home / RECORD} is damaged: {error}.") from error
    return content if isinstance(content, dict) else {}


def _system_place(home: Path, system_root: Path, account: Account) -> Path:
    make_missing(system_root, 0o711)
    if not account.can_reach(system_root):
        raise ConfigurationError(
            f"As root, PostgreSQL runs as another user, which can reach neither {home} nor {system_root}. "
            "Set MLOPS_HOME to a directory whose parents all have mode o+x."
        )
    # Random, too: who removes a home and starts anew must not find the old data again.
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
    return system_root / f"{digest}-{secrets.token_hex(4)}"


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except FileNotFoundError:
        return None


def _make(path: Path, mode: int) -> None:
    path.mkdir(mode=mode)
    path.chmod(mode)  # mkdir's mode is cut by the umask


def make_missing(path: Path, mode: int) -> None:
    """Make a directory with this mode; one that is there keeps its own."""
    if not path.is_dir():
        _make(path, mode)


def _is_private(path: Path, account: Account) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700 and status.st_uid == account.uid


def _runtime_directory(account: Account) -> str:
    own = f"/run/user/{account.uid}"
    return own if not account.switch and os.access(own, os.W_OK | os.X_OK) else "/tmp"  # noqa: S108  # mkdtemp is private

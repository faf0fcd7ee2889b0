"""As whom PostgreSQL runs: it refuses to be root, so root gives it a system user."""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

SYSTEM_USER = "mlops"
LAST_RESORT_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group of the server processes; `switch` says whether that is another than ours."""

    uid: int
    gid: int
    switch: bool

    def can_reach(self, path: Path) -> bool:
        """Whether this user may pass through every directory down to the path, by their permission bits."""
        if not self.switch:
            return True
        real = path.resolve()
        return all(self._may_pass(folder.stat()) for folder in (*reversed(real.parents), real))

    def _may_pass(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def own(self, path: Path) -> None:
        """Give a file or directory that we have just made to this user."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def server_account(*, name: str | None = None, data_owner: int | None = None) -> Account:
    """Ours; as root the owner of existing data, else the named user, else `mlops` (made if it can be) or `nobody`."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    if data_owner:
        entry = _by_id(data_owner)
        return Account(data_owner, entry.pw_gid if entry else data_owner, switch=True)
    entry = _by_name(name) if name else _by_name(SYSTEM_USER) or _make_system_user() or _by_name(LAST_RESORT_USER)
    if entry is None or entry.pw_uid == 0:
        raise LookupError(f"there is no user {name or LAST_RESORT_USER!r}")
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def _make_system_user() -> pwd.struct_passwd | None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return None
    arguments = [
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
    ]
    try:
        subprocess.run(  # noqa: S603  # fixed arguments
            [useradd, *arguments, SYSTEM_USER], check=False, capture_output=True, timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _by_name(SYSTEM_USER)  # also when another process made it first


def _by_name(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _by_id(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None

"""Secrets that the platform makes for itself, each in a file of mode 0600."""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from mlops_platform.core.errors import ConfigurationError

LARGEST_SECRET_BYTES = 64 * 1024


def ensure_secret_file(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file, made on first use; an existing file is never changed.

    Processes that race all return the one secret that won, and a crash leaves either no file or a whole one.
    """
    try:
        if (found := read_secret_file(path)) is not None:
            return found
        _create(path, make())
    except OSError as error:
        raise ConfigurationError(f"Cannot keep a secret in {path}: {error.strerror}.") from error
    made = read_secret_file(path)
    if made is None:
        raise ConfigurationError(f"The secret file {path} was removed while it was being made.")
    return made


def read_secret_file(path: Path) -> str | None:
    """The secret in the file; None when there is none. Refuses a file that other users can read."""
    try:
        # O_NONBLOCK: a FIFO in this place must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"Cannot read the secret file {path}: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigurationError(f"The secret file {path} is not a regular file.")
        if mode & 0o077:
            raise ConfigurationError(
                f"The secret file {path} can be read by other users (mode {stat.S_IMODE(mode):04o}). "
                f"Replace the secret if they are not trusted, then run: chmod 600 {path}"
            )
        content = file.read(LARGEST_SECRET_BYTES + 1)
    return _decoded(path, content)


def _decoded(path: Path, content: bytes) -> str:
    try:
        value = content.decode().strip()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"The secret file {path} is not UTF-8 text.") from error
    if not value:
        raise ConfigurationError(
            f"The secret file {path} is empty. Restore it from a backup, or remove it for a new secret."
        )
    if len(content) > LARGEST_SECRET_BYTES:
        raise ConfigurationError(f"The secret file {path} is larger than {LARGEST_SECRET_BYTES} bytes.")
    return value


def _create(path: Path, value: str) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(path.parent.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(value.encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        try:
            # A link, unlike a rename, does not replace what another process put there meanwhile.
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: a file may be on the disk while its name is not."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

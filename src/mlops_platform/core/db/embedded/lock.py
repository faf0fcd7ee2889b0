"""One live owner per directory."""

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from mlops_platform.core.errors import ConfigurationError


class HomeLock:
    """Held by the one `mlops up` that owns a directory; the kernel lets go of it however that process ends.

    A child made by fork without exec would share it: workers are spawned. The file stays when the lock is released:
    removing it would let two processes lock two files of one name.
    """

    def __init__(self, home: Path, *, name: str = "up.lock") -> None:
        self._home = home
        self._path = home / name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `ConfigurationError` that names the process which holds it."""
        if self._descriptor is not None:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(f"Cannot lock {self._path}: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise ConfigurationError(f"Cannot lock {self._path}: {error.strerror}.") from error
            raise ConfigurationError(
                f"{self._home} is in use by another running platform{f' (process {holder})' if holder else ''}. "
                "Stop it with 'mlops down', or set MLOPS_HOME to another directory."
            ) from error
        with contextlib.suppress(OSError):  # a full disk takes the pid out of the message, not the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def holder(self) -> int | None:
        """The process that holds the lock now; None when nobody does, whatever the file says."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0).strip()
            return int(text) if text.isdigit() else None
        else:
            return None
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go. Harmless when it is not held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

"""Objects as files, durable when acknowledged.

`obstore` has a local store too, but it calls fsync neither on files nor on directories, so a power cut could take back
what was acknowledged. Here a file is written beside its place, synced, renamed, and its directory synced.
"""

import asyncio
import errno
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mlops_platform.core.errors import DependencyUnavailable, StorageFull
from mlops_platform.core.storage.backend import ObjectKey, StoredRange, Upload
from mlops_platform.core.storage.errors import BlobMissing

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MOST_PIECES = 64  # POSIX guarantees 16, Linux and macOS take 1024
_PRIVATE_DIRECTORY = 0o700
_PRIVATE_FILE = 0o600


class LocalFiles:
    """An object store in a directory of this machine."""

    window_bytes = 1024 * 1024

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._durable: set[Path] = set()
        with _translated():
            root.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)

    def upload(self, key: ObjectKey, *, largest: int) -> Upload:
        return _FileUpload(self, self._incoming / f"{secrets.token_hex(16)}.part", self._root / key.path)

    async def read_range(self, key: ObjectKey, start: int, end: int) -> StoredRange:
        return await asyncio.to_thread(self._read_range, key, start, end)

    async def size(self, key: ObjectKey) -> int | None:
        return await asyncio.to_thread(self._size, key)

    async def delete(self, key: ObjectKey) -> None:
        await asyncio.to_thread(self.remove, self._root / key.path)

    async def sweep(self, before: datetime) -> int:
        return await asyncio.to_thread(self._sweep, before)

    async def check(self) -> None:
        if not await asyncio.to_thread(os.access, self._incoming, os.W_OK | os.X_OK):
            raise DependencyUnavailable("object store", f"The directory {str(self._incoming)!r} cannot be written.")

    def publish(self, temporary: Path, final: Path) -> None:
        """Move a synced file to its place, durably."""
        self._make_durable(final.parent)
        temporary.rename(final)
        _sync_directory(final.parent)

    def remove(self, path: Path) -> None:
        """Unlink a file, durably; an absent one is no error."""
        with _translated(), suppress(FileNotFoundError):
            path.unlink()
            _sync_directory(path.parent)

    def _make_durable(self, directory: Path) -> None:
        # A directory that another upload has just made may not be synced yet: each process syncs each one once by itself.
        if directory in self._durable or directory == self._root:
            return
        self._make_durable(directory.parent)
        directory.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
        _sync_directory(directory.parent)
        self._durable.add(directory)

    def _read_range(self, key: ObjectKey, start: int, end: int) -> StoredRange:
        with _translated():
            try:
                descriptor = os.open(self._root / key.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError as error:
                self._refuse_when_away()
                raise BlobMissing(key.path) from error
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                file.seek(start)
                return StoredRange(_read_fully(descriptor, end - start), os.fstat(descriptor).st_size)

    def _size(self, key: ObjectKey) -> int | None:
        with _translated():
            try:
                return (self._root / key.path).lstat().st_size
            except FileNotFoundError:
                self._refuse_when_away()
                return None

    def _refuse_when_away(self) -> None:
        # An unmounted volume must not look like a volume without files.
        if not self._incoming.is_dir():
            raise DependencyUnavailable("object store", f"The directory {str(self._root)!r} is away.")

    def _sweep(self, before: datetime) -> int:
        swept = 0
        with _translated():
            for path in self._incoming.glob("*.part"):
                with suppress(FileNotFoundError):
                    if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                        path.unlink()
                        swept += 1
        return swept


class _FileUpload:
    """A file that is being written.

    Each step runs in a thread, which runs on when the step is cancelled: the lock keeps `abort` behind it.
    """

    def __init__(self, files: LocalFiles, temporary: Path, final: Path) -> None:
        self._files = files
        self._temporary = temporary
        self._final = final
        self._descriptor: int | None = None
        self._is_aborted = False
        self._lock = threading.Lock()

    async def write(self, pieces: Sequence[bytes]) -> None:
        await asyncio.to_thread(self._write, pieces)

    async def commit(self) -> None:
        await asyncio.to_thread(self._commit)

    async def abort(self) -> None:
        await asyncio.to_thread(self._abort)

    def _write(self, pieces: Sequence[bytes]) -> None:
        with self._lock, _translated():
            _write_fully(self._open(), pieces)

    def _commit(self) -> None:
        with self._lock, _translated():
            descriptor = self._open()
            os.fsync(descriptor)
            self._close()
            self._files.publish(self._temporary, self._final)

    def _abort(self) -> None:
        with self._lock:
            self._is_aborted = True
            self._close()
            self._files.remove(self._temporary)
            self._files.remove(self._final)

    def _open(self) -> int:
        if self._is_aborted:
            raise DependencyUnavailable("object store", "The upload was aborted.")
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._temporary, flags, _PRIVATE_FILE)
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the operating system says into what callers understand."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The object store has no space left.", hint="Free some disk space, then send it again."
            ) from error
        raise DependencyUnavailable("object store", f"The object store does not work: {error.strerror}.") from error


def _write_fully(descriptor: int, pieces: Sequence[bytes]) -> None:
    rest = [memoryview(piece) for piece in pieces if piece]
    while rest:
        written = os.writev(descriptor, rest[:_MOST_PIECES])
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if written:
            rest[0] = rest[0][written:]


def _read_fully(descriptor: int, length: int) -> bytes:
    parts = []
    while length > 0 and (part := os.read(descriptor, length)):
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

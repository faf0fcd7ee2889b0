"""Files on this machine: what an upload sends, and where a download lands."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import uuid4

from mlops_platform.sdk.errors import DigestMismatch, MlopsError

CHUNK_BYTES = 1024 * 1024


class BadPath(MlopsError):
    """A path that cannot be uploaded from, or that a download must not write to."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload, and the logical path that it gets."""

    path: Path
    logical: str
    size_bytes: int


def collect(source: Path, *, logical: str | None = None) -> list[LocalFile]:
    """A file (as `logical`, or by its own name), or all files below a directory (under `logical/`), sorted.

    Links to files are followed, links to directories are not.
    """
    if source.is_file():
        return [_local(source, logical or source.name)]
    if not source.is_dir():
        raise BadPath(f"{source} is neither a file nor a directory.")
    found = []
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            found.append(_local(path, _join(logical, path.relative_to(source).as_posix())))
    if not found:
        raise BadPath(f"{source} holds no files.")
    return found


def landing(directory: Path, logical: str) -> Path:
    """Where an artifact lands below `directory`; a path that would leave it is refused, whoever sent it."""
    parts = PurePosixPath(logical).parts
    if not parts or logical.startswith("/") or "\\" in logical or "\x00" in logical or ".." in parts or ":" in parts[0]:
        raise BadPath(f"The artifact path {logical!r} does not stay below {directory}.")
    return directory.joinpath(*parts)


def sha256_of(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class BlobCache:
    """Downloaded content by digest, shared by all processes of this user.

    A blob appears under its name only when it is complete and verified, by an atomic rename: processes that download the
    same thing at once each finish, and the last rename changes nothing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, digest: str) -> Path | None:
        """A verified blob. One that was changed on the disk is removed, so that it is fetched anew."""
        path = self._path(digest)
        try:
            if sha256_of(path) == digest:
                return path
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return None

    def begin(self, digest: str) -> "Download":
        """A place to write a blob to until it is complete."""
        path = self._path(digest)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Download(path, digest)

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not all(character in "0123456789abcdef" for character in digest):
            raise BadPath(f"{digest!r} is not a SHA-256 digest.")
        return self._root / digest[:2] / digest


class Download:
    """A blob on its way in: hashed while it is written, named when it is what was promised."""

    def __init__(self, target: Path, digest: str) -> None:
        self._target = target
        self._digest = digest
        self._temporary = target.with_name(f".{digest[:8]}-{os.getpid()}-{uuid4().hex[:8]}.part")
        self._hash = hashlib.sha256()
        self._file: BinaryIO = self._temporary.open("xb")
        self.received_bytes = 0

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._file.write(chunk)
        self.received_bytes += len(chunk)

    def finish(self) -> Path:
        """Verify and name it."""
        self._file.close()
        if self._hash.hexdigest() != self._digest:
            raise DigestMismatch(
                f"What arrived has the digest {self._hash.hexdigest()}, and {self._digest} was promised.",
                hint="Nothing was kept. Try again; if it happens again, the stored artifact is damaged.",
            )
        self._temporary.replace(self._target)
        return self._target

    def discard(self) -> None:
        """Leave nothing behind; harmless after `finish`."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def place(blob: Path, target: Path) -> None:
    """Copy a cached blob to where it is wanted, whole or not at all. A copy: the cache stays what its digest says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    try:
        shutil.copyfile(blob, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class ChunkReader:
    """One pass over the content of a file, or over `length` bytes from `start`; told to `advance` as it is taken."""

    def __init__(self, path: Path, advance: Callable[[int], None], *, start: int = 0, length: int | None = None) -> None:
        self._file = path.open("rb")
        self._file.seek(start)
        self._left = length
        self._advance = advance
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of what has been read."""
        return self._hash.hexdigest()

    def next(self) -> bytes:
        """The next piece; empty at the end, when the file is closed."""
        chunk = self._file.read(CHUNK_BYTES if self._left is None else min(CHUNK_BYTES, self._left))
        if chunk:
            if self._left is not None:
                self._left -= len(chunk)
            self._hash.update(chunk)
            self._advance(len(chunk))
        else:
            self.close()
        return chunk

    def close(self) -> None:
        """Also for a pass that was broken off; harmless after the end."""
        self._file.close()


def check_digest(what: str, *, sent: str, stored: str) -> None:
    """Whether what a service stored is what was sent to it."""
    if sent != stored:
        raise DigestMismatch(
            f"{what}: {sent} was sent and {stored} was stored.",
            hint="Was the file written to during the upload? Upload it again.",
        )


def _local(path: Path, logical: str) -> LocalFile:
    return LocalFile(path, logical, path.stat().st_size)


def _join(prefix: str | None, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix else name

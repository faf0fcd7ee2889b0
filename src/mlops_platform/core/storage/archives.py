"""Several contents as one zip or tar, as a stream in bounded memory. The same contents give the same bytes, always."""

import asyncio
import tarfile
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

# The earliest that a zip can say. A time of making would make each download another file.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644
_UNIX = 3
_REGULAR_FILE = 0o100000
_TAR_BLOCK = 512
# Below this, a checksum takes less time than handing it to a thread.
_WORTH_A_THREAD = 256 * 1024
_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One content: its path in the archive, its size, and how to begin reading it."""

    path: str
    size: int
    open: Callable[[], Awaitable[AsyncGenerator[bytes, None]]]


async def zip_stream(members: Sequence[Member]) -> AsyncGenerator[bytes, None]:
    """A zip with its contents stored as they are: models hardly compress, and processors have better to do."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]  # it only writes
        for member in members:
            with archive.open(_zip_info(member), "w") as entry:
                async with aclosing(await member.open()) as content:
                    async for batch in _batches(content):
                        if len(batch) < _WORTH_A_THREAD:
                            entry.write(batch)
                        else:
                            await asyncio.to_thread(entry.write, batch)
                        yield sink.drain()
        yield sink.drain()
    yield sink.drain()


async def tar_stream(members: Sequence[Member]) -> AsyncGenerator[bytes, None]:
    """A POSIX (pax) tar."""
    for member in members:
        yield _tar_header(member)
        async with aclosing(await member.open()) as content:
            async for chunk in content:
                yield chunk
        yield bytes(-member.size % _TAR_BLOCK)
    yield bytes(2 * _TAR_BLOCK)


class _Sink:
    """What a zip is written to: cannot seek, and is emptied after each step."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """There is nothing behind it."""

    def drain(self) -> bytes:
        """What was written since the last time."""
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)


def _zip_info(member: Member) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member.path, _ZIP_EPOCH)
    info.create_system = _UNIX
    info.external_attr = (_REGULAR_FILE | _FILE_MODE) << 16
    info.file_size = member.size  # decides whether its sizes need 64 bits
    return info


def _tar_header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.path)
    info.size, info.mode = member.size, _FILE_MODE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    batch: list[bytes] = []
    held = 0
    async for chunk in chunks:
        batch.append(chunk)
        held += len(chunk)
        if held >= _BATCH_BYTES:
            yield b"".join(batch)
            batch, held = [], 0
    if batch:
        yield b"".join(batch)

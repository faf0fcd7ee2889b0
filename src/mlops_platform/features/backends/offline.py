"""Parquet files in the blob store: written whole, sealed at rest, brought to a private folder for the time of a read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from mlops_platform.core.storage.blob_store import BlobStore, StoredBlob

# A file of feature rows or labels in memory is at most what an upload may unpack to.
MAX_FILE_BYTES = 2 * 1024**3
_SLICE_BYTES = 1024 * 1024
_FOLDER_PREFIX = "mlops-features-"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob is to be found on this machine, for as long as the folder lasts."""

    blob: StoredBlob
    path: Path


class OfflineFiles:
    """Tables as immutable blobs."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    @asynccontextmanager
    async def storing(self, project_id: Any, table: pa.Table) -> AsyncIterator[StoredBlob]:
        """A table as a new blob, which is taken away again when the block does not end well."""
        content = await asyncio.to_thread(_to_parquet, table)
        blob = await self._blobs.write(project_id, _slices(content), max_bytes=MAX_FILE_BYTES)
        is_kept = False
        try:
            yield blob
            is_kept = True
        finally:
            if not is_kept:
                await asyncio.shield(self._blobs.delete(blob.address))

    async def fetch(self, blobs: Sequence[StoredBlob], folder: Path) -> list[Place]:
        """Bring blobs into a folder, each verified as it is read."""
        places = []
        for blob in blobs:
            path = folder / f"{blob.blob_id}.parquet"
            content = await self._blobs.read(blob)
            with await asyncio.to_thread(path.open, "wb") as sink:
                async for chunk in content:
                    await asyncio.to_thread(sink.write, chunk)
            places.append(Place(blob, path))
        return places

    async def read(self, blob: StoredBlob) -> AsyncIterator[bytes]:
        """The bytes of a blob."""
        return await self._blobs.read(blob)

    async def stream_arrow(self, blob: StoredBlob) -> AsyncIterator[bytes]:
        """The rows of a blob as an Arrow stream; awaiting this brings the file here, so that a failure is known first."""
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(private_folder())
            [place] = await self.fetch([blob], folder)
            return _arrow_stream(place.path, stack.pop_all())


async def _arrow_stream(path: Path, opened: AsyncExitStack) -> AsyncIterator[bytes]:
    async with opened:
        sink = BytesIO()
        with await asyncio.to_thread(pq.ParquetFile, path) as file, ipc.new_stream(sink, file.schema_arrow) as writer:
            batches = file.iter_batches()
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                await asyncio.to_thread(writer.write_batch, batch)
                yield _taken(sink)
        yield _taken(sink)


def _taken(sink: BytesIO) -> bytes:
    content = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return content


@asynccontextmanager
async def private_folder() -> AsyncIterator[Path]:
    """A folder that only this process reads, and that goes away with the block."""
    folder = await asyncio.to_thread(TemporaryDirectory, prefix=_FOLDER_PREFIX)
    try:
        yield Path(folder.name)
    finally:
        await asyncio.shield(asyncio.to_thread(folder.cleanup))


def _to_parquet(table: pa.Table) -> memoryview:
    """The same table gives the same bytes: fixed options, one writer, no metadata of whoever made the table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd", version="2.6", row_group_size=128 * 1024)
    return memoryview(sink.getvalue())


async def _slices(content: memoryview) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _SLICE_BYTES):
        yield bytes(content[start : start + _SLICE_BYTES])

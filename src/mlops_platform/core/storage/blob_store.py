"""Blobs in and out as streams: hashed, sealed and verified on the way, in bounded memory."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime

from mlops_platform.core.crypto.blob_format import (
    HEADER_BYTES,
    SEALED_SEGMENT_BYTES,
    BlobAddress,
    BlobId,
    BlobOpener,
    BlobSealer,
    Span,
    sealed_size,
    segment_start,
    span_of,
)
from mlops_platform.core.crypto.errors import BlobCorrupt
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.errors import ContentTooLarge, PlatformError
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.backend import ObjectBackend, ObjectKey, Upload
from mlops_platform.core.storage.errors import ChecksumMismatch

# Large enough that handing work to a thread costs nothing beside it, small enough to stay in the processor's cache.
BATCH_BYTES = 1024 * 1024
# A client that sends a few bytes at a time would otherwise fill the memory with what holds them.
_MOST_CHUNKS = 4096


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What the database must keep of a blob. `is_encrypted` is kept so that a plain blob cannot replace a sealed one."""

    project_id: ProjectId
    blob_id: BlobId
    sha256: str
    size: int
    is_encrypted: bool

    @property
    def address(self) -> BlobAddress:
        """The place that the stored bytes are bound to."""
        return BlobAddress(self.project_id, self.blob_id)

    @property
    def key(self) -> ObjectKey:
        """Where the stored bytes lie."""
        return ObjectKey.of(self.address)


class BlobStore:
    """Blobs of all projects over one object store."""

    def __init__(self, backend: ObjectBackend, key_ring: KeyRing | None, *, encrypt: bool = True) -> None:
        if encrypt and key_ring is None:
            raise ValueError("Sealing needs a key ring.")
        self._backend = backend
        self._key_ring = key_ring
        self._encrypt = encrypt

    async def write(
        self,
        project_id: ProjectId,
        chunks: AsyncIterator[bytes],
        *,
        max_bytes: int,
        blob_id: BlobId | None = None,
        sha256: str | None = None,
    ) -> StoredBlob:
        """Store a stream as a new blob, durable on return. On any failure or cancellation nothing is visible.

        With `sha256`, other content than that is a failure too: `ChecksumMismatch`.
        """
        address = BlobAddress(project_id, blob_id or BlobId(new_id()))
        intake = _Intake(BlobSealer(address, self._key_ring if self._encrypt else None))
        upload = self._backend.upload(ObjectKey.of(address), largest=sealed_size(max_bytes))
        is_stored = False
        try:
            async with aclosing(_batches(chunks, max_bytes)) as batches:
                async for batch in batches:
                    await upload.write(await asyncio.to_thread(intake.take, batch))
            await upload.write(intake.finish())
            if sha256 is not None and intake.sha256 != sha256:
                raise ChecksumMismatch.between(sha256, intake.sha256)
            await upload.commit()
            is_stored = True
        finally:
            if not is_stored:
                await _abort(upload)
        return StoredBlob(project_id, address.blob_id, intake.sha256, intake.size, self._encrypt)

    async def read(self, blob: StoredBlob, *, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The content from `start` up to, not including, `end`, each segment verified before it is given out.

        Awaiting this opens the blob and verifies the first bytes, so that an absent or damaged blob is known before
        anything is answered.
        """
        end = blob.size if end is None else end
        span = span_of(start, end, blob.size)
        reader = _Reader(self._backend, blob, span)
        opener, data = await reader.begin(self._key_ring)
        return reader.stream(opener, data)

    async def exists(self, address: BlobAddress) -> bool:
        """Whether the object store has this blob."""
        return await self._backend.size(ObjectKey.of(address)) is not None

    async def delete(self, address: BlobAddress) -> None:
        """Remove a blob; an absent one is no error."""
        await self._backend.delete(ObjectKey.of(address))

    async def sweep(self, before: datetime) -> int:
        """Remove what uploads that died before that moment have left, and say how many."""
        return await self._backend.sweep(before)

    async def check(self) -> None:
        """Raise `DependencyUnavailable` when the object store cannot be used now."""
        await self._backend.check()


class _Intake:
    """The CPU side of an upload: counts, hashes and seals. Runs in threads, one call at a time."""

    def __init__(self, sealer: BlobSealer) -> None:
        self._sealer = sealer
        self._digest = hashlib.sha256()
        self._head = [sealer.header.pack()]
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def take(self, batch: Sequence[bytes]) -> list[bytes]:
        sealed = self._take_head()
        for chunk in batch:
            self.size += len(chunk)
            self._digest.update(chunk)
            sealed += self._sealer.update(chunk)
        return sealed

    def finish(self) -> list[bytes]:
        """The last segment, which is little enough work to do where it is called."""
        return [*self._take_head(), self._sealer.finish()]

    def _take_head(self) -> list[bytes]:
        head, self._head = self._head, []
        return head


class _Reader:
    """Fetches and opens windows of whole segments, one ahead of the consumer."""

    def __init__(self, backend: ObjectBackend, blob: StoredBlob, span: Span) -> None:
        self._backend = backend
        self._blob = blob
        self._stored_size = sealed_size(blob.size)
        self._span = span
        step = max(1, backend.window_bytes // SEALED_SEGMENT_BYTES)
        self._windows = [(at, min(at + step, span.end)) for at in range(span.first, span.end, step)]

    async def begin(self, key_ring: KeyRing | None) -> tuple[BlobOpener, list[bytes]]:
        """The opened header and the segments of the first window."""
        first, end = self._windows[0]
        if first == 0:
            head = await self._fetch(0, self._offset(end))
            header, sealed = bytes(head[:HEADER_BYTES]), head[HEADER_BYTES:]
        else:
            begun, sealed = await asyncio.gather(
                self._fetch(0, HEADER_BYTES), self._fetch(self._offset(first), self._offset(end))
            )
            header = bytes(begun)
        opener = BlobOpener(
            header, self._blob.address, key_ring, size=self._blob.size, is_encrypted=self._blob.is_encrypted
        )
        return opener, await asyncio.to_thread(opener.open, first, sealed)

    async def stream(self, opener: BlobOpener, segments: list[bytes]) -> AsyncGenerator[bytes, None]:
        """The content of the span, given the opened segments of its first window."""
        skip, left = self._span.skip, self._span.length
        ahead: asyncio.Task[list[bytes]] | None = None
        try:
            for following in [*self._windows[1:], None]:
                ahead = None if following is None else asyncio.create_task(self._window(opener, *following))
                for segment in segments:
                    piece = segment[skip : skip + left]
                    skip, left = 0, left - len(piece)
                    if piece:
                        yield piece
                segments = [] if ahead is None else await ahead
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _window(self, opener: BlobOpener, first: int, end: int) -> list[bytes]:
        sealed = await self._fetch(self._offset(first), self._offset(end))
        return await asyncio.to_thread(opener.open, first, sealed)

    async def _fetch(self, start: int, end: int) -> memoryview:
        found = await self._backend.read_range(self._blob.key, start, end)
        if found.object_size != self._stored_size or len(found.data) != end - start:
            raise BlobCorrupt(
                f"The stored object of blob {self._blob.blob_id} has {found.object_size} bytes, not the "
                f"{self._stored_size} that were written: it was cut, extended or replaced."
            )
        return memoryview(found.data)

    def _offset(self, segment: int) -> int:
        return min(segment_start(segment), self._stored_size)


async def _batches(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncGenerator[list[bytes], None]:
    """The stream in lists of about `BATCH_BYTES`, refused as soon as it is too long."""
    size, held = 0, 0
    batch: list[bytes] = []
    async for chunk in chunks:
        size, held = size + len(chunk), held + len(chunk)
        if size > max_bytes:
            raise ContentTooLarge(
                f"The content is larger than {max_bytes} bytes.", hint="The limit is MLOPS_MAX_UPLOAD_BYTES."
            )
        batch.append(chunk)
        if held >= BATCH_BYTES or len(batch) >= _MOST_CHUNKS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


async def _abort(upload: Upload) -> None:
    """Abort to the end even when cancelled meanwhile. A store that is away keeps its rest for the sweep."""
    aborting = asyncio.ensure_future(upload.abort())
    with suppress(PlatformError):
        await asyncio.shield(aborting)

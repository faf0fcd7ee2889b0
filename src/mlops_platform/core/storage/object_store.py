"""Objects in S3, Google Cloud Storage or Azure Blob Storage, through `obstore`."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.storage.backend import ObjectKey, StoredRange, Upload
from mlops_platform.core.storage.errors import BlobMissing

CloudStore = S3Store | GCSStore | AzureStore | MemoryStore

# S3 takes 10,000 parts of at least 5 MiB; fewer are used, so that a little miscounting does no harm.
_PART_BYTES = 8 * 1024 * 1024
_MOST_PARTS = 9_000
_PARTS_IN_FLIGHT = 2

_NO_BUCKET = "The bucket of the object store does not exist."


class ObjectStore:
    """An object store behind HTTP. What `obstore` retries by itself is set where the store is opened."""

    window_bytes = 4 * 1024 * 1024

    def __init__(self, store: CloudStore) -> None:
        self._store = store

    def upload(self, key: ObjectKey, *, largest: int) -> Upload:
        return _ObjectUpload(self._store, key, part_bytes=max(_PART_BYTES, -(-largest // _MOST_PARTS)))

    async def read_range(self, key: ObjectKey, start: int, end: int) -> StoredRange:
        try:
            with _translated(key):
                found = await obstore.get_async(self._store, key.path, options={"range": (start, end)})
                return StoredRange(bytes(await found.bytes_async()), found.meta["size"])
        except DependencyUnavailable:
            # A range behind the end of a cut object is an error too, and the store must not be blamed for it.
            size = await self.size(key)
            if size is None or size > start:
                raise
            return StoredRange(b"", size)

    async def size(self, key: ObjectKey) -> int | None:
        try:
            with _translated(key):
                return (await obstore.head_async(self._store, key.path))["size"]
        except BlobMissing:
            return None

    async def delete(self, key: ObjectKey) -> None:
        with suppress(BlobMissing), _translated(key):
            await obstore.delete_async(self._store, key.path)

    async def sweep(self, before: datetime) -> int:
        """Nothing: a failed or cancelled upload is aborted, and parts of a killed process are for the bucket's own rule.

        The interface of `obstore` cannot list unfinished uploads; docs/reference/blob-format.md names the rule to set.
        """
        return 0

    async def check(self) -> None:
        with _translated(None):
            await anext(aiter(obstore.list(self._store, "projects", chunk_size=1)), None)


class _UploadAborted(Exception):
    """Thrown into the running request, which is how `obstore` is made to abort a multipart upload."""


class _ObjectUpload:
    """A small object is one request; a larger one is streamed as parts, fed through a queue.

    Cancelling the request itself would leave its parts behind in the bucket, so it is never cancelled: it is fed an error,
    upon which it removes them.
    """

    def __init__(self, store: CloudStore, key: ObjectKey, *, part_bytes: int) -> None:
        self._store = store
        self._key = key
        self._part_bytes = part_bytes
        self._head: list[bytes] = []
        self._head_bytes = 0
        self._queue: asyncio.Queue[Sequence[bytes] | None] = asyncio.Queue(maxsize=2)
        self._request: asyncio.Task[None] | None = None
        self._is_aborted = False

    async def write(self, pieces: Sequence[bytes]) -> None:
        if self._request is not None:
            await self._feed(self._request, pieces)
            return
        self._head.extend(pieces)
        self._head_bytes += sum(map(len, pieces))
        if self._head_bytes > self._part_bytes:
            self._request = asyncio.create_task(self._put(self._chunks()))

    async def commit(self) -> None:
        if self._request is None:
            self._request = asyncio.create_task(self._put(b"".join(self._head)))
        else:
            await self._feed(self._request, None)
        await asyncio.shield(self._request)

    async def abort(self) -> None:
        self._is_aborted = True
        if self._request is None:
            return
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
        with suppress(_UploadAborted):
            await self._request
            # It was complete before it could be stopped.
            with suppress(BlobMissing), _translated(self._key):
                await obstore.delete_async(self._store, self._key.path)

    async def _put(self, content: bytes | AsyncIterator[bytes]) -> None:
        try:
            with _translated(self._key):
                await obstore.put_async(
                    self._store,
                    self._key.path,
                    content,
                    use_multipart=not isinstance(content, bytes),
                    chunk_size=self._part_bytes,
                    max_concurrency=_PARTS_IN_FLIGHT,
                )
        except BlobMissing as error:
            raise DependencyUnavailable("object store", _NO_BUCKET) from error

    async def _chunks(self) -> AsyncIterator[bytes]:
        head, self._head = self._head, []
        while head:
            yield head.pop(0)
        while (pieces := await self._queue.get()) is not None:
            for piece in pieces:
                yield piece
        if self._is_aborted:
            raise _UploadAborted

    async def _feed(self, request: asyncio.Task[None], item: Sequence[bytes] | None) -> None:
        """Hand over some pieces, or raise what the request failed with: a failed one takes nothing from the queue."""
        feeding = asyncio.ensure_future(self._queue.put(item))
        try:
            await asyncio.wait({feeding, request}, return_when=asyncio.FIRST_COMPLETED)
            if request.done() and not feeding.done():
                await request
        finally:
            feeding.cancel()


@contextmanager
def _translated(key: ObjectKey | None) -> Iterator[None]:
    """Turn the errors of `obstore` into ours. Their text can hold addresses and is not for users: it stays in the cause."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise DependencyUnavailable("object store", "The object store refuses the platform's credentials.") from error
    except (BaseError, OSError) as error:
        if "NoSuchBucket" in str(error):
            raise DependencyUnavailable("object store", _NO_BUCKET) from error
        if isinstance(error, FileNotFoundError) and key is not None:
            raise BlobMissing(key.path) from error
        raise DependencyUnavailable("object store") from error

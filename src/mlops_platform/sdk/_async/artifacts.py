"""Files to and from a service: streamed, hashed on the way, several at a time."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import httpx2

from mlops_platform.contracts.registry import Artifact as RegisteredArtifact
from mlops_platform.contracts.tracking import Artifact as TrackedArtifact
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.client import AsyncServiceClient
from mlops_platform.sdk._async.uploads import AsyncPartUploads
from mlops_platform.sdk.errors import PlatformUnreachable
from mlops_platform.sdk.files import BlobCache, ChunkReader, Download, LocalFile, check_digest, collect, landing, place
from mlops_platform.sdk.progress import transfer
from mlops_platform.sdk.wire import file_path

A = TypeVar("A", TrackedArtifact, RegisteredArtifact)

OCTETS = "application/octet-stream"
AT_ONCE = 4
DOWNLOAD_ATTEMPTS = 4
UPLOAD_PATIENCE_SECONDS = 300.0
"""The answer to an upload comes after all of it is durable."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A stored file: its logical path, digest, size, and the URL path that answers its content."""

    logical: str
    sha256: str
    size_bytes: int
    url_path: str


class AsyncArtifacts:
    """Uploads and downloads over one service."""

    def __init__(self, client: AsyncServiceClient, cache: BlobCache, *, parts: AsyncPartUploads | None = None) -> None:
        self._client = client
        self._cache = cache
        # Where the service takes large files in parts.
        self._parts = parts

    async def upload(
        self, url_path: str, source: Path, logical: str | None, *, answer: type[A], progress: bool | None
    ) -> Sequence[A]:
        """Send a file (as `logical`, or under its own name) or all files below a directory (under `logical/`)."""
        files = await backend.in_thread(collect, source, logical=logical)
        total = sum(file.size_bytes for file in files)
        with transfer(f"Uploading {source.name}", total, show=progress) as advance:

            async def one(file: LocalFile) -> A:
                return await self._put_file(f"{url_path}/{file_path(file.logical)}", file, answer, advance)

            return await backend.for_each(files, one, at_once=AT_ONCE)

    async def put_file(self, url_path: str, source: Path, answer: type[A]) -> A:
        """Send one file, without a word on its way."""
        (file,) = await backend.in_thread(collect, source)
        return await self._put_file(url_path, file, answer, _silent)

    async def put_bytes(self, url_path: str, content: bytes, *, answer: type[A], content_type: str) -> A:
        response = await self._client.request("PUT", url_path, content=content, headers={"Content-Type": content_type})
        return self._client.read(answer, response)

    async def download(self, files: Sequence[RemoteFile], directory: Path, *, label: str, progress: bool | None) -> None:
        """Bring files below `directory`, each verified against its digest."""
        targets = {file.logical: landing(directory, file.logical) for file in files}
        with transfer(f"Downloading {label}", sum(file.size_bytes for file in files), show=progress) as advance:

            async def one(file: RemoteFile) -> None:
                blob = await self.blob(file, advance)
                await backend.in_thread(place, blob, targets[file.logical])

            await backend.for_each(files, one, at_once=AT_ONCE)

    async def blob(self, file: RemoteFile, advance: Callable[[int], None]) -> Path:
        """The content of a file, from the cache when it is there."""
        found = await backend.in_thread(self._cache.find, file.sha256)
        if found is not None:
            advance(file.size_bytes)
            return found
        download = await backend.in_thread(self._cache.begin, file.sha256)
        try:
            await self._receive(file, download, advance)
            return await backend.in_thread(download.finish)
        finally:
            await backend.in_thread(download.discard)

    async def _receive(self, file: RemoteFile, download: Download, advance: Callable[[int], None]) -> None:
        # A connection that breaks in the middle goes on from where it broke.
        for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
            start = download.received_bytes
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            try:
                async with self._client.stream("GET", file.url_path, headers=headers) as response:
                    skipped = _skip(response, start)
                    async for chunk in response.aiter_bytes():
                        fresh, skipped = chunk[skipped:], max(0, skipped - len(chunk))
                        await backend.in_thread(download.write, fresh)
                        advance(len(fresh))
                    return
            except httpx2.TransportError as error:
                if attempt == DOWNLOAD_ATTEMPTS:
                    raise PlatformUnreachable(f"The download of {file.logical!r} broke off: {error}.") from error
                await backend.sleep(0.2 * attempt)

    async def _put_file(self, url_path: str, file: LocalFile, answer: type[A], advance: Callable[[int], None]) -> A:
        if self._parts is not None and file.size_bytes > self._parts.above_bytes:
            owner, _, logical = url_path.partition("/artifacts/")
            named = LocalFile(file.path, unquote(logical), file.size_bytes)
            made = await self._parts.send(f"{owner}/artifact-uploads", named, OCTETS, advance)
            return answer.model_validate(made.model_dump())
        return await self._put_whole(url_path, file, answer, advance)

    async def _put_whole(self, url_path: str, file: LocalFile, answer: type[A], advance: Callable[[int], None]) -> A:
        readers: list[ChunkReader] = []

        async def body() -> AsyncIterator[bytes]:
            readers.append(reader := ChunkReader(file.path, advance))
            try:
                while chunk := await backend.in_thread(reader.next):
                    yield chunk
            finally:
                reader.close()

        headers = {"Content-Type": OCTETS, "Content-Length": str(file.size_bytes)}
        response = await self._client.request(
            "PUT", url_path, content=body, headers=headers, patience_seconds=UPLOAD_PATIENCE_SECONDS
        )
        stored = self._client.read(answer, response)
        # Hashed while it was read, so that a file of many gigabytes is read once.
        check_digest(file.logical, sent=readers[-1].sha256, stored=stored.sha256)
        return stored


def _skip(response: httpx2.Response, start: int) -> int:
    """How many bytes at the beginning of the body we have already: all of them when the server ignored the range."""
    return 0 if response.status_code == 206 else start


def _silent(_: int) -> None:
    return

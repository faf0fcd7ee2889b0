# Generated from sdk/_async/uploads.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""Large files in parts: several at once, and never the same bytes twice, whoever died in the middle.

Nothing is kept here between two attempts. The server is asked by the digest of the content what it has of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlops_platform.contracts.tracking import Artifact
from mlops_platform.contracts.tracking_artifacts import ArtifactUpload
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.client import ServiceClient
from mlops_platform.sdk.errors import ApiError, DigestMismatch
from mlops_platform.sdk.files import ChunkReader, LocalFile, sha256_of

PARTS_AT_ONCE = 4
ROUNDS = 4
_LEAST_PATIENCE_SECONDS = 300.0
_SLOWEST_BYTES_PER_SECOND = 20 * 1024 * 1024
# The server has forgotten what it had: another replica swept it, or the content that it knew is gone.
_BEGIN_AGAIN = frozenset({"upload_incomplete", "upload_not_found", "upload_expired"})


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    start: int
    size: int


class PartUploads:
    """Uploads below one run."""

    def __init__(self, client: ServiceClient, *, above_bytes: int) -> None:
        self._client = client
        self.above_bytes = above_bytes

    def send(self, url_path: str, file: LocalFile, content_type: str, advance: Callable[[int], None]) -> Artifact:
        """Send what the server does not have yet, and make it an artifact. `url_path` is where uploads are begun."""
        sha256 = backend.in_thread(sha256_of, file.path)
        told = _Told(advance)
        body = {"path": file.logical, "sha256": sha256, "size": file.size_bytes, "content_type": content_type}
        attempt = 0
        while True:
            attempt += 1
            try:
                upload = self._client.send("POST", url_path, ArtifactUpload, json=body)
                self._send_missing(f"{url_path}/{upload.id}", file, upload, told)
                return self._finish(f"{url_path}/{upload.id}", file)
            except ApiError as error:
                if error.code == "checksum_mismatch":
                    raise DigestMismatch(
                        f"{file.logical}: the file is not what it was when the upload began.",
                        hint="Was the file written to during the upload? Upload it again.",
                    ) from error
                if error.code not in _BEGIN_AGAIN or attempt == ROUNDS:
                    raise

    def _send_missing(self, url_path: str, file: LocalFile, upload: ArtifactUpload, told: "_Told") -> None:
        if upload.is_known:
            told.reach(file.size_bytes)
            return
        here = {part.number for part in upload.received}
        parts = [part for part in _parts(upload) if part.number not in here]
        told.reach(file.size_bytes - sum(part.size for part in parts))

        def one(part: _Part) -> None:
            digest = backend.in_thread(_digest, file, part)

            def body() -> Iterator[bytes]:
                reader = ChunkReader(file.path, told.advance, start=part.start, length=part.size)
                try:
                    while chunk := backend.in_thread(reader.next):
                        yield chunk
                finally:
                    reader.close()

            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(part.size),
                "X-Checksum-SHA256": digest,
            }
            place = f"{url_path}/parts/{part.number}"
            self._client.request("PUT", place, content=body, headers=headers, patience_seconds=_LEAST_PATIENCE_SECONDS)

        backend.for_each(parts, one, at_once=PARTS_AT_ONCE)

    def _finish(self, url_path: str, file: LocalFile) -> Artifact:
        # The server reads and writes all of it once more before it answers.
        patience = max(_LEAST_PATIENCE_SECONDS, file.size_bytes / _SLOWEST_BYTES_PER_SECOND)
        response = self._client.request("POST", f"{url_path}/finish", patience_seconds=patience)
        return self._client.read(Artifact, response)


class _Told:
    """Progress that what is known from before is counted in, once."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._bytes = 0

    def advance(self, count: int) -> None:
        self._bytes += count
        self._advance(count)

    def reach(self, total: int) -> None:
        """At least so much is there."""
        if total > self._bytes:
            self.advance(total - self._bytes)


def _parts(upload: ArtifactUpload) -> list[_Part]:
    starts = [number * upload.part_bytes for number in range(upload.parts)]
    return [_Part(at, start, min(upload.part_bytes, upload.size - start)) for at, start in enumerate(starts, 1)]


def _digest(file: LocalFile, part: _Part) -> str:
    """Of one part, ahead of sending it: a file of many gigabytes is never held in memory, nor is a part."""
    reader = ChunkReader(file.path, _silent, start=part.start, length=part.size)
    while reader.next():
        pass
    return reader.sha256


def _silent(_: int) -> None:
    return

"""Content over HTTP: what was promised about an upload, and what is said about a download (RFC 9110, RFC 9530)."""

import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from urllib.parse import quote

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from mlops_platform.core.errors import (
    ContentTooLarge,
    InvalidInput,
    MalformedRequest,
    RangeNotSatisfiable,
    UnsupportedMediaType,
)
from mlops_platform.core.storage.blob_store import BlobStore, StoredBlob
from mlops_platform.core.storage.ranges import parse_range

CHECKSUM = "X-Checksum-SHA256"
OCTETS = "application/octet-stream"
_DIGEST_HEADERS = ("content-digest", "repr-digest")
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MEMBER = re.compile(r"\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?", re.ASCII)
_SAFE_NAME = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
# Scripts by each of their sixteen names, style sheets, and every document that can hold a script.
_ACTIVE = re.compile(r"script|html|xml|svg|css|wasm|pdf|flash|java|multipart|message|manifest|importmap", re.IGNORECASE)

# A browser that opens somebody's artifact must neither guess what it is nor run what is in it.
_ATTACHMENT_HEADERS = {
    "Content-Type": OCTETS,
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    # May be kept, and is asked for again each time: an ETag answers without the bytes.
    "Cache-Control": "private, no-cache",
}


def check_upload(headers: Headers, *, max_bytes: int) -> str | None:
    """Refuse an upload that cannot be read as it is; the SHA-256 in hex that the client promises, if it does."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Uploads are stored byte for byte.", hint="Send the content without Content-Encoding.")
    if "content-range" in headers:
        raise MalformedRequest("Content-Range: an upload is always of the whole content.")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:30]) > max_bytes:
        raise ContentTooLarge(f"The content is larger than {max_bytes} bytes.", hint="The limit is MLOPS_MAX_UPLOAD_BYTES.")
    promised = {digest for digest in (_plain_digest(headers), *_structured_digests(headers)) if digest}
    if len(promised) > 1:
        raise InvalidInput.of(CHECKSUM, "differs from the other digest of the request", min(promised))
    return promised.pop() if promised else None


async def upload_of(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. A client that goes away in the middle is its own mistake, not the server's."""
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise MalformedRequest("The upload ended before its end; nothing was kept.") from error


def entity_tag(value: str) -> str:
    """A strong ETag."""
    return f'"{value}"'


def is_unchanged(headers: Headers, etag: str) -> bool:
    """Whether `If-None-Match` names what the client would be sent."""
    given = ",".join(headers.getlist("if-none-match"))
    return any(tag.strip().removeprefix("W/") in {etag, "*"} for tag in given.split(",")) if given else False


def not_modified(etag: str) -> Response:
    """A 304."""
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": _ATTACHMENT_HEADERS["Cache-Control"]})


def content_headers(sha256: str, size: int, *, filename: str) -> dict[str, str]:
    """What is said about a whole content, whichever part of it is sent."""
    return {
        **_ATTACHMENT_HEADERS,
        "ETag": entity_tag(sha256),
        "Accept-Ranges": "bytes",
        "Content-Length": str(size),
        "Content-Disposition": disposition(filename),
        CHECKSUM: sha256,
        "Repr-Digest": structured_digest(sha256),
    }


def structured_digest(sha256: str) -> str:
    """A SHA-256 in hex as RFC 9530 writes it."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def disposition(filename: str) -> str:
    """To be saved under this name: once in ASCII for old clients, once exactly (RFC 6266)."""
    return f"attachment; filename=\"{_SAFE_NAME.sub('_', filename)}\"; filename*=UTF-8''{quote(filename, safe='')}"


async def blob_response(
    headers: Headers, store: BlobStore, blob: StoredBlob, *, filename: str, media_type: str = OCTETS
) -> Response:
    """A blob, or the range of it that is asked for; its first bytes are verified before anything is answered."""
    said = content_headers(blob.sha256, blob.size, filename=filename) | {"Content-Type": passive(media_type)}
    # With `If-Range`, a range of something else than what the client has is worth nothing: it gets the whole.
    is_same = headers.get("if-range", said["ETag"]) == said["ETag"]
    try:
        part = parse_range(headers.get("range"), blob.size) if is_same else None
    except RangeNotSatisfiable as error:
        error.headers["ETag"] = said["ETag"]
        raise
    if part is None:
        said["Content-Digest"] = said["Repr-Digest"]
        return ContentResponse(await store.read(blob), 200, said)
    said |= {"Content-Range": part.content_range, "Content-Length": str(part.end - part.start)}
    return ContentResponse(await store.read(blob, start=part.start, end=part.end), 206, said)


def passive(media_type: str) -> str:
    """The type to answer with: bytes, where a browser would run what is declared so.

    `nosniff` makes a browser refuse a script or a style sheet of any other type, wherever a page of this origin may have
    been made to point at one; documents are attachments in a sandbox besides.
    """
    return OCTETS if _ACTIVE.search(media_type) else media_type


def head_response(sha256: str, size: int, *, filename: str) -> Response:
    """What a GET would say, without the content."""
    return Response(headers=content_headers(sha256, size, filename=filename))


async def archive_response(stream: AsyncGenerator[bytes, None], etag: str, *, filename: str, media_type: str) -> Response:
    """A stream whose length is not known beforehand. Its first bytes are made before anything is answered."""
    first = await anext(stream, b"")
    said = {**_ATTACHMENT_HEADERS, "ETag": etag, "Content-Disposition": disposition(filename), "Content-Type": media_type}
    return ContentResponse(_resumed(first, stream), 200, said)


class ContentResponse(StreamingResponse):
    """Closes its source also when the client goes away in the middle."""

    def __init__(self, source: AsyncGenerator[bytes, None], status: int, headers: dict[str, str]) -> None:
        super().__init__(source, status, headers)
        self._source = source

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._source):
            await super().stream_response(send)


async def _resumed(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def _plain_digest(headers: Headers) -> str | None:
    given = headers.get(CHECKSUM)
    if given is None:
        return None
    if not _HEX.fullmatch(given.strip().lower()):
        raise InvalidInput.of(CHECKSUM, "must be a SHA-256 in 64 hex digits", given)
    return given.strip().lower()


def _structured_digests(headers: Headers) -> list[str]:
    """The `sha-256` members of the digest headers; other algorithms are not looked at, as RFC 9530 allows."""
    return [
        _structured(name, member)
        for name in _DIGEST_HEADERS
        for member in ",".join(headers.getlist(name)).split(",")
        if member.strip().partition("=")[0].strip() == "sha-256"
    ]


def _structured(name: str, member: str) -> str:
    match = _MEMBER.fullmatch(member)
    try:
        digest = base64.b64decode(match[1], validate=True) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidInput.of(name, "must be sha-256=:<base64 of 32 bytes>:", member.strip())
    return digest.hex()

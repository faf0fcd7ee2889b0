"""The blob format, version 1: sealed in segments, so that any range can be read and no changed byte leaves.

`docs/reference/blob-format.md` is the specification, and `tests/core/crypto/vectors` hold its test vectors. Nothing here
does I/O; sealing and opening are CPU work, so callers keep them off the event loop.
"""

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mlops_platform.core.crypto.errors import BlobCorrupt, BlobKeyUnavailable
from mlops_platform.core.crypto.key_ring import KEY_BYTES, NO_KEY, TAG_BYTES, KeyEnvelope, KeyRing, WrapScheme
from mlops_platform.core.identity import ProjectId

BlobId = NewType("BlobId", str)

MAGIC = b"\x89MLB\r\n\x1a\n"
VERSION = 1
HEADER_BYTES = 1024
SEGMENT_BYTES = 64 * 1024
SEALED_SEGMENT_BYTES = SEGMENT_BYTES + TAG_BYTES
MAX_SEGMENTS = 2**32

_SEGMENT_LOG2 = 16
_ENVELOPE_AT = 16
_WRAPPED_AT = 28
_CONTEXT_DOMAIN = b"mlops-blob-v1\x00"
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Suite(IntEnum):
    """What stands behind the 16 bytes that end each segment. The numbers are part of the format."""

    CHECKSUM_SHA_256_128 = 0
    AES_256_GCM = 1


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """Which blob of which project: the place that sealed bytes are bound to. Both ids are minted by the server."""

    project_id: ProjectId
    blob_id: BlobId

    def __post_init__(self) -> None:
        for name, value in (("project id", self.project_id), ("blob id", self.blob_id)):
            if _ID.fullmatch(value) is None:
                raise ValueError(f"A {name} is 32 lowercase hex digits, not {value!r}.")

    @property
    def binding(self) -> bytes:
        """The 32 bytes that stand for this place in associated data."""
        return bytes.fromhex(self.project_id) + bytes.fromhex(self.blob_id)


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header. The envelope is not bound to the segments, so that a key can be wrapped anew."""

    suite: Suite
    envelope: KeyEnvelope

    def pack(self) -> bytes:
        """The header as it is stored."""
        envelope = self.envelope
        if len(envelope.wrapped) > HEADER_BYTES - _WRAPPED_AT:
            raise ValueError(f"A wrapped key of {len(envelope.wrapped)} bytes does not fit into the header.")
        size = len(envelope.wrapped).to_bytes(2, "big")
        packed = _fixed(self.suite) + bytes([envelope.scheme, 0]) + size + envelope.key_id + envelope.wrapped
        return packed.ljust(HEADER_BYTES, b"\x00")

    @classmethod
    def parse(cls, raw: bytes) -> "Header":
        """Read a header; anything that `pack` would not have written is `BlobCorrupt`."""
        if len(raw) != HEADER_BYTES or not raw.startswith(MAGIC):
            raise BlobCorrupt("The stored object does not begin with a blob header.")
        if raw[8] != VERSION:
            raise BlobCorrupt(f"The blob says format version {raw[8]}; this release reads version {VERSION}.")
        try:
            suite, scheme = Suite(raw[9]), WrapScheme(raw[_ENVELOPE_AT])
        except ValueError as error:
            raise BlobCorrupt(f"The blob header names an unknown scheme: {error}.") from error
        size = int.from_bytes(raw[18:20], "big")
        header = cls(suite, KeyEnvelope(scheme, raw[20:_WRAPPED_AT], raw[_WRAPPED_AT : _WRAPPED_AT + size]))
        fits = size <= HEADER_BYTES - _WRAPPED_AT
        is_keyed = scheme is not WrapScheme.NONE if suite is Suite.AES_256_GCM else header.envelope == NO_KEY
        if not (fits and is_keyed and header.pack() == raw):
            raise BlobCorrupt("The blob header was changed.")
        return header


@dataclass(frozen=True, slots=True)
class Span:
    """The segments that hold a range of content: `first` up to, not including, `end`."""

    first: int
    end: int
    skip: int
    length: int


def sealed_size(size: int) -> int:
    """How long the stored object is for this much content."""
    return HEADER_BYTES + size + segment_count(size) * TAG_BYTES


def content_size(stored: int) -> int:
    """How much content a stored object of this length holds; `BlobCorrupt` when no content has this length."""
    body = stored - HEADER_BYTES
    count = -(-body // SEALED_SEGMENT_BYTES)
    size = body - count * TAG_BYTES
    if body <= 0 or size < 0 or sealed_size(size) != stored:
        raise BlobCorrupt(f"No blob is {stored} bytes long: it was cut or extended.")
    return size


def segment_count(size: int) -> int:
    """How many segments hold this much content. Empty content has one, so that even its end is sealed."""
    return max(1, -(-size // SEGMENT_BYTES))


def segment_start(index: int) -> int:
    """Where a segment begins in the stored object."""
    return HEADER_BYTES + index * SEALED_SEGMENT_BYTES


def span_of(start: int, end: int, size: int) -> Span:
    """The segments that hold content bytes `start` up to, not including, `end`."""
    if not 0 <= start <= end <= size:
        raise ValueError(f"The range {start}-{end} does not lie within {size} bytes.")
    first = min(start // SEGMENT_BYTES, segment_count(size) - 1)
    last = max(first, (end - 1) // SEGMENT_BYTES)
    return Span(first, last + 1, start - first * SEGMENT_BYTES, end - start)


class _Seal:
    """Seals and opens single segments of one blob."""

    def __init__(self, suite: Suite, address: BlobAddress, data_key: bytes | None) -> None:
        self._context = _context(suite, address)
        self._cipher = None if data_key is None else AESGCM(data_key)

    def seal(self, index: int, data: memoryview, *, last: bool) -> bytes:
        nonce, place = self._place(index, last=last)
        if self._cipher is None:
            return bytes(data) + self._checksum(place, data)
        return self._cipher.encrypt(nonce, data, place)

    def open(self, index: int, sealed: memoryview, *, last: bool) -> bytes:
        nonce, place = self._place(index, last=last)
        if len(sealed) < TAG_BYTES:
            raise BlobCorrupt(f"Segment {index} is cut.")
        if self._cipher is None:
            data, mark = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
            if not hmac.compare_digest(self._checksum(place, data), mark):
                raise BlobCorrupt(f"Segment {index} does not match its checksum.")
            return bytes(data)
        try:
            return self._cipher.decrypt(nonce, sealed, place)
        except InvalidTag as error:
            raise BlobCorrupt(f"Segment {index} was changed, moved, cut, or belongs to another blob.") from error

    def _place(self, index: int, *, last: bool) -> tuple[bytes, bytes]:
        # The data key is random and lives in exactly one BlobSealer, which counts up and seals each index once:
        # a counter therefore never repeats a nonce under a key, which a random nonce could not promise.
        where = bytes([last]) + index.to_bytes(8, "big")
        return where[:1] + bytes(3) + where[1:], self._context + where

    @staticmethod
    def _checksum(place: bytes, data: memoryview) -> bytes:
        digest = hashlib.sha256(place)
        digest.update(data)
        return digest.digest()[:TAG_BYTES]


class BlobSealer:
    """Turns content into the stored form as it streams. Serves one blob once, which is what makes its nonces unique."""

    def __init__(
        self,
        address: BlobAddress,
        key_ring: KeyRing | None,
        *,
        data_key: bytes | None = None,
        wrap_nonce: bytes | None = None,
    ) -> None:
        """Seal with a fresh data key, or with checksums alone when there is no ring. Keys are given only by vectors."""
        if key_ring is None:
            self.header, data_key = Header(Suite.CHECKSUM_SHA_256_128, NO_KEY), None
        else:
            data_key = os.urandom(KEY_BYTES) if data_key is None else data_key
            context = _context(Suite.AES_256_GCM, address)
            self.header = Header(Suite.AES_256_GCM, key_ring.wrap(data_key, context, nonce=wrap_nonce))
        self._seal = _Seal(self.header.suite, address, data_key)
        self._index = 0
        self._held = bytearray()  # grows in place: a client may send a byte at a time
        self._finished = False

    def update(self, content: bytes) -> list[bytes]:
        """Seal what is complete, as segments. The newest one is held back, since it may be the last."""
        self._refuse_when_finished()
        if len(self._held) + len(content) <= SEGMENT_BYTES:
            self._held += content
            return []
        # Segments are sealed out of the given buffer and handed out apart: copying a megabyte costs more than sealing it.
        missing = SEGMENT_BYTES - len(self._held)
        rest = memoryview(content)[missing:]
        self._held += content[:missing]
        sealed = [self._next(memoryview(self._held))]
        whole = (len(rest) - 1) // SEGMENT_BYTES
        sealed += [self._next(rest[i * SEGMENT_BYTES : (i + 1) * SEGMENT_BYTES]) for i in range(whole)]
        self._held = bytearray(rest[whole * SEGMENT_BYTES :])
        return sealed

    def finish(self) -> bytes:
        """Seal the rest and mark it as the last; the sealer is spent."""
        self._refuse_when_finished()
        self._finished = True
        return self._next(memoryview(self._held), last=True)

    def _next(self, data: memoryview, *, last: bool = False) -> bytes:
        if self._index >= MAX_SEGMENTS:
            raise ValueError(f"A blob has at most {MAX_SEGMENTS} segments.")
        index, self._index = self._index, self._index + 1
        return self._seal.seal(index, data, last=last)

    def _refuse_when_finished(self) -> None:
        if self._finished:
            raise RuntimeError("A sealer serves one blob once: sealing on would use a nonce twice.")


class BlobOpener:
    """Opens segments of one blob, whose content size is known from outside the object store."""

    def __init__(
        self, raw_header: bytes, address: BlobAddress, key_ring: KeyRing | None, *, size: int, is_encrypted: bool
    ) -> None:
        header = Header.parse(raw_header)
        # Checksums have no key: whoever can write to the store could put a valid plain blob in a sealed one's place.
        if (header.suite is Suite.AES_256_GCM) != is_encrypted:
            raise BlobCorrupt("The blob is stored in another way than it was recorded: it was replaced.")
        data_key = None
        if is_encrypted:
            if key_ring is None:
                raise BlobKeyUnavailable("The content is sealed, and this process has no storage keys.")
            data_key = key_ring.unwrap(header.envelope, _context(header.suite, address))
        self._seal = _Seal(header.suite, address, data_key)
        self._last = segment_count(size) - 1

    def open(self, first: int, sealed: memoryview) -> list[bytes]:
        """Open consecutive whole segments, the first of which has the index `first`. All or nothing."""
        return [
            self._seal.open(index, sealed[at : at + SEALED_SEGMENT_BYTES], last=index == self._last)
            for index, at in enumerate(range(0, len(sealed), SEALED_SEGMENT_BYTES), first)
        ]


def _context(suite: Suite, address: BlobAddress) -> bytes:
    return hashlib.sha256(_CONTEXT_DOMAIN + _fixed(suite) + address.binding).digest()


def _fixed(suite: Suite) -> bytes:
    """The first 16 bytes of the header: the part that never changes in the life of a blob."""
    return MAGIC + bytes([VERSION, suite, _SEGMENT_LOG2, 0]) + bytes(4)

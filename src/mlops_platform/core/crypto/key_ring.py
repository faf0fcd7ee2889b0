"""Key-encryption keys: the newest wraps, any of them unwraps.

A wrapped key names its key-encryption key by id and its scheme by number, and is opaque beyond that: a scheme that asks a
key management service fits into the same envelope later.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mlops_platform.core.crypto.errors import BlobCorrupt, BlobKeyUnavailable
from mlops_platform.core.errors import ConfigurationError

KEY_BYTES = 32
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16

_WRAP_DOMAIN = b"mlops-blob-key-v1\x00"


class WrapScheme(IntEnum):
    """How a data key is wrapped. The numbers are part of the blob format."""

    NONE = 0
    LOCAL_AES_256_GCM = 1


@dataclass(frozen=True, slots=True)
class KeyEnvelope:
    """A wrapped data key, with what is needed to find out who can unwrap it."""

    scheme: WrapScheme
    key_id: bytes
    wrapped: bytes


NO_KEY = KeyEnvelope(WrapScheme.NONE, bytes(KEY_ID_BYTES), b"")


class KeyRing:
    """The local key-encryption keys of one deployment, newest first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ConfigurationError(f"A storage key is {KEY_BYTES} bytes ({2 * KEY_BYTES} hex digits), and one is needed.")
        self._newest = key_id(keys[0])
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}

    @classmethod
    def from_hex(cls, *keys: str) -> "KeyRing":
        """A ring of keys as they stand in the settings; the first one wraps."""
        try:
            return cls([bytes.fromhex(key) for key in keys])
        except ValueError as error:
            raise ConfigurationError(f"A storage key is {2 * KEY_BYTES} hex digits; this one is not.") from error

    def wrap(self, data_key: bytes, context: bytes, *, nonce: bytes | None = None) -> KeyEnvelope:
        """Wrap a data key with the newest key, bound to the context. The nonce is given only by test vectors."""
        nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
        scheme = WrapScheme.LOCAL_AES_256_GCM
        sealed = self._ciphers[self._newest].encrypt(nonce, data_key, _wrap_aad(scheme, self._newest, context))
        return KeyEnvelope(scheme, self._newest, nonce + sealed)

    def unwrap(self, envelope: KeyEnvelope, context: bytes) -> bytes:
        """The data key, or `BlobCorrupt` when the envelope was changed or belongs elsewhere."""
        cipher = self._ciphers.get(envelope.key_id)
        if cipher is None:
            raise BlobKeyUnavailable(
                f"The content is sealed with the storage key {envelope.key_id.hex()}, which this process does not have.",
                hint="Add that key to the storage keys of the deployment.",
            )
        if len(envelope.wrapped) != NONCE_BYTES + KEY_BYTES + TAG_BYTES:
            raise BlobCorrupt(f"The wrapped data key has {len(envelope.wrapped)} bytes, which its scheme never makes.")
        nonce, sealed = envelope.wrapped[:NONCE_BYTES], envelope.wrapped[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, _wrap_aad(envelope.scheme, envelope.key_id, context))
        except InvalidTag as error:
            raise BlobCorrupt("The wrapped data key was changed, or belongs to another blob.") from error


def key_id(key: bytes) -> bytes:
    """The public name of a key-encryption key: the first eight bytes of its SHA-256."""
    return hashlib.sha256(key).digest()[:KEY_ID_BYTES]


def _wrap_aad(scheme: WrapScheme, name: bytes, context: bytes) -> bytes:
    return _WRAP_DOMAIN + bytes([scheme]) + name + context

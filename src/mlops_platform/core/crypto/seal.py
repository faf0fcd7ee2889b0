"""Small secrets in database columns: sealed with AES-256-GCM and bound to the row that they belong to."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mlops_platform.core.errors import PlatformError

_VERSION = b"\x01"
_NONCE_BYTES = 12


class SealBroken(PlatformError):
    """A sealed column was changed, moved to another row, or sealed under another `API_SECRET_KEY`."""

    code = "seal_broken"
    title = "A stored secret cannot be read"


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Version, nonce, ciphertext. `context` names the place: in another one it does not open."""
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, plain, _VERSION + context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """What was sealed, or `SealBroken`."""
    nonce, content = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, content, sealed[:1] + context)
    except (InvalidTag, ValueError) as error:
        raise SealBroken("A stored secret does not open with this deployment's API_SECRET_KEY.") from error

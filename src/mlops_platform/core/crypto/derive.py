"""Independent keys out of the one secret, so that no two uses share key material."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive_key(secret: str, purpose: str, *, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of the secret; `purpose` separates the uses."""
    return HKDF(algorithm=SHA256(), length=length, salt=b"mlops-platform", info=purpose.encode()).derive(secret.encode())

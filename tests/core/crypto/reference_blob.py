"""The blob format once more, as plainly as docs/reference/blob-format.md says it and with none of the platform's code.

The test vectors come from here: `python -m tests.core.crypto.reference_blob` writes them anew.
"""

import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = Path(__file__).parent / "vectors" / "blob-v1.json"
SEGMENT = 65536


def seal(project, blob, content, kek=None, data_key=None, wrap_nonce=None):
    fixed = b"\x89MLB\r\n\x1a\n" + bytes([1, 1 if kek else 0, 16, 0, 0, 0, 0, 0])
    context = hashlib.sha256(b"mlops-blob-v1\0" + fixed + bytes.fromhex(project) + bytes.fromhex(blob)).digest()
    header = fixed
    if kek:
        kek_id = hashlib.sha256(kek).digest()[:8]
        wrapped = wrap_nonce + AESGCM(kek).encrypt(
            wrap_nonce, data_key, b"mlops-blob-key-v1\0" + b"\x01" + kek_id + context
        )
        header += b"\x01\x00" + len(wrapped).to_bytes(2, "big") + kek_id + wrapped
    stored = header + bytes(1024 - len(header))
    segments = [content[at : at + SEGMENT] for at in range(0, len(content), SEGMENT)] or [b""]
    for index, segment in enumerate(segments):
        last = b"\x01" if index == len(segments) - 1 else b"\x00"
        place = context + last + index.to_bytes(8, "big")
        if kek:
            stored += AESGCM(data_key).encrypt(last + bytes(3) + index.to_bytes(8, "big"), segment, place)
        else:
            stored += segment + hashlib.sha256(place + segment).digest()[:16]
    return stored


def pattern(size):
    """Content that needs no place in the vector file: SHA-256 of 0, 1, 2, ... as eight big-endian bytes, cut to size."""
    blocks = b"".join(hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(-(-size // 32)))
    return blocks[:size]


def vectors():
    project, blob = "0190f3c1a2b37000800000000000000a", "0190f3c1a2b47000800000000000000b"
    kek, data_key, nonce = bytes(range(32)), bytes(range(100, 132)), bytes(range(200, 212))
    for size in (0, 1, 17, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 200_000):
        for sealed in (True, False):
            keys = (kek, data_key, nonce) if sealed else ()
            stored = seal(project, blob, pattern(size), *keys)
            yield {
                "name": f"{'sealed' if sealed else 'plain'}, {size} bytes",
                "project_id": project,
                "blob_id": blob,
                "key_encryption_key": kek.hex() if sealed else None,
                "data_key": data_key.hex() if sealed else None,
                "wrap_nonce": nonce.hex() if sealed else None,
                "content_size": size,
                "content_sha256": hashlib.sha256(pattern(size)).hexdigest(),
                "stored_size": len(stored),
                "stored_sha256": hashlib.sha256(stored).hexdigest(),
                "header_start": stored[:96].hex(),
                "first_segment_start": stored[1024 : 1024 + 32].hex(),
                "last_16_bytes": stored[-16:].hex(),
            }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(list(vectors()), indent=2) + "\n", encoding="utf-8")
    sys.exit(0)

"""API keys: `mlops_<kind>_<26 random base62>_<6 base62 CRC-32>`.

The prefix lets secret scanners find a leaked key, the checksum lets them (and us) tell a key from a look-alike without
asking the database. 26 base62 digits are 154 random bits, so a fast keyed hash is enough to store them.
"""

import hmac
import secrets
import string
import zlib

from mlops_platform.core.identity import PrincipalKind

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_DIGITS = 26
_CHECK_DIGITS = 6
_KIND_PREFIX = {PrincipalKind.USER: "mlops_user_", PrincipalKind.SERVICE: "mlops_svc_"}


def make_key(kind: PrincipalKind) -> str:
    """A new random key."""
    body = _KIND_PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_DIGITS))
    return f"{body}_{_checksum(body)}"


def is_key(value: str) -> bool:
    """Whether the text has the form of a key, checksum included."""
    body, _, check = value.rpartition("_")
    return value.isascii() and body.startswith(tuple(_KIND_PREFIX.values())) and check == _checksum(body)


def key_digest(pepper: bytes, key: str) -> bytes:
    """What the database stores: useless without the server's pepper."""
    return hmac.digest(pepper, key.encode(), "sha256")


def key_hint(key: str) -> str:
    """What lists show: enough to recognise a key, far from enough to use it."""
    return f"{key[: key.rindex('_')][:-_RANDOM_DIGITS]}…{key[-_CHECK_DIGITS - 5 : -_CHECK_DIGITS - 1]}"


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK_DIGITS):
        value, remainder = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[remainder] + digits
    return digits

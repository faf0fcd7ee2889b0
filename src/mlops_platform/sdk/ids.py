"""Ids that the client makes, so that what is recorded has a name before any server knows of it."""

import os
import time


def new_id() -> str:
    """A UUIDv7 as 32 lowercase hex digits, of the form that the server makes too."""
    milliseconds = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | (chance >> 68) << 64 | 0b10 << 62 | (chance & (2**62 - 1))
    return f"{value:032x}"


def is_id(text: str) -> bool:
    """Whether the text can be an id of the platform, and not a name."""
    return len(text) == 32 and all(character in "0123456789abcdef" for character in text)

"""Keys that one JSON object gives twice. Parsers keep the last and say nothing: half of what was sent would be lost."""

import json
from itertools import pairwise
from typing import Any

import msgspec

_ESCAPED_COLON = b"\\u003"


def repeated_key(body: bytes, value: Any) -> str | None:
    """A key that some object of the body gives twice; `value` is what was read of it.

    Each key brings a colon, so a body that lost one has more colons than what was read has when it is written again. Only
    a body in which the counts differ is read once more, slowly.

    >>> repeated_key(b'{"a": 1, "a": 2}', {"a": 2}), repeated_key(b'{"a": "9:30"}', {"a": "9:30"})
    ('a', None)
    """
    colons = body.count(b":")
    if colons == _keys_of_flat(value) or (_ESCAPED_COLON not in body and colons == _colons_written(value)):
        return None
    found: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            keys = sorted(key for key, _ in pairs)
            found.extend(one for one, other in pairwise(keys) if one == other)

    # Numbers are of no interest here, and integers of any length must not raise.
    json.loads(body.decode(), object_pairs_hook=check, parse_int=float)
    return found[0] if found else None


def _keys_of_flat(value: Any) -> int:
    """The keys of an object, or of a list of objects, without those further in: what most bodies are, at no cost."""
    if type(value) is dict:
        return len(value)
    if type(value) is list and set(map(type, value)) == {dict}:
        return sum(map(len, value))
    return 0


def _colons_written(value: Any) -> int:
    try:
        return msgspec.json.encode(value).count(b":")
    except UnicodeEncodeError:
        return -1

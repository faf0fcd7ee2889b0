"""Keys that one JSON object gives twice. Parsers keep the last and say nothing: half of what was sent would be lost."""

import json
from itertools import pairwise
from typing import Any


def repeated_key(body: bytes, value: Any) -> str | None:
    """A key that some object of the body gives twice; `value` is what was read of it.

    Each key brings a colon: as many colons as keys were kept means that none was dropped. So nearly all bodies cost a
    count; only one with colons in its texts is read once more.

    >>> repeated_key(b'{"a": 1, "a": 2}', {"a": 2}), repeated_key(b'{"a": "9:30"}', {"a": "9:30"})
    ('a', None)
    """
    colons = body.count(b":")
    if colons == _outer_keys(value) or colons == _all_keys(value):  # the second costs more
        return None
    found: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            keys = sorted(key for key, _ in pairs)
            found.extend(one for one, other in pairwise(keys) if one == other)

    # Numbers are of no interest here, and integers of any length must not raise.
    json.loads(body.decode(), object_pairs_hook=check, parse_int=float)
    return found[0] if found else None


def _outer_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value)
    return sum(len(item) for item in value if isinstance(item, dict)) if isinstance(value, list) else 0


def _all_keys(value: Any) -> int:
    count, level = 0, [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            count += len(item)
            level += [inner for inner in item.values() if isinstance(inner, dict | list)]
        elif isinstance(item, list):
            level += [inner for inner in item if isinstance(inner, dict | list)]
    return count

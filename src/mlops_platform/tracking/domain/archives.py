"""When two things that have one id are the same thing, and in what they differ."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

# What changes by itself, or says nothing of the content: another time of the last change alone is no other content.
_PASSING = frozenset({"updated_at", "views", "goals"})


def digest_of(record: Mapping[str, Any]) -> str:
    """The digest of a record in the JSON of the wire, whatever the order of its fields.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(given: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The fields of the given one that the found one does not have so.

    >>> differences({"run_name": "a", "tags": {}}, {"run_name": "b", "tags": {}, "points": 3})
    ['run_name']
    """
    return [name for name, value in given.items() if name not in _PASSING and _sorted(value) != _sorted(found.get(name))]


def said(record: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """What a record says by itself, without what it leaves to be what it is."""
    return {name: value for name, value in record.items() if name in fields}


def _sorted(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return sorted(value, key=lambda item: json.dumps(item, sort_keys=True))
    return value

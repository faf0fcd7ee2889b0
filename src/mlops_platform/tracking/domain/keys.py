"""Metric keys: a name and, where it has one, a context such as `{"split": "val"}`.

Inside, a key is one text: the name alone, or the name, a separator that no name can hold, and the context as canonical
JSON. So the hot path looks one text up, and a key without a context costs nothing. People write it as the search language
does: `acc{split=val}`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_platform.core.errors import InvalidInput

SEPARATOR = "\x1f"
MAX_ENTRIES = 8
MAX_SPELLED = 4000
MAX_BYTES = 1500
"""Of canonical JSON: with the longest name beside it, it must fit into one entry of an index."""
ENTRY = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,100}")
_BARE = re.compile(r"[^\W\d]\w*|\d+")
_PART = r"""(?:"(?:[^"]|"")*"|[^\s{}",=]+)"""
_PAIR = re.compile(rf"\s*({_PART})\s*=\s*({_PART})\s*")
_SPELLED = re.compile(r"""(?P<name>.*)\{(?P<inside>(?:[^{}"]|"[^"]*")*)\}""", re.DOTALL)


def make_key(name: str, context: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> str:
    r"""The one text of a name and a context.

    >>> make_key("acc", {"split": "val"})
    'acc\x1f{"split":"val"}'
    >>> make_key("acc")
    'acc'
    """
    pairs = dict(context)
    return f"{name}{SEPARATOR}{_json(pairs)}" if pairs else name


def key_parts(key: str) -> tuple[str, str]:
    """Name and canonical context, as they are stored; the context of a key without one is empty."""
    name, _, context = key.partition(SEPARATOR)
    return name, context


def context_of(stored: str) -> dict[str, str]:
    """The context as an answer shows it."""
    found: dict[str, str] = json.loads(stored) if stored else {}
    return found


def read_context(given: Any, where: str = "context") -> dict[str, str]:
    """A context of a request. Raises `InvalidInput` that names the field."""
    if not isinstance(given, dict):
        raise InvalidInput.of(where, 'must be an object of texts such as {"split": "val"}', given)
    if len(given) > MAX_ENTRIES:
        raise InvalidInput.of(where, f"holds more than {MAX_ENTRIES} entries", len(given))
    for name, value in given.items():
        if ENTRY.fullmatch(name) is None:
            raise InvalidInput.of(where, "has names of 1 to 100 characters without control characters", name[:120])
        if not isinstance(value, str) or ENTRY.fullmatch(value) is None:
            shown = value[:120] if isinstance(value, str) else value
            raise InvalidInput.of(
                f"{where}.{name}", "must be a text of 1 to 100 characters without control characters", shown
            )
    if len(_json(given).encode()) > MAX_BYTES:
        raise InvalidInput.of(where, f"is longer than {MAX_BYTES} bytes", len(_json(given).encode()))
    return given


def spell_key(name: str, stored_context: str) -> str:
    """The key as people write it.

    >>> spell_key("acc", '{"split":"val"}')
    'acc{split=val}'
    """
    if not stored_context:
        return name
    return f"{name}{{{','.join(f'{_quote(key)}={_quote(value)}' for key, value in context_of(stored_context).items())}}}"


def read_key(text: str, where: str = "key") -> str:
    """The key that a text spells: `acc`, or `acc{split=val}`. A name that itself ends in `}` is written with `{}` after it.

    >>> read_key("acc{split=val}") == make_key("acc", {"split": "val"})
    True
    """
    match = _SPELLED.fullmatch(text) if len(text) <= MAX_SPELLED and text.endswith("}") else None
    if match is None:
        return text.replace(SEPARATOR, " ")
    inside, pairs, position = match["inside"], {}, 0
    while position < len(inside):
        pair = _PAIR.match(inside, position)
        if pair is None or inside[pair.end() : pair.end() + 1] not in {"", ","}:
            return text.replace(SEPARATOR, " ")  # a name that happens to hold braces
        pairs[_unquote(pair[1])] = _unquote(pair[2])
        position = pair.end() + 1
    return make_key(match["name"].replace(SEPARATOR, " "), read_context(pairs, where))


def _json(pairs: Mapping[str, str]) -> str:
    return json.dumps(dict(pairs), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _quote(text: str) -> str:
    return text if _BARE.fullmatch(text) else '"' + text.replace('"', '""') + '"'


def _unquote(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text

"""Contexts of metrics, such as `{"split": "val"}`: what is refused before it is sent, and how they are written."""

import json
import re
from collections.abc import Mapping

Context = tuple[tuple[str, str], ...]
"""A context that was checked, its entries by name."""

MOST_ENTRIES = 8
LONGEST_BYTES = 1500
_ENTRY = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,100}")
_BARE = re.compile(r"[^\W\d]\w*|\d+")


def checked(given: Mapping[str, str] | None) -> Context:
    """A context as it is kept; an empty one is none. Raises `ValueError` where the server would refuse it."""
    if not given:
        return ()
    pairs = tuple(sorted(given.items())) if all(isinstance(name, str) for name in given) else ()
    are_texts = all(isinstance(text, str) and _ENTRY.fullmatch(text) for pair in pairs for text in pair)
    if not pairs or len(pairs) > MOST_ENTRIES or not are_texts or len(_json(pairs).encode()) > LONGEST_BYTES:
        raise ValueError(
            f"{given!r} cannot be a context: it holds at most {MOST_ENTRIES} texts of 1 to 100 characters by name, such as "
            '{"split": "val"}.'
        )
    return pairs


def spelled(key: str, context: Mapping[str, str] | None = None) -> str:
    """A key and its context as one text, as searches and paths have it.

    >>> spelled("loss", {"split": "val"}), spelled("loss", {"fold": "1 of 5"}), spelled("loss")
    ('loss{split=val}', 'loss{fold="1 of 5"}', 'loss')
    """
    if not context:
        return key
    return f"{key}{{{','.join(f'{_quoted(name)}={_quoted(value)}' for name, value in sorted(context.items()))}}}"


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else '"' + text.replace('"', '""') + '"'


def _json(pairs: Context) -> str:
    return json.dumps(dict(pairs), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

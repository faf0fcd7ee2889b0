"""Logical paths: the names of a version's files. They are values in the database and never name anything on a disk."""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from mlops_platform.core.errors import InvalidInput

MAX_PATH_BYTES = 1024
# Control and format characters (a right-to-left mark makes `exe.pdf` of `fdp.exe`), lone surrogates, separators of lines.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_DRIVE = re.compile(r"[A-Za-z]:", re.ASCII)


def check_path(path: str) -> str:
    """The path itself, or `InvalidInput` that says what is wrong with it.

    Refused is what two programs could read as two different names, and what would leave a folder when a downloaded
    archive is unpacked.

    >>> check_path("variables/variables.index")
    'variables/variables.index'
    """
    problem = _problem(path)
    if problem is not None:
        raise InvalidInput.of("path", problem, path, hint="A path looks like 'weights/layer-1.bin'.")
    return path


def ancestors(path: str) -> Iterator[str]:
    """The folders that a path implies, outermost first.

    >>> list(ancestors("a/b/c"))
    ['a', 'a/b']
    """
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))


def file_name(path: str) -> str:
    """The last segment.

    >>> file_name("a/b.bin")
    'b.bin'
    """
    return path.rpartition("/")[2]


def _problem(path: str) -> str | None:
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in path):
        return "must not contain control characters"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"must have at most {MAX_PATH_BYTES} bytes"
    return _ambiguity(path) or _escape(path)


def _ambiguity(path: str) -> str | None:
    """What could be read as another name."""
    if _REPLACEMENT in path:
        return "must be valid UTF-8"
    if unquote(path) != path:
        return "must not be percent-encoded twice"
    if not unicodedata.is_normalized("NFC", path):
        return "must be in Unicode normalization form C"
    return None


def _escape(path: str) -> str | None:
    """What could lead somewhere else."""
    if "\\" in path:
        return "must not contain a backslash: folders are separated by '/'"
    if path.startswith("/") or _DRIVE.match(path):
        return "must be relative"
    if any(segment in {"", ".", ".."} for segment in path.split("/")):
        return "must not have segments that are empty, '.' or '..'"
    return None

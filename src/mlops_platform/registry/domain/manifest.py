"""The manifest of a version: which files it consists of, and the one digest that stands for all of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MAX_FILES = 50_000


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file."""

    path: str
    sha256: str
    size: int


def manifest_digest(entries: Sequence[ManifestEntry]) -> str:
    """SHA-256, in hex, of the manifest's canonical form.

    That is the JSON array of `{"path", "sha256", "size"}` objects, sorted by path, keys in that order, no white space,
    UTF-8 without escapes. Anybody can compute it anew from the files.

    >>> manifest_digest([])
    '4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945'
    """
    ordered = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.path)]
    canonical = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()

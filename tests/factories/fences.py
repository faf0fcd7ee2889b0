"""Marked code blocks of a Markdown file: `<!-- run -->` before a bash block, `<!-- expected -->` before its JSON answer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(
    r"^<!-- (?P<mark>run|expected) -->\n+```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"^<!-- (run|expected) -->$", re.MULTILINE)
_LANGUAGES = {"run": "bash", "expected": "json"}


@dataclass(frozen=True)
class Snippet:
    """A block to run, and what its last line of output must hold when the document says so."""

    line: int
    code: str
    expected: str | None = None

    def __str__(self) -> str:
        first = self.code.strip().splitlines()[0]
        return f"line {self.line}: {first}"


def snippets(path: Path) -> Sequence[Snippet]:
    """The blocks of a file that are marked to be run, in their order."""
    return list(read(path.read_text(encoding="utf-8")))


def read(text: str) -> Iterator[Snippet]:
    found = list(_FENCE.finditer(text))
    if len(found) != len(_MARK.findall(text)):
        raise ValueError("a mark is not followed by a fenced block")
    pending: Snippet | None = None
    for fence in found:
        line = text.count("\n", 0, fence.start()) + 1
        if _LANGUAGES[fence["mark"]] != fence["language"]:
            raise ValueError(f"line {line}: a {fence['mark']} block is {_LANGUAGES[fence['mark']]}")
        if fence["mark"] == "run":
            if pending is not None:
                yield pending
            pending = Snippet(line, fence["code"])
        elif pending is None:
            raise ValueError(f"line {line}: nothing was run before this answer")
        else:
            yield Snippet(pending.line, pending.code, fence["code"])
            pending = None
    if pending is not None:
        yield pending


def differences(expected: Any, actual: Any, at: str = "answer") -> Iterator[str]:
    """Where an answer is not what was expected; fields that were not expected are fine. `"..."` stands for any value."""
    if expected == "...":
        return
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            if key in actual:
                yield from differences(value, actual[key], f"{at}.{key}")
            else:
                yield f"{at}.{key} is missing"
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(one, other, f"{at}.{place}")
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        yield f"{at} is {actual!r} and not {expected!r}"

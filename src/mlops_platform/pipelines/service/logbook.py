"""The lines of one attempt on their way to the database: numbered, bounded, kept until they are stored."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 10 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
# What a line costs beside its text: its time and stream, here and in the database. Else empty lines would cost nothing.
_LINE_BYTES = 40


@dataclass(slots=True)
class Logbook:
    """Takes lines at once and gives them as chunks. Past its limit it drops lines, and says so in a last one."""

    project_id: str
    task_run_id: str
    attempt: int
    max_bytes: int = MAX_BYTES
    _lines: list[list[Any]] = field(default_factory=list)
    _first: int = 0
    _bytes: int = 0
    _is_full: bool = False

    def add(self, stream: str, text: str) -> None:
        """Take one line."""
        if self._is_full:
            return
        self._bytes += _LINE_BYTES + len(text)
        if self._bytes > self.max_bytes:
            self._is_full = True
            stream, text = "platform", f"The log is longer than {self.max_bytes} bytes; what follows was not kept."
        self._lines.append([time.time_ns() // 1_000_000, stream, text])

    def chunks(self) -> Sequence[dict[str, Any]]:
        """Everything that is not stored yet. Until `stored` is called, asking again gives them and those since."""
        made: list[dict[str, Any]] = []
        size = _CHUNK_BYTES
        for offset, line in enumerate(self._lines):
            cost = _LINE_BYTES + len(line[2])
            size += cost
            if size > _CHUNK_BYTES:
                size = cost
                made.append(self._chunk(self._first + offset))
            made[-1]["lines"].append(line)
            made[-1]["line_count"] += 1
        return made

    def stored(self, chunks: Sequence[dict[str, Any]]) -> None:
        """These chunks are durable."""
        count = sum(chunk["line_count"] for chunk in chunks)
        del self._lines[:count]
        self._first += count

    def _chunk(self, first_line: int) -> dict[str, Any]:
        return {
            "project_id": self.project_id,
            "task_run_id": self.task_run_id,
            "attempt": self.attempt,
            "first_line": first_line,
            "line_count": 0,
            "lines": [],
        }

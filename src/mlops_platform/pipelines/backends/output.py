"""The output of a task as bounded lines."""

import asyncio
from collections.abc import Callable

LINE_LIMIT = 8 * 1024
_CHUNK = 64 * 1024

OnLine = Callable[[str, str], None]
"""Takes the stream's name and one line."""


class LineReader:
    """Splits one stream of a process into lines for whichever task it runs, up to that task's marker."""

    def __init__(self, stream: asyncio.StreamReader, name: str) -> None:
        self._stream = stream
        self._name = name
        self._rest = b""

    async def read_until(self, marker: bytes, on_line: OnLine) -> bool:
        """Hand each line to `on_line`. True when the marker came, False when the stream ended before it."""
        while True:
            if self._take_lines(marker, on_line):
                return True
            chunk = await self._stream.read(_CHUNK)
            if not chunk:
                self._emit(self._rest, on_line)
                self._rest = b""
                return False
            self._rest += chunk

    def _take_lines(self, marker: bytes, on_line: OnLine) -> bool:
        *lines, self._rest = self._rest.split(b"\n")
        for index, line in enumerate(lines):
            if line.endswith(marker):
                # What the task left without a newline stands before the marker on the same line.
                self._emit(line[: -len(marker)], on_line)
                self._rest = b"\n".join([*lines[index + 1 :], self._rest])
                return True
            self._emit(line, on_line, keep_empty=True)
        while len(self._rest) > LINE_LIMIT + len(marker):
            self._emit(self._rest[:LINE_LIMIT], on_line)
            self._rest = self._rest[LINE_LIMIT:]
        return False

    def _emit(self, line: bytes, on_line: OnLine, *, keep_empty: bool = False) -> None:
        if not line and not keep_empty:
            return
        for start in range(0, max(len(line), 1), LINE_LIMIT):
            piece = line[start : start + LINE_LIMIT].decode("utf-8", "replace")
            on_line(self._name, piece.replace("\x00", "\N{REPLACEMENT CHARACTER}").rstrip("\r"))

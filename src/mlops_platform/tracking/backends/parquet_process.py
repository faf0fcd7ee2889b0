"""The program of a process of its own: reads schema and first rows of a Parquet file that somebody uploaded.

Nothing imports this module. A file can be made so that its reader takes gigabytes, or for ever, or crashes: here that ends
one preview. The process sees no file and no secret; it asks for ranges on standard output and gets them on standard input.
"""

import io
import json
import math
import resource
import struct
import sys
from contextlib import suppress
from typing import Any

import pyarrow as pa
from pyarrow import parquet

_MEMORY_BYTES = 3 * 512 * 1024**2
_CPU_SECONDS = 20
_EXACT = 2**53
_PIECE = 8 * 1024 * 1024


def main() -> None:
    """One file, one answer."""
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with suppress(ValueError, OSError):  # not every system has each of them
            resource.setrlimit(what, (most, most))
    limits = json.loads(sys.argv[1])
    answer = json.dumps(head(_Ranges(limits["size"]), limits), allow_nan=False).encode()
    _say(b"A", 0, len(answer))
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()


def head(source: Any, limits: dict[str, int]) -> dict[str, Any]:
    """Columns with their types, the first rows as JSON values, and how many rows there are."""
    pa.set_cpu_count(1)
    file = parquet.ParquetFile(pa.PythonFile(source, mode="r"), buffer_size=1024 * 1024, pre_buffer=False)
    fields = list(file.schema_arrow)
    shown = [field.name for field in fields[: limits["columns"]]]
    rows: list[list[Any]] = []
    if file.metadata.num_rows and file.metadata.num_row_groups:
        batches = file.iter_batches(limits["rows"], row_groups=[0], columns=shown, use_threads=False)
        batch = next(iter(batches), None)
        if batch is not None:
            cells = [[plain(value.as_py(), limits["cell"]) for value in column] for column in batch.columns]
            rows = [list(row) for row in zip(*cells, strict=True)]
    return {
        "columns": [(field.name, str(field.type)[: limits["cell"]]) for field in fields[: limits["columns"]]],
        "rows": rows,
        "row_count": file.metadata.num_rows,
        "is_cut": len(rows) < file.metadata.num_rows or len(shown) < len(fields),
    }


def plain(value: Any, longest: int) -> Any:
    """A cell as JSON has it: what JSON cannot say exactly is text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, bytes):
        return value[: longest // 2].hex()
    return str(value)[:longest]


class _Ranges(io.RawIOBase):
    """A file that is on the other side."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        length = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        parts = []
        while length > 0:
            piece = min(length, _PIECE)
            _say(b"R", self._at, piece)
            parts.append(sys.stdin.buffer.read(piece))
            if len(parts[-1]) != piece:
                raise EOFError
            self._at += piece
            length -= piece
        return b"".join(parts)


def _say(kind: bytes, start: int, length: int) -> None:
    sys.stdout.buffer.write(struct.pack(">cQQ", kind, start, length))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""What a file is by its first bytes, and its beginning as text or table. Names and types that were given say little."""

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

HEAD_BYTES = 256 * 1024
TEXT_BYTES = 64 * 1024
IMAGE_BYTES = 32 * 1024 * 1024
MOST_ROWS = 100
MOST_COLUMNS = 200
LONGEST_CELL = 1000
PARQUET_MARK = b"PAR1"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Table:
    """The first rows of a table; what was cut off is counted nowhere."""

    columns: Sequence[tuple[str, str | None]]
    rows: Sequence[Sequence[object]]
    row_count: int | None = None
    is_cut: bool = False


def image_type(head: bytes) -> str | None:
    """The type of an image that a browser shows and in which nothing runs; None for everything else, SVG above all.

    >>> image_type(b"GIF89a...")
    'image/gif'
    >>> image_type(b"<svg xmlns='http://www.w3.org/2000/svg'>")
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in _IMAGES if head.startswith(mark)), None)


def text_of(head: bytes, *, is_cut: bool) -> str | None:
    r"""The bytes as UTF-8, without half a character at the end; None when they are no text.

    >>> text_of("größe".encode()[:3], is_cut=True)
    'gr'
    >>> text_of(b"\x00\x01", is_cut=False)
    """
    if b"\0" in head:
        return None
    try:
        text, _ = codecs.utf_8_decode(head, "strict", not is_cut)
    except UnicodeDecodeError:
        return None
    return text.removeprefix("\ufeff")


def delimiter_of(path: str) -> str | None:
    """What stands between the cells of such a file, if it is a table."""
    return _DELIMITERS.get(PurePosixPath(path).suffix.lower())


def is_json(path: str) -> bool:
    """Whether the name says JSON."""
    return PurePosixPath(path).suffix.lower() in {".json", ".ipynb", ".geojson"}


def table_of(text: str, delimiter: str, *, is_cut: bool) -> Table | None:
    """The first rows of delimited text, the first of which names the columns; None when it cannot be read as such."""
    if is_cut:
        text = text[: text.rfind("\n") + 1]
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            rows.append([cell[:LONGEST_CELL] for cell in row[:MOST_COLUMNS]])
            is_cut = is_cut or len(row) > MOST_COLUMNS
            if len(rows) > MOST_ROWS + 1:
                break
    except csv.Error:
        return None
    if not rows:
        return None
    is_cut = is_cut or len(rows) > MOST_ROWS + 1
    return Table([(name, None) for name in rows[0]], rows[1 : MOST_ROWS + 1], is_cut=is_cut)

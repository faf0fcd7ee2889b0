"""Figures, images and tables as bytes: what a run keeps of them. Libraries are used where the caller has them."""

import csv
import io
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mlops_platform.sdk.errors import MissingPackage, MlopsError
from mlops_platform.sdk.frames import to_rows
from mlops_platform.sdk.wire import encode

CONTENT_TYPES: Mapping[str, str] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".html": "text/html",
    ".json": "application/json",
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
}


class NotLoggable(MlopsError, TypeError):
    """A thing that none of the known libraries made, or a file name whose ending does not fit it."""


@dataclass(frozen=True, slots=True)
class Content:
    """What goes into one artifact."""

    data: bytes
    content_type: str


def figure(drawn: Any, path: str) -> Content:
    """A figure of matplotlib (any ending that it can write), or of plotly, Altair or Bokeh-like (.html, .json)."""
    ending = _ending(path)
    if hasattr(drawn, "savefig"):
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=ending.removeprefix("."))
        return _content(buffer.getvalue(), ending)
    writer = {".html": "to_html", ".json": "to_json"}.get(ending, "to_image")
    write = getattr(drawn, writer, None)
    if write is None:
        raise NotLoggable(
            f"A {type(drawn).__name__} cannot be stored as {path!r}.",
            hint="Figures come from matplotlib (savefig) or from plotly (.html, .json).",
        )
    made = write(format=ending.removeprefix(".")) if writer == "to_image" else write()
    return _content(made if isinstance(made, bytes) else str(made).encode(), ending)


def image(picture: Any, path: str) -> Content:
    """A picture: of Pillow, an array of height x width (x 1, 3 or 4), a tensor, or encoded bytes."""
    ending = _ending(path)
    if isinstance(picture, bytes | bytearray):
        return _content(bytes(picture), ending)
    if hasattr(picture, "save"):
        buffer = io.BytesIO()
        picture.save(buffer, format={".jpg": "JPEG"}.get(ending, ending.removeprefix(".").upper()))
        return _content(buffer.getvalue(), ending)
    if ending != ".png":
        raise NotLoggable(f"An array is stored as .png, and {path!r} ends otherwise.", hint="Pillow writes other formats.")
    return _content(_png(picture), ending)


def table(rows: Any, path: str) -> Content:
    """A table: rows, columns by name, or a table of pandas, polars or pyarrow; the ending says the format."""
    ending = _ending(path)
    if ending == ".parquet":
        return _content(_parquet(rows), ending)
    listed = _columns_to_rows(rows) if isinstance(rows, Mapping) else to_rows(rows)
    columns = list(dict.fromkeys(column for row in listed for column in row))
    if ending == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
        return _content(text.getvalue().encode(), ending)
    if ending != ".json":
        raise NotLoggable(f"A table is stored as .json, .csv or .parquet, and {path!r} ends otherwise.")
    return json_document({"columns": columns, "data": [[row.get(column) for column in columns] for row in listed]})


def json_document(value: Any) -> Content:
    """Whatever JSON can carry, to be read by people too."""
    return _content(json.dumps(json.loads(encode(value)), indent=2, ensure_ascii=False).encode(), ".json")


def content_type_of(path: str) -> str:
    """By the ending; what is unknown is bytes."""
    return CONTENT_TYPES.get(PurePosixPath(path).suffix.lower(), "application/octet-stream")


def _content(data: bytes, ending: str) -> Content:
    return Content(data, CONTENT_TYPES.get(ending, "application/octet-stream"))


def _ending(path: str) -> str:
    ending = PurePosixPath(path).suffix.lower()
    if not ending:
        raise NotLoggable(f"{path!r} has no ending that says the format, such as .png or .json.")
    return ending


def _columns_to_rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = {name: list(column) for name, column in columns.items()}
    lengths = {len(column) for column in values.values()}
    if len(lengths) > 1:
        raise NotLoggable(f"The columns of a table have one length; these have {', '.join(map(str, sorted(lengths)))}.")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _parquet(rows: Any) -> bytes:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackage("A .parquet table needs pyarrow.", hint="pip install pyarrow") from error
    if hasattr(rows, "__arrow_c_stream__"):
        made = pa.table(rows)
    elif isinstance(rows, Mapping):
        made = pa.table({name: list(column) for name, column in rows.items()})
    else:
        made = pa.Table.from_pylist(to_rows(rows))
    buffer = pa.BufferOutputStream()
    parquet.write_table(made, buffer)
    data: bytes = buffer.getvalue().to_pybytes()
    return data


def _png(picture: Any) -> bytes:
    """An array as PNG. Numbers of 0 to 1 are brightness, whole numbers are 0 to 255."""
    if hasattr(picture, "detach"):
        picture = picture.detach().cpu().numpy()
    if not hasattr(picture, "shape") or not hasattr(picture, "astype"):
        raise NotLoggable(f"A {type(picture).__name__} is no picture.", hint="Give an array, a Pillow image or bytes.")
    if picture.ndim == 3 and picture.shape[0] in {1, 3, 4} and picture.shape[2] not in {1, 3, 4}:
        picture = picture.transpose(1, 2, 0)
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in {1, 3, 4} or 0 in picture.shape:
        raise NotLoggable(f"An array of the shape {tuple(picture.shape)} is no picture.")
    if picture.dtype.kind == "f":
        picture = (picture * 255).clip(0, 255).round()
    elif picture.dtype.kind == "b":
        picture = picture * 255
    height, width, channels = picture.shape
    pixels = picture.clip(0, 255).astype("uint8")
    lines = b"".join(b"\x00" + pixels[row].tobytes() for row in range(height))
    kind = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 6)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

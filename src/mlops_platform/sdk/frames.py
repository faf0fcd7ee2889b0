"""Rows in whatever form the caller has them: dictionaries, pandas, polars, pyarrow."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from mlops_platform.sdk.errors import MissingPackage, MlopsError


class NotATable(MlopsError):
    """A file that should hold a table does not."""


Row = Mapping[str, Any]


@runtime_checkable
class ArrowTable(Protocol):
    """What exports the Arrow C stream: pyarrow, polars, pandas 2.2 and newer, duckdb."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The PyCapsule of the stream."""


Rows = Iterable[Row] | ArrowTable


def is_table(rows: object) -> bool:
    """Whether the rows come as a table of some library, and not as dictionaries."""
    return isinstance(rows, ArrowTable) or hasattr(rows, "to_dict")


def to_rows(rows: Any) -> list[dict[str, Any]]:
    """A list of dictionaries."""
    if hasattr(rows, "to_pylist"):
        return list(rows.to_pylist())
    if hasattr(rows, "to_dicts"):
        return list(rows.to_dicts())
    if hasattr(rows, "to_dict"):
        return list(rows.to_dict(orient="records"))
    return [dict(row) for row in rows]


def to_arrow_ipc(table: Any) -> bytes:
    """A table as an Arrow IPC stream, without a copy through Python objects."""
    try:
        import pyarrow as pa
        from pyarrow import ipc
    except ImportError as error:
        raise MissingPackage("Sending a table needs pyarrow.", hint="pip install pyarrow") from error
    has_stream = hasattr(table, "__arrow_c_stream__")
    arrow = pa.table(table) if has_stream else pa.Table.from_pandas(table, preserve_index=False)
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_table(arrow)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_parquet(path: str) -> Any:
    """A Parquet file as a table."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingPackage("Reading Parquet needs pyarrow.", hint="pip install pyarrow") from error
    try:
        return parquet.read_table(path)
    except ArrowInvalid as error:
        raise NotATable(f"{path} is not a Parquet file: {error}") from error


def typed_features(features: Mapping[str, str] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`{"age": "int"}` or the list that the wire has."""
    if isinstance(features, Mapping):
        return [{"name": name, "type": str(kind)} for name, kind in features.items()]
    return [dict(feature) for feature in features]


def flat(item: Any) -> dict[str, Any]:
    """One answer as one row: what is nested in it becomes columns such as `params.lr`, `metrics.loss`, `tags.team`."""
    fields = item.model_dump() if hasattr(item, "model_dump") else dict(item)
    row: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            prefix = {"parameters": "params"}.get(name, name)
            row |= {f"{prefix}.{key}": inner for key, inner in value.items()}
        else:
            row[name] = value
    return row


def to_columns(items: Iterable[Any]) -> dict[str, list[Any]]:
    """Answers as columns of one type each: where the types of a column differ it is text."""
    rows = [flat(item) for item in items]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: _of_one_type([row.get(name) for row in rows]) for name in names}


def _of_one_type(values: list[Any]) -> list[Any]:
    kinds = {_kind(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [float(value) if value is not None and float in kinds else value for value in values]
    if len(kinds) == 1 and not kinds & {list, dict}:
        return values
    return [value if value is None or isinstance(value, str) else str(value) for value in values]


def _kind(value: Any) -> type:
    return next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), type(value))


def as_arrow(columns: Mapping[str, list[Any]]) -> Any:
    """Columns as a table of pyarrow."""
    return _library("pyarrow").table(dict(columns))


def as_pandas(columns: Mapping[str, list[Any]]) -> Any:
    """Columns as a frame of pandas."""
    return _library("pandas").DataFrame(dict(columns))


def as_polars(columns: Mapping[str, list[Any]]) -> Any:
    """Columns as a frame of polars."""
    return _library("polars").DataFrame(dict(columns))


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackage(f"This needs {name}, which is not installed.", hint=f"pip install {name}") from error

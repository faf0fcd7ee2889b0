"""Rows in whatever form the caller has them: dictionaries, pandas, polars, pyarrow."""

from collections.abc import Iterable, Mapping, Sequence
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

"""Arrow and Parquet uploads: opened within limits, checked against a schema, brought into the stored form.

Blocking: runs in a thread. Nothing in a file is executed; a type that is not in the lists below is refused.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import ipc

from mlops_platform.contracts.features import EVENT_TIMESTAMP, MAX_ENTITY_LENGTH, FeatureType
from mlops_platform.core.errors import ContentTooLarge, InvalidInput, MalformedRequest
from mlops_platform.features.backends.columns import STORED_TYPES, Column, column_name
from mlops_platform.features.domain.rows import MAX_LIST_LENGTH, MAX_STRING_LENGTH
from mlops_platform.features.domain.schema import FeatureSpec, FeatureView
from mlops_platform.features.domain.times import MAX_US, MIN_US

MAX_UPLOAD_ROWS = 5_000_000
# What a file may unpack to: a few kilobytes of Parquet can hold gigabytes of zeros.
MAX_UNPACKED_BYTES = 1024**3
_NUMBER_BYTES = 8
_ENTITY_PATTERN = r"^[^\x00-\x1f\x7f]+$"


class UploadFormat(StrEnum):
    """The columnar formats that can be sent."""

    ARROW = "application/vnd.apache.arrow.stream"
    PARQUET = "application/vnd.apache.parquet"


def read_table(path: Path, form: UploadFormat) -> pa.Table:
    """The table in a file, read only as far as the limits allow."""
    try:
        table = _read_parquet(path) if form is UploadFormat.PARQUET else _read_arrow(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedRequest(f"The body is not a readable {form.value}: {str(error).splitlines()[0]}.") from None
    if not table.num_rows:
        raise InvalidInput.of("body", "holds no rows")
    doubled = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if doubled:
        raise InvalidInput.of(doubled[0], "stands twice among the columns")
    return table


def _read_parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
    leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    _check_size(metadata.num_rows, _declared_size(metadata, leaves))
    # As dictionaries first: written out, a page that names one long text ten thousand times fills the memory.
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
        table = pa.Table.from_batches(_within_limits(file.iter_batches()), schema=file.schema_arrow)
    return pa.table([_written_out(table.column(i), field.type) for i, field in enumerate(schema)], schema=schema)


def _declared_size(metadata: Any, leaves: Sequence[Any]) -> int:
    """Bytes before encoding, by the file's own account; of lists, which a batch may hold any number of, the numbers."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    lists = [i for i, leaf in enumerate(leaves) if leaf.max_repetition_level and leaf.physical_type != "BYTE_ARRAY"]
    in_lists: int = sum(group.column(i).num_values * _NUMBER_BYTES for group in groups for i in lists)
    encoded: int = sum(group.total_byte_size for group in groups)
    return max(in_lists, encoded)


def _written_out(column: Column, kind: pa.DataType) -> Column:
    # No cast leads from a dictionary to views.
    return (column.cast(pa.string()) if pa.types.is_string_view(kind) else column).cast(kind)


def _read_arrow(path: Path) -> pa.Table:
    with path.open("rb") as source, ipc.open_stream(source) as reader:
        return pa.Table.from_batches(_within_limits(reader), schema=reader.schema)


def _within_limits(batches: object) -> list[pa.RecordBatch]:
    kept: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:  # type: ignore[attr-defined]
        rows, size = rows + batch.num_rows, size + sum(unpacked_size(column) for column in batch.columns)
        _check_size(rows, size)
        kept.append(batch)
    return kept


def unpacked_size(array: Any) -> int:
    """Bytes of an array's values once dictionaries and views, which may name one long text many times, are written out."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _sum(_lengths(array.dictionary).take(array.indices))
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _sum(_lengths_of_views(array))
    if pa.types.is_map(kind):
        return unpacked_size(array.keys) + unpacked_size(array.items)
    if pa.types.is_struct(kind):
        return sum(unpacked_size(part) for part in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return unpacked_size(array.flatten())
    return int(array.nbytes)


def _lengths(values: Any) -> Any:
    if _is_text(values.type) or pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return pc.binary_length(values.cast(pa.large_binary()))
    return pa.array([_NUMBER_BYTES], pa.int64()).take(pa.array([0] * len(values), pa.int64()))


def _lengths_of_views(array: Any) -> Any:
    """A view is four numbers of 32 bits, of which the first is the length."""
    end = array.offset + len(array)
    words = pa.Array.from_buffers(pa.int32(), 4 * end, [None, array.buffers()[1]])
    views: Any = pa.Array.from_buffers(pa.list_(pa.int32(), 4), end, [None], children=[words])
    return pc.list_element(views.slice(array.offset), 0)


def _sum(lengths: Any) -> int:
    return pc.sum(lengths).as_py() or 0


def _check_size(rows: int, size: int) -> None:
    if rows > MAX_UPLOAD_ROWS:
        raise ContentTooLarge(f"The file holds more than {MAX_UPLOAD_ROWS} rows.", hint="Send it in several parts.")
    if size > MAX_UNPACKED_BYTES:
        raise ContentTooLarge(
            f"The file unpacks to more than {MAX_UNPACKED_BYTES} bytes.", hint="Send it in several parts."
        )


def conform_upload(table: pa.Table, view: FeatureView) -> pa.Table:
    """The stored columns `entity`, `event_us` and `f<slot>`, typed and checked; of equal identities the last row stays."""
    known = {view.entity, EVENT_TIMESTAMP} | set(view.schema.by_name())
    unknown = [name for name in table.column_names if name not in known]
    if unknown:
        raise InvalidInput.of(
            unknown[0], f"is not a column of the feature set {view.name!r}", hint=f"It has {sorted(known)}."
        )
    columns = {
        "entity": read_entities(table, view.entity),
        "event_us": read_moments(table, EVENT_TIMESTAMP, required=True),
    }
    for feature in view.schema.features:
        columns[column_name(feature.slot)] = _read_feature(table, feature)
    return _dedupe(pa.table(columns))


def read_entities(table: pa.Table, name: str) -> Column:
    """An entity column: text or whole numbers, never null."""
    column = _required(table, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise InvalidInput.of(name, f"must hold text or whole numbers, not {column.type}")
    column = column.cast(pa.string())
    right = pc.and_(
        pc.match_substring_regex(column, _ENTITY_PATTERN),
        pc.less_equal(pc.utf8_length(column), pa.scalar(MAX_ENTITY_LENGTH)),
    )
    _refuse_where(
        name, pc.invert(right), f"must have 1 to {MAX_ENTITY_LENGTH} characters, none of them a control character"
    )
    return column


def read_moments(table: pa.Table, name: str, *, required: bool) -> Column:
    """A time column as microseconds. Without a zone it is UTC; finer units are cut, never rounded into the future."""
    column = _required(table, name) if required else table.column(name)
    if not pa.types.is_timestamp(column.type):
        raise InvalidInput.of(name, f"must hold timestamps, not {column.type}")
    utc: Any = column.cast(pa.timestamp(column.type.unit))
    if column.type.unit == "ns":
        utc = pc.floor_temporal(utc, unit="microsecond")
    cut = _cast(name, utc, pa.timestamp("us"))
    moments = cut.cast(pa.int64())
    outside = pc.or_(pc.less(moments, pa.scalar(MIN_US)), pc.greater(moments, pa.scalar(MAX_US)))
    _refuse_where(name, outside, "lies outside the years 1 to 9999 in UTC")
    return moments


def _required(table: pa.Table, name: str) -> Column:
    if name not in table.column_names:
        raise InvalidInput.of(name, "is missing among the columns", hint=f"The upload has {table.column_names[:50]}.")
    column = table.column(name)
    _refuse_where(name, pc.is_null(column), "must not be null")
    return column


def _read_feature(table: pa.Table, feature: FeatureSpec) -> Column:
    kind = STORED_TYPES[feature.type]
    if feature.name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    column = table.column(feature.name)
    if pa.types.is_null(column.type):
        return column.cast(kind)
    if feature.type is FeatureType.TIMESTAMP:
        return read_moments(table, feature.name, required=False)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _ACCEPTED[feature.type](column.type):
        raise InvalidInput.of(feature.name, f"must hold {feature.type.value} values, not {column.type}")
    column = _cast(feature.name, column, kind)
    _check_lengths(feature, column)
    return column


def _check_lengths(feature: FeatureSpec, column: Column) -> None:
    if feature.type is FeatureType.STRING:
        _refuse_where(feature.name, pc.greater(pc.utf8_length(column), pa.scalar(MAX_STRING_LENGTH)), "is too long")
        _refuse_where(feature.name, pc.match_substring(column, "\0"), "must not contain NUL")
    elif feature.type is FeatureType.FLOAT_LIST:
        _refuse_where(feature.name, pc.greater(pc.list_value_length(column), pa.scalar(MAX_LIST_LENGTH)), "is too long")
        _refuse_where(feature.name, _holds_null(column), "must not hold null within a list")


def _holds_null(column: Column) -> Column:
    parents = pc.list_parent_indices(column.combine_chunks())
    with_null = set(parents.filter(pc.is_null(pc.list_flatten(column.combine_chunks()))).to_pylist())
    return pa.chunked_array([pa.array((i in with_null for i in range(len(column))), pa.bool_())])


def _cast(name: str, column: Column, kind: pa.DataType) -> Column:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise InvalidInput.of(name, f"does not fit: {str(error).splitlines()[0]}") from None


def _refuse_where(name: str, wrong: Column, message: str) -> None:
    first = pc.index(wrong, value=True).as_py()
    if first >= 0:
        raise InvalidInput.of(f"rows[{first}].{name}", message, hint="Nothing was kept.")


def _dedupe(table: pa.Table) -> pa.Table:
    return table.take(_last_of(table, ["entity", "event_us"]))


def event_span(table: pa.Table) -> tuple[int, int]:
    """The first and the last event."""
    span: Any = pc.min_max(table.column("event_us"))
    return span["min"].as_py(), span["max"].as_py()


def newest_of(table: pa.Table) -> pa.Table:
    """The newest row of each entity."""
    ordered = table.take(pc.sort_indices(table, sort_keys=[("event_us", "ascending")]))
    return ordered.take(_last_of(ordered, ["entity"]))


def _last_of(table: pa.Table, keys: list[str]) -> Column:
    places = table.select(keys).append_column("place", pa.array(range(table.num_rows), pa.int64()))
    return places.group_by(keys).aggregate([("place", "max")]).column("place_max").combine_chunks().sort()


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _is_numbers(kind: Any) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and _is_number(kind.value_type)


_ACCEPTED: dict[FeatureType, Callable[[pa.DataType], bool]] = {
    FeatureType.INT: pa.types.is_integer,
    FeatureType.FLOAT: _is_number,
    FeatureType.STRING: _is_text,
    FeatureType.BOOL: pa.types.is_boolean,
    FeatureType.FLOAT_LIST: _is_numbers,
}

"""The labels of a training set as a table: from JSON rows or an upload, and the result with its features beside them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_platform.contracts.common import MAX_INTEGER
from mlops_platform.contracts.features import EVENT_TIMESTAMP, MAX_TRAINING_ROWS
from mlops_platform.core.errors import ContentTooLarge, InvalidInput
from mlops_platform.features.backends.columns import Column
from mlops_platform.features.backends.uploads import read_moments
from mlops_platform.features.domain.times import MAX_US, MIN_US, to_us

MAX_LABELS = 5_000_000
MAX_CELLS = 100_000_000
MAX_LABEL_COLUMNS = 1000
_TIMES = pa.timestamp("us", tz="UTC")
_EXACT = 2**53


def labels_from_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """JSON rows as a table. A column holds one kind of value; a field left out is null."""
    if len(rows) > MAX_TRAINING_ROWS:
        raise ContentTooLarge(f"There are more than {MAX_TRAINING_ROWS} rows.", hint="Send them as Parquet or Arrow.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > MAX_LABEL_COLUMNS:
        raise InvalidInput.of("rows", f"have more than {MAX_LABEL_COLUMNS} different fields", len(names))
    columns = {name: _column(name, [row.get(name) for row in rows]) for name in names}
    return pa.table(columns)


def _column(name: str, values: list[Any]) -> Any:
    if name == EVENT_TIMESTAMP:
        return pa.array([_moment(i, value) for i, value in enumerate(values)], pa.int64()).cast(_TIMES)
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        if any(isinstance(value, int) and abs(value) > _EXACT for value in values):
            raise InvalidInput.of(f"rows.{name}", "mixes fractions with an integer that no float holds exactly")
        kinds = {float}
    if len(kinds) > 1:
        raise InvalidInput.of(f"rows.{name}", f"mixes kinds of values: {sorted(kind.__name__ for kind in kinds)}")
    kind = kinds.pop() if kinds else None
    if kind not in _KINDS:
        raise InvalidInput.of(f"rows.{name}", "must hold numbers, text, or true and false")
    if kind is int and any(value is not None and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER for value in values):
        raise InvalidInput.of(f"rows.{name}", "holds an integer that does not fit in 64 bits")
    return pa.array(values, _KINDS[kind])


_KINDS: dict[type | None, Any] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
    None: pa.null(),
}


def _moment(row: int, value: Any) -> int:
    try:
        moment = msgspec.convert(value, datetime) if isinstance(value, str) else None
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None or not MIN_US <= to_us(moment) <= MAX_US:
        shown = value[:64] if isinstance(value, str) else None
        raise InvalidInput.of(
            f"rows[{row}].{EVENT_TIMESTAMP}", "must be an RFC 3339 time with its offset, as 2026-01-31T09:00:00Z", shown
        )
    return to_us(moment)


def check_labels(labels: pa.Table, feature_count: int) -> Column:
    """The labels' moments in microseconds, when all is as it must be."""
    if labels.num_rows > MAX_LABELS:
        raise ContentTooLarge(f"There are more than {MAX_LABELS} labels.", hint="Make several training sets.")
    if labels.num_rows * (feature_count + labels.num_columns) > MAX_CELLS:
        raise ContentTooLarge(f"The training set would have more than {MAX_CELLS} values.", hint="Make several.")
    for name in labels.column_names:
        _check_keepable(labels.select([name]))
    return read_moments(labels, EVENT_TIMESTAMP, required=True)


def _check_keepable(column: pa.Table) -> None:
    """Arrow has types that Parquet does not."""
    try:
        pq.write_table(column.slice(0, 0), pa.BufferOutputStream())
    except pa.ArrowNotImplementedError:
        [field] = column.schema
        raise InvalidInput.of(field.name, f"holds {field.type}, which a Parquet file cannot hold") from None


def keys_of(labels: pa.Table, entity: str) -> Column:
    """An entity column as text; null is allowed and matches nothing."""
    if entity not in labels.column_names:
        raise InvalidInput.of(entity, "is the entity of a feature that was asked for, and missing among the columns")
    column: Any = labels.column(entity)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_key = pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_integer(column.type)
    if not is_key and not pa.types.is_null(column.type):
        raise InvalidInput.of(entity, f"must hold text or whole numbers, not {column.type}")
    return column.cast(pa.string())


def feature_columns(labels: pa.Table, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Result names of (set, feature): the feature's own where that is unambiguous, else `set__feature`."""
    features = [feature for _, feature in wanted]
    names = [
        f"{owner}__{feature}" if features.count(feature) > 1 or feature in labels.column_names else feature
        for owner, feature in wanted
    ]
    for name in names:
        if name in labels.column_names or names.count(name) > 1:
            raise InvalidInput.of(name, "stands among the label columns and is the name of a feature's column too")
    return names


def with_features(labels: pa.Table, names: Sequence[str], columns: Sequence[Column]) -> pa.Table:
    """The result: the labels as they came, then the features."""
    for name, column in zip(names, columns, strict=True):
        labels = labels.append_column(name, column)
    return labels

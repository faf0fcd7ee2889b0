"""Feature rows as Arrow tables: the form of segments, of uploads and of joins.

A stored table has the columns `entity`, `event_us`, `created_us`, `batch_id` and one `f<slot>` for each feature. Reading
with another schema than a table was written with is normal: a slot that it lacks is null.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mlops_platform.contracts.features import FeatureType
from mlops_platform.features.domain.rows import RowBatch, StampedBatch
from mlops_platform.features.domain.schema import FeatureSpec

Column = Any
"""A `pa.ChunkedArray`. Its type parameter is known at run time only."""

ARROW_TYPES: dict[FeatureType, Any] = {
    FeatureType.INT: pa.int64(),
    FeatureType.FLOAT: pa.float64(),
    FeatureType.STRING: pa.string(),
    FeatureType.BOOL: pa.bool_(),
    FeatureType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    FeatureType.FLOAT_LIST: pa.list_(pa.float64()),
}
"""What users send and get."""

# Times are stored as integers: no engine then has a say in time zones.
STORED_TYPES: dict[FeatureType, Any] = ARROW_TYPES | {FeatureType.TIMESTAMP: pa.int64()}
KEY_FIELDS: tuple[Any, ...] = (
    pa.field("entity", pa.string()),
    pa.field("event_us", pa.int64()),
    pa.field("created_us", pa.int64()),
    pa.field("batch_id", pa.string()),
)


def column_name(slot: int) -> str:
    """The stored name of a feature's column."""
    return f"f{slot}"


def stored_schema(features: Sequence[FeatureSpec]) -> pa.Schema:
    """The columns of a stored table."""
    return pa.schema([*KEY_FIELDS, *(pa.field(column_name(f.slot), STORED_TYPES[f.type]) for f in features)])


def to_table(stamped: StampedBatch, features: Sequence[FeatureSpec]) -> pa.Table:
    """A batch as a stored table; slots that are not among the features are left out."""
    batch, schema = stamped.batch, stored_schema(features)
    keys: tuple[Any, ...] = (batch.entities, batch.event_us, stamped.created_us, stamped.batch_ids)
    arrays: list[Any] = [pa.array(column, field.type) for column, field in zip(keys, KEY_FIELDS, strict=True)]
    for feature in features:
        column = batch.columns.get(feature.slot)
        kind = STORED_TYPES[feature.type]
        arrays.append(pa.nulls(len(batch), kind) if column is None else pa.array(column, kind))
    return pa.Table.from_arrays(arrays, schema=schema)


def to_batch(table: pa.Table, features: Sequence[FeatureSpec]) -> RowBatch:
    """A stored table as a batch of Python values."""
    columns = {feature.slot: table.column(column_name(feature.slot)).to_pylist() for feature in features}
    entities: Any = table.column("entity").to_pylist()
    event_us: Any = table.column("event_us").to_pylist()
    return RowBatch(entities, event_us, columns)


def to_stamped(table: pa.Table, features: Sequence[FeatureSpec]) -> StampedBatch:
    """A stored table with its stamps."""
    created: Any = table.column("created_us").to_pylist()
    batch_ids: Any = table.column("batch_id").to_pylist()
    return StampedBatch(to_batch(table, features), created, batch_ids)

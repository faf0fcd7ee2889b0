"""The point-in-time join on DuckDB. Blocking: runs in a thread, never on the event loop.

The plan rests on two facts. When the newest row is outside the TTL, so is every older one: the TTL is a mask after the
join. And *as known* is an as-of join too, on the later of event time and time of ingest, once rows that were already
superseded when they became known are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from mlops_platform.features.backends.columns import ARROW_TYPES, STORED_TYPES, Column, column_name, stored_schema
from mlops_platform.features.domain.joins import JoinRules
from mlops_platform.features.domain.schema import FeatureSpec

MEMORY_LIMIT = "512MiB"
SPILL_LIMIT = "16GiB"
THREADS = 2


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A Parquet file, and the stamp of all its rows where the file holds none of its own."""

    path: Path
    created_us: int | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The stored rows of one feature set: segment files and what is not in a file yet."""

    files: Sequence[SegmentFile]
    recent: pa.Table


@dataclass(frozen=True, slots=True)
class SetJoin:
    """One feature set's part of a training set."""

    source: Source
    features: Sequence[FeatureSpec]
    rules: JoinRules
    keys: Column


def point_in_time(moments_us: Column, joins: Sequence[SetJoin], work_folder: Path) -> list[list[Column]]:
    """For each set the columns of its features, label by label in the order given."""
    with connect(work_folder) as connection:
        return [_join_one(connection, moments_us, join) for join in joins]


def newest_rows(
    source: Source, features: Sequence[FeatureSpec], *, start_us: int, end_us: int, work_folder: Path
) -> pa.Table:
    """The winner of each entity among the rows whose event lies between the two moments, both included."""
    with connect(work_folder) as connection:
        _register(connection, source, features)
        newest: Any = connection.sql(
            f"SELECT {_columns(features)} FROM stored WHERE event_us BETWEEN {start_us:d} AND {end_us:d}"  # noqa: S608
            " QUALIFY row_number() OVER (PARTITION BY entity ORDER BY event_us DESC, created_us DESC, batch_id DESC) = 1"
            " ORDER BY entity"
        )
        table: pa.Table = newest.to_arrow_table()
        return table.cast(stored_schema(features))


def connect(work_folder: Path) -> Any:
    """A private, throw-away engine: bounded in memory, spilling into a folder of its own, and cut off from all else."""
    import duckdb  # noqa: PLC0415  # 12 MB, and most processes never join

    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": MEMORY_LIMIT,
            "max_temp_directory_size": SPILL_LIMIT,
            "temp_directory": str(work_folder),
            "threads": THREADS,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        },
    )
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _register(connection: Any, source: Source, features: Sequence[FeatureSpec]) -> None:
    schema = stored_schema(features)
    connection.register("recent", source.recent.select(schema.names))
    parts = [f"SELECT {_columns(features)} FROM recent"]  # noqa: S608  # column names are `f<slot>`
    if source.files:
        connection.register("files", _dataset(source.files, schema))
        parts.append(f"SELECT {_columns(features)} FROM files")  # noqa: S608
    connection.execute(f"CREATE TEMP VIEW stored AS {' UNION ALL '.join(parts)}")


def _dataset(files: Sequence[SegmentFile], schema: pa.Schema) -> Any:
    form, system = ds.ParquetFileFormat(), LocalFileSystem()
    fragments = []
    for file in files:
        # A column that a file lacks is filled from what is said to hold for the whole file.
        of_file = None
        if file.batch_id is not None:
            of_file = (ds.field("created_us") == file.created_us) & (ds.field("batch_id") == file.batch_id)
        fragments.append(form.make_fragment(str(file.path), system, partition_expression=of_file))
    return ds.FileSystemDataset(fragments, schema, form, system)


def _join_one(connection: Any, moments_us: Column, join: SetJoin) -> list[Column]:
    labels = pa.table({"place": pa.array(range(len(moments_us)), pa.int64()), "key": join.keys, "at_us": moments_us})
    connection.register("labels", labels)
    _register(connection, join.source, join.features)
    known_from = "greatest(event_us, created_us)" if join.rules.as_known else "event_us"
    connection.execute(
        f"CREATE TEMP TABLE seen AS SELECT {_columns(join.features)}, {known_from} AS k FROM stored"  # noqa: S608
        f" WHERE created_us <= {join.rules.known_until_us:d} AND event_us <= (SELECT max(at_us) FROM labels)"
        " AND entity IN (SELECT key FROM labels)"
    )
    names = ", ".join(f"seen.{column_name(feature.slot)}" for feature in join.features)
    # Narrow first: only keys and row numbers are sorted and joined; the values of the winners are fetched at the end.
    result = connection.sql(
        f"WITH kept AS ({_KEPT_AS_KNOWN if join.rules.as_known else _KEPT}),"  # noqa: S608
        " won AS (SELECT labels.place AS place, labels.at_us AS at_us, kept.row AS row, kept.event_us AS event_us"
        " FROM labels ASOF LEFT JOIN kept ON labels.key = kept.entity AND labels.at_us >= kept.k)"
        f" SELECT {names} FROM won LEFT JOIN seen ON seen.rowid = won.row AND {_alive(join.rules)} ORDER BY won.place"
    ).to_arrow_table()
    for statement in ("DROP TABLE seen", "DROP VIEW stored"):
        connection.execute(statement)
    for name in ("labels", "recent", "files"):
        connection.unregister(name)
    return [result.column(i).cast(STORED_TYPES[f.type]).cast(ARROW_TYPES[f.type]) for i, f in enumerate(join.features)]


# One row for each entity and event timestamp: the one that was ingested last.
_KEPT = (
    "SELECT entity, event_us, k, rowid AS row FROM seen"
    " QUALIFY row_number() OVER (PARTITION BY entity, event_us ORDER BY created_us DESC, batch_id DESC) = 1"
)
# `k` is when a row is both true and known. A row counts from k on, unless one of greater rank was known by then.
_KEPT_AS_KNOWN = (
    "SELECT entity, event_us, k, row FROM (SELECT entity, event_us, created_us, batch_id, k, rowid AS row,"
    " max((event_us, created_us, batch_id)) OVER (PARTITION BY entity ORDER BY k, event_us, created_us, batch_id"
    " ROWS UNBOUNDED PRECEDING) AS best,"
    " row_number() OVER (PARTITION BY entity, k ORDER BY event_us DESC, created_us DESC, batch_id DESC) AS nth"
    " FROM seen) WHERE nth = 1 AND (event_us, created_us, batch_id) = best"
)


def _columns(features: Sequence[FeatureSpec]) -> str:
    return ", ".join(["entity", "event_us", "created_us", "batch_id", *(column_name(f.slot) for f in features)])


def _alive(rules: JoinRules) -> str:
    return "true" if rules.ttl_us is None else f"won.event_us >= won.at_us - {rules.ttl_us:d}"

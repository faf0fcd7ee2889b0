"""DuckDB answers exactly what the reference implementation answers."""

import math
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.contracts.features import FeatureCreate, FeatureType
from mlops_platform.features.backends.columns import stored_schema, to_table
from mlops_platform.features.backends.joins import SegmentFile, SetJoin, Source, connect, newest_rows, point_in_time
from mlops_platform.features.domain import joins as reference
from mlops_platform.features.domain.joins import FeatureRow, JoinRules, Moment
from mlops_platform.features.domain.rows import RowBatch, StampedBatch
from mlops_platform.features.domain.schema import first_schema

FEATURES = first_schema(
    [FeatureCreate(name=kind.value, type=kind) for kind in (FeatureType.INT, FeatureType.FLOAT, FeatureType.STRING)]
).features
BATCHES = [f"{n:032x}" for n in (1, 2, 2**127, 2**128 - 1)]

times = st.integers(0, 30)
values = st.fixed_dictionaries(
    {
        0: st.none() | st.sampled_from([0, -(2**63), 2**63 - 1]),
        1: st.none() | st.sampled_from([0.0, -0.0, math.inf, -math.inf, 5e-324]),
        2: st.none() | st.sampled_from(["", "x", "\u00e9\U0001f600"]),
    }
)
stored_rows = st.builds(
    FeatureRow,
    entity=st.sampled_from(["a", "b", "A"]),
    event_us=times,
    created_us=times,
    batch_id=st.sampled_from(BATCHES),
    values=values,
)
# A store never holds two rows of equal entity and rank: a batch has no two rows of one identity.
row_sets = st.lists(stored_rows, max_size=25, unique_by=lambda row: (row.entity, row.rank))
moment_lists = st.lists(st.builds(Moment, st.sampled_from(["a", "b", "c", None]), times), min_size=1, max_size=15)
rule_sets = st.builds(JoinRules, known_until_us=times, ttl_us=st.none() | st.integers(0, 12), as_known=st.booleans())


def table_of(rows: list[FeatureRow], features=FEATURES) -> pa.Table:
    batch = RowBatch(
        [row.entity for row in rows],
        [row.event_us for row in rows],
        {feature.slot: [row.values[feature.slot] for row in rows] for feature in features},
    )
    return to_table(StampedBatch(batch, [r.created_us for r in rows], [r.batch_id for r in rows]), features)


def joined(moments: list[Moment], source: Source, rules: JoinRules, folder: Path) -> list[tuple[Any, ...]]:
    keys = pa.chunked_array([pa.array([moment.entity for moment in moments], pa.string())])
    at_us = pa.chunked_array([pa.array([moment.at_us for moment in moments], pa.int64())])
    [columns] = point_in_time(at_us, [SetJoin(source, FEATURES, rules, keys)], folder)
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def expected(moments: list[Moment], rows: list[FeatureRow], rules: JoinRules) -> list[tuple[Any, ...]]:
    winners = reference.point_in_time(moments, rows, rules)
    return [tuple(None if row is None else row.values[slot] for slot in (0, 1, 2)) for row in winners]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("joins")


@settings(max_examples=150, deadline=None)
@given(rows=row_sets, moments=moment_lists, rules=rule_sets, in_file=st.integers(0, 25))
def test_duckdb_agrees_with_the_reference_whatever_the_rows(folder, rows, moments, rules, in_file):
    pq.write_table(table_of(rows[:in_file]), folder / "segment.parquet")
    source = Source([SegmentFile(folder / "segment.parquet")], table_of(rows[in_file:]))
    assert joined(moments, source, rules, folder) == expected(moments, rows, rules)


@settings(max_examples=40, deadline=None)
@given(rows=row_sets, start=times, end=times)
def test_the_newest_rows_of_a_window_are_the_winners_at_its_end(folder, rows, start, end):
    found = newest_rows(Source([], table_of(rows)), FEATURES, start_us=start, end_us=end, work_folder=folder)
    inside = [row for row in rows if start <= row.event_us <= end]
    best = {row.entity: max((r for r in inside if r.entity == row.entity), key=lambda r: r.rank) for row in inside}
    assert found.select(["entity", "event_us", "created_us", "batch_id"]).to_pylist() == [
        {"entity": key, "event_us": row.event_us, "created_us": row.created_us, "batch_id": row.batch_id}
        for key, row in sorted(best.items())
    ]


def test_a_segment_of_an_older_schema_lacks_new_features_which_read_null(folder):
    old = FEATURES[:1]
    rows = [FeatureRow("a", 1, 1, BATCHES[0], {0: 7})]
    pq.write_table(table_of(rows, old), folder / "old.parquet")
    source = Source([SegmentFile(folder / "old.parquet")], stored_schema(FEATURES).empty_table())
    assert joined([Moment("a", 2)], source, JoinRules(5), folder) == [(7, None, None)]


def test_a_segment_of_one_ingest_takes_its_stamp_from_the_manifest(folder):
    rows = [FeatureRow("a", 1, 0, BATCHES[0], {0: 7, 1: None, 2: None})]
    pq.write_table(table_of(rows).drop_columns(["created_us", "batch_id"]), folder / "bare.parquet")
    empty = stored_schema(FEATURES).empty_table()
    source = Source([SegmentFile(folder / "bare.parquet", created_us=4, batch_id=BATCHES[1])], empty)
    assert joined([Moment("a", 9)], source, JoinRules(known_until_us=3), folder) == [(None, None, None)]
    assert joined([Moment("a", 9)], source, JoinRules(known_until_us=4), folder) == [(7, None, None)]


def test_rows_that_were_sent_twice_count_once(folder):
    rows = [FeatureRow("a", 1, 1, BATCHES[0], {0: 7, 1: math.nan, 2: "x"})]
    pq.write_table(table_of(rows), folder / "twice.parquet")
    source = Source([SegmentFile(folder / "twice.parquet")], table_of(rows))
    [(number, real, text)] = joined([Moment("a", 2)], source, JoinRules(5), folder)
    assert (number, text) == (7, "x")
    assert math.isnan(real)


def test_the_engine_cannot_read_files_outside_its_own_folder(folder, tmp_path):
    (tmp_path / "secret.csv").write_text("x\n1\n")
    with connect(folder) as connection, pytest.raises(duckdb.PermissionException):
        connection.execute(f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')")  # noqa: S608  # a path of ours

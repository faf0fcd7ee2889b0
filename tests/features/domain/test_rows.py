"""Rows are read strictly: the wrong one is named by row and field, and floats keep every value they can have."""

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.contracts.features import FeatureCreate, FeatureType
from mlops_platform.core.errors import InvalidInput, MalformedRequest
from mlops_platform.features.domain.rows import (
    MAX_AHEAD_SECONDS,
    RowBatch,
    StampedBatch,
    check_times,
    concat,
    dedupe,
    newest,
    pack,
    pack_stamped,
    read_json_rows,
    stamp,
    unpack,
)
from mlops_platform.features.domain.schema import FeatureView, first_schema

VIEW = FeatureView(
    "0" * 32,
    "1" * 32,
    "users",
    "user_id",
    None,
    True,
    first_schema([FeatureCreate(name=kind.value, type=kind) for kind in FeatureType]),
)
SLOT = {feature.name: feature.slot for feature in VIEW.schema.features}
GOOD = {"user_id": "u1", "event_timestamp": "2026-01-31T09:00:00Z"}


def read(*rows: object) -> RowBatch:
    return read_json_rows(msgspec.json.encode({"rows": rows}), VIEW)


def test_every_type_is_read_as_what_it_is():
    batch = read(
        GOOD
        | {
            "int": -(2**63),
            "float": 1,
            "string": "é",
            "bool": False,
            "timestamp": "1969-12-31T23:59:59.999999Z",
            "float_list": [1, "NaN"],
        }
    )
    held = {name: batch.columns[slot][0] for name, slot in SLOT.items()}
    assert {name: held[name] for name in ("int", "float", "string", "bool", "timestamp")} == {
        "int": -(2**63),
        "float": 1.0,
        "string": "é",
        "bool": False,
        "timestamp": -1,
    }
    assert held["float_list"][0] == 1.0
    assert math.isnan(held["float_list"][1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("int", 1.5),
        ("int", True),
        ("int", "1"),
        ("int", 2**63),
        ("int", -(2**63) - 1),
        ("int", [1]),
        ("float", "fast"),
        ("float", True),
        ("float", {}),
        ("string", 5),
        ("string", "a\x00b"),
        ("string", "x" * 65_537),
        ("bool", 1),
        ("bool", "true"),
        ("timestamp", 0),
        ("timestamp", "2026-01-31"),
        ("timestamp", "2026-01-31T09:00:00"),
        ("float_list", 1.0),
        ("user_id", ""),
        ("user_id", "a\nb"),
        ("user_id", "a\n"),
        ("user_id", None),
        ("user_id", "x" * 513),
        ("user_id", 1.5),
        ("event_timestamp", None),
        ("event_timestamp", 1769850000),
        ("event_timestamp", "0001-01-01T00:00:00+01:00"),
        ("height", 1),
    ],
)
def test_a_wrong_value_is_named_by_row_and_field(field, value):
    with pytest.raises(InvalidInput) as refused:
        read(GOOD, GOOD | {field: value})
    assert refused.value.errors[0].field == f"rows[1].{field}"


@pytest.mark.parametrize("field", ["user_id", "event_timestamp"])
def test_a_missing_key_is_named(field):
    with pytest.raises(InvalidInput) as refused:
        read({name: value for name, value in GOOD.items() if name != field})
    assert refused.value.errors[0].field == f"rows[0].{field}"


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b'{"rows":[{"float":NaN}]}', b'{"rows":[{"user_id":"\\ud800"}]}'])
def test_bytes_that_are_not_json_are_malformed(body):
    with pytest.raises(MalformedRequest):
        read_json_rows(body, VIEW)


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"rows":[]}', b'{"rows":{}}', b'{"rows":[1]}', b'{"rows":[],"x":1}', b"[" * 9999]
)
def test_json_of_another_shape_is_invalid(body):
    with pytest.raises((InvalidInput, MalformedRequest)):
        read_json_rows(body, VIEW)


def test_a_number_that_no_double_holds_is_refused_and_not_made_infinite():
    with pytest.raises((InvalidInput, MalformedRequest)):
        read_json_rows(b'{"rows":[{"user_id":"u","event_timestamp":"2026-01-31T09:00:00Z","float":1e999}]}', VIEW)


def test_whole_number_entities_are_their_decimal_text():
    assert read(GOOD | {"user_id": 42}).entities == ["42"]


def test_a_feature_left_out_is_null():
    assert read(GOOD).columns == {slot: [None] for slot in SLOT.values()}


def test_of_rows_with_one_identity_the_last_stays():
    batch = read(GOOD | {"int": 1}, GOOD | {"user_id": "u2"}, GOOD | {"int": 2})
    assert batch.entities == ["u1", "u2"]
    assert batch.columns[SLOT["int"]] == [2, None]


def test_newest_keeps_one_row_for_each_entity():
    batch = newest(RowBatch(["a", "b", "a", "a"], [5, 1, 9, 7], {0: [1, 2, 3, 4]}))
    assert (batch.entities, batch.event_us, batch.columns) == (["a", "b"], [9, 1], {0: [3, 2]})


def test_a_row_from_the_future_is_refused_by_its_number():
    with pytest.raises(InvalidInput) as refused:
        check_times([0, MAX_AHEAD_SECONDS * 1_000_000 + 1], 0)
    assert refused.value.errors[0].field == "rows[1].event_timestamp"


@given(st.lists(st.none() | st.floats(), min_size=1, max_size=20))
def test_floats_come_back_bit_for_bit(values):
    packed = pack(RowBatch(["e"] * len(values), list(range(len(values))), {3: values}))
    batch = unpack(packed, created_us=1, batch_id="a").batch
    assert [_bits(value) for value in batch.columns[3]] == [_bits(value) for value in values]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1))
def test_deduping_keeps_each_identity_once_with_its_last_row(identities):
    batch = dedupe(RowBatch([e for e, _ in identities], [t for _, t in identities], {0: list(range(len(identities)))}))
    kept = dict(zip(zip(batch.entities, batch.event_us, strict=True), batch.columns[0], strict=True))
    assert kept == {identity: i for i, identity in enumerate(identities)}


def test_merged_batches_keep_each_rows_own_stamp_and_lack_nothing():
    one = stamp(RowBatch(["a"], [1], {0: [1]}), created_us=10, batch_id="x")
    two = stamp(RowBatch(["b", "c"], [2, 3], {1: ["p", "q"]}), created_us=20, batch_id="y")
    merged = unpack(pack_stamped(concat([one, two])), created_us=99, batch_id="z")
    assert merged == StampedBatch(
        RowBatch(["a", "b", "c"], [1, 2, 3], {0: [1, None, None], 1: [None, "p", "q"]}), [10, 20, 20], ["x", "y", "y"]
    )


def _bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack(">d", value)

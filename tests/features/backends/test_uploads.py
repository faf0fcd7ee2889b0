"""Arrow and Parquet uploads are read within limits and refused by column and row."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from mlops_platform.contracts.features import FeatureCreate, FeatureType
from mlops_platform.core.errors import ContentTooLarge, InvalidInput, MalformedRequest
from mlops_platform.features.backends import uploads
from mlops_platform.features.backends.uploads import UploadFormat, conform_upload, newest_of, read_table, unpacked_size
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
AT = pa.array([datetime(2026, 1, 31, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))


def upload(**columns: object) -> pa.Table:
    return conform_upload(pa.table({"user_id": ["u"], "event_timestamp": AT} | columns), VIEW)


def write(table: pa.Table, path: Path, form: UploadFormat) -> Path:
    if form is UploadFormat.PARQUET:
        pq.write_table(table, path)
    else:
        with path.open("wb") as sink, ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("form", list(UploadFormat))
class TestReading:
    def test_a_table_comes_back_as_it_was_sent(self, tmp_path, form):
        table = pa.table({"a": [1, 2, None], "b": ["x", "", None]})
        assert read_table(write(table, tmp_path / "t", form), form).equals(table)

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff\xff\xff\xff\x10\x00\x00\x00junk", b"{}" * 500])
    def test_bytes_that_are_something_else_are_malformed(self, tmp_path, form, content):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(MalformedRequest):
            read_table(tmp_path / "t", form)

    def test_a_file_cut_short_is_never_half_read(self, tmp_path, form):
        path = write(pa.table({"a": list(range(1000))}), tmp_path / "t", form)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(MalformedRequest):
            read_table(path, form)

    def test_a_small_file_of_too_many_rows_is_refused(self, tmp_path, form, monkeypatch):
        monkeypatch.setattr(uploads, "MAX_UPLOAD_ROWS", 99)
        with pytest.raises(ContentTooLarge):
            read_table(write(pa.table({"a": [0] * 100}), tmp_path / "t", form), form)

    def test_a_file_that_unpacks_to_too_much_is_refused(self, tmp_path, form, monkeypatch):
        monkeypatch.setattr(uploads, "MAX_UNPACKED_BYTES", 500)
        with pytest.raises(ContentTooLarge):
            read_table(write(pa.table({"a": [0] * 1000}), tmp_path / "t", form), form)

    @pytest.mark.parametrize("is_list", [False, True])
    def test_one_long_text_named_a_million_times_is_refused(self, tmp_path, form, is_list):
        names = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 60_000]))
        column = pa.ListArray.from_arrays(pa.array(range(0, 1_000_001, 1000), pa.int32()), names) if is_list else names
        path = write(pa.table({"a": column}), tmp_path / "t", form)
        before = pa.total_allocated_bytes()
        with pytest.raises(ContentTooLarge):
            read_table(path, form)
        assert pa.total_allocated_bytes() - before < 100_000_000

    @pytest.mark.parametrize(
        "column",
        [
            pa.array(["x", None, "y"], pa.string_view()),
            pa.array(["x", None, "y"], pa.large_string()),
            pa.array(["x", None, "y"]).dictionary_encode(),
            pa.array([b"x", None, b"y"]),
            pa.array([["x"], None, ["y", None]]),
            pa.array([{"a": "x", "b": 1}, None, {"a": None, "b": 2}]),
            pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
            pa.array([[1.0], None, [2.0, 3.0]]),
        ],
        ids=lambda column: str(column.type),
    )
    def test_columns_of_any_type_come_back_as_they_were_sent(self, tmp_path, form, column):
        table = pa.table({"a": column})
        assert read_table(write(table, tmp_path / "t", form), form).equals(table)

    def test_no_rows_at_all_is_refused(self, tmp_path, form):
        with pytest.raises(InvalidInput):
            read_table(write(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t", form), form)


class TestConforming:
    @pytest.mark.parametrize(
        ("name", "column", "stored"),
        [
            ("int", pa.array([7], pa.uint8()), 7),
            ("float", pa.array([7], pa.int32()), 7.0),
            ("float", pa.array([0.5], pa.float32()), 0.5),
            ("string", pa.array(["x"]).dictionary_encode(), "x"),
            ("string", pa.array(["x"], pa.large_string()), "x"),
            ("bool", pa.array([True]), True),
            ("timestamp", pa.array([1], pa.timestamp("s")), 1_000_000),
            ("float_list", pa.array([[1, 2]], pa.list_(pa.int8())), [1.0, 2.0]),
            ("int", pa.nulls(1), None),
        ],
    )
    def test_columns_of_a_fitting_type_are_taken(self, name, column, stored):
        slot = VIEW.schema.by_name()[name].slot
        assert upload(**{name: column}).column(f"f{slot}").to_pylist() == [stored]

    @pytest.mark.parametrize(
        ("name", "column"),
        [
            ("int", pa.array([1.0])),
            ("int", pa.array([2**63], pa.uint64())),
            ("float", pa.array(["1"])),
            ("string", pa.array([1])),
            ("string", pa.array(["a\0b"])),
            ("bool", pa.array([1])),
            ("timestamp", pa.array([1])),
            ("timestamp", pa.array([2**62], pa.timestamp("s"))),
            ("timestamp", pa.array([2**62], pa.timestamp("us"))),
            ("float_list", pa.array([[None, 1.0]])),
            ("user_id", pa.array([None], pa.string())),
            ("user_id", pa.array([""])),
            ("user_id", pa.array(["a\tb"])),
            ("user_id", pa.array([1.5])),
            ("event_timestamp", pa.array([1])),
            ("event_timestamp", pa.array([None], pa.timestamp("us"))),
            ("height", pa.array([1])),
        ],
    )
    def test_anything_else_is_refused_by_its_name(self, name, column):
        with pytest.raises(InvalidInput) as refused:
            upload(**{name: column})
        assert refused.value.errors[0].field.split(".")[-1] == name

    @pytest.mark.parametrize("name", ["user_id", "event_timestamp"])
    def test_a_missing_key_column_is_named(self, name):
        table = pa.table({"user_id": ["u"], "event_timestamp": AT}).drop_columns([name])
        with pytest.raises(InvalidInput, match=name):
            conform_upload(table, VIEW)

    def test_nanoseconds_are_cut_and_never_rounded_into_the_future(self):
        table = upload(event_timestamp=pa.array([1_999, -1][:1], pa.timestamp("ns")))
        assert table.column("event_us").to_pylist() == [1]
        assert upload(event_timestamp=pa.array([-1], pa.timestamp("ns"))).column("event_us").to_pylist() == [-1]

    def test_whole_number_entities_are_their_decimal_text(self):
        assert upload(user_id=pa.array([42])).column("entity").to_pylist() == ["42"]

    def test_a_zone_other_than_utc_means_the_same_moment(self):
        moment = pa.array([0], pa.timestamp("us", tz="Asia/Tokyo"))
        assert upload(event_timestamp=moment).column("event_us").to_pylist() == [0]

    def test_of_rows_with_one_identity_the_last_stays(self):
        table = pa.table(
            {"user_id": ["a", "b", "a"], "event_timestamp": pa.array([1, 1, 1], pa.timestamp("us")), "int": [1, 2, 3]}
        )
        assert conform_upload(table, VIEW).select(["entity", "f0"]).to_pylist() == [
            {"entity": "b", "f0": 2},
            {"entity": "a", "f0": 3},
        ]


def test_numbers_in_lists_that_repeat_to_nothing_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UNPACKED_BYTES", 1_000_000)
    path = write(pa.table({"a": [[0.0] * 1000] * 1000}), tmp_path / "t", UploadFormat.PARQUET)
    monkeypatch.setattr(uploads, "_within_limits", list)
    with pytest.raises(ContentTooLarge):
        read_table(path, UploadFormat.PARQUET)


def test_views_of_one_long_text_count_as_often_as_they_name_it():
    views = pa.array(["x" * 1000, None, "y"], pa.string_view())
    assert unpacked_size(views) == 1001
    assert unpacked_size(views.slice(1)) == 1


def test_newest_of_keeps_one_row_for_each_entity():
    table = pa.table({"entity": ["a", "b", "a", "a"], "event_us": [5, 1, 9, 7], "f0": [1, 2, 3, 4]})
    assert sorted(newest_of(table).to_pylist(), key=lambda r: r["entity"]) == [
        {"entity": "a", "event_us": 9, "f0": 3},
        {"entity": "b", "event_us": 1, "f0": 2},
    ]

"""What is told of data: two sets that differ have two digests, and whatever holds rows can be told."""

import numpy as np
import pyarrow as pa
import pytest

from mlops_platform.sdk.datasets import HASHED_ROWS, describe, kind_of, told

X = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (X, X + 1),
        (X, X.reshape(3, 4)),
        (X, X.astype("float32")),
        (pa.table({"a": [1, 2]}), pa.table({"b": [1, 2]})),
        (pa.table({"a": [1, 2]}), pa.table({"a": [1, 3]})),
        ([{"a": 1}], [{"a": 2}]),
        (X, np.zeros((0, 3))),
    ],
)
def test_other_data_has_another_digest(one, other):
    assert describe(one)["digest"] == describe(one)["digest"]
    assert describe(one)["digest"] != describe(other)["digest"]


def test_other_targets_and_other_names_make_another_digest():
    digests = {describe(X)["digest"], describe(X, X[:, 0])["digest"], describe(X, schema={"inputs": []})["digest"]}
    assert len(digests) == 3


def test_of_many_rows_the_number_and_the_evenly_spread_ones_count():
    many = np.arange(HASHED_ROWS * 2)
    changed = many.copy()
    changed[1] = 0  # not one of the spread
    assert describe(changed)["digest"] == describe(many)["digest"]
    changed[-2] = 0
    assert describe(changed)["digest"] != describe(many)["digest"]
    assert describe(many[:-1])["digest"] != describe(many)["digest"]
    assert describe(many)["rows"] == HASHED_ROWS * 2


def test_a_folder_is_told_by_its_files_and_their_names(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"1")
    first = told(tmp_path)["digest"]
    assert told(tmp_path)["digest"] == first
    (tmp_path / "deep" / "a").rename(tmp_path / "deep" / "b")
    assert told(tmp_path)["digest"] != first


def test_a_file_that_is_absent_is_an_error_where_it_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        told(tmp_path / "absent.csv")


def test_very_many_columns_are_counted_and_not_named():
    wide = pa.table({f"a column with a long name {number:06}": [0] for number in range(20_000)})
    body = told(wide)
    assert "columns" not in body
    assert body["profile"] == '{"rows":1,"columns":20000}'


@pytest.mark.parametrize(
    ("source", "kind"),
    [("s3://b/k", "s3"), ("https://h/f", "https"), ("/data/x.csv", "local"), ("C:\\data\\x.csv", "local"), ("x", "local")],
)
def test_a_source_is_of_the_kind_that_its_address_says(source, kind):
    assert told(digest="1", source=source)["source_type"] == kind == kind_of(source)

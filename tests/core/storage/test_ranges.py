import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.core.errors import RangeNotSatisfiable
from mlops_platform.core.storage.ranges import parse_range


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-19", 10, 20),
        ("bytes=10-", 10, 100),
        ("bytes=-10", 90, 100),
        ("bytes=-1000", 0, 100),
        ("bytes=90-1000", 90, 100),
        ("Bytes=0-1", 0, 2),
        ("bytes= 5-6 ", 5, 7),
        ("bytes=0-18446744073709551615", 0, 100),
    ],
)
def test_one_range_is_cut_to_the_content(header, start, end):
    found = parse_range(header, 100)
    assert found is not None
    assert (found.start, found.end) == (start, end)
    assert found.content_range == f"bytes {start}-{end - 1}/100"


@pytest.mark.parametrize(
    "header",
    [
        None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "bytes=--5", "bytes=1-2-3", "bytes=0x1-2",
        "bytes=+1-2", "bytes=0-1\n", "bytes=0-1\x00",
        "bytes=0-1,5-6", "bytes=0-1,", "items=0-1", "bytes 0-1", "bytes=1.0-2", "bytes=\u0661-\u0662",
        "bytes=" + "1" * 100 + "-", "bytes=" + "0-1," * 100_000,
    ],
)  # fmt: skip
def test_anything_else_is_ignored(header):
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_without_a_byte_is_not_satisfiable_and_the_size_is_told(header, size):
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, size)
    assert caught.value.headers["Content-Range"] == f"bytes */{size}"


@given(header=st.one_of(st.text(max_size=80), st.from_regex(r"bytes=\d{0,25}-\d{0,25}")), size=st.integers(0, 2**63))
@settings(deadline=None)
def test_whatever_is_sent_the_range_lies_within_the_content(header, size):
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found.start < found.end <= size

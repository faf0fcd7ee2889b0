"""The plan of an upload; its account is tried through Experiment Tracking, over a real database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.core.errors import ContentTooLarge, InvalidInput
from mlops_platform.core.storage.uploads import LEAST_PART_BYTES, MAX_PARTS, MOST_PART_BYTES, UploadPlan, exactly


def plan(size, part_bytes=None, max_bytes=2**50):
    return UploadPlan.of_content(
        "run/1/a", sha256="0" * 64, size=size, part_bytes=part_bytes, content_type="a/b", max_bytes=max_bytes
    )


@given(st.integers(0, 2**43), st.none() | st.integers(LEAST_PART_BYTES, MOST_PART_BYTES))
def test_the_parts_are_the_whole_and_only_the_last_is_shorter(size, part_bytes):
    try:
        made = plan(size, part_bytes)
    except InvalidInput:
        assert part_bytes is not None
        assert size > part_bytes * MAX_PARTS
        return
    assert 1 <= made.parts <= MAX_PARTS
    assert made.part_bytes is not None
    last = made.part_size(made.parts)
    assert last is not None
    assert (made.parts - 1) * made.part_bytes + last == size
    assert last <= made.part_bytes
    assert (last > 0) == (size > 0)
    assert made.parts == 1 or made.part_size(1) == made.part_bytes


def test_what_is_larger_than_an_upload_may_be_has_no_plan():
    with pytest.raises(ContentTooLarge):
        plan(11, max_bytes=10)


def test_a_protocol_that_promises_nothing_has_parts_of_any_size():
    assert UploadPlan("1/run/artifacts/a", 3).part_size(2) is None


@pytest.mark.parametrize("sent", [[], [b"ab"], [b"abc", b"d"], [b"abcd"], [b"", b"ab"]])
async def test_other_than_exactly_so_many_bytes_are_refused(sent):
    async def chunks():
        for chunk in sent:
            yield chunk

    with pytest.raises(InvalidInput, match="3 bytes"):
        async for _ in exactly(chunks(), 3):
            pass

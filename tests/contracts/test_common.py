"""What every wire type refuses and keeps."""

from datetime import UTC, datetime

import pytest
from pydantic import Field, ValidationError

from mlops_platform.contracts.common import Contract, Timestamp
from mlops_platform.core.db.schema import read_json


class Sample(Contract):
    count: int = 0
    share: float | None = None
    steps: list[int] = Field(default_factory=list)
    is_on: bool = False
    at: Timestamp | None = None


@pytest.mark.parametrize("body", [{"count": True}, {"share": False}, {"steps": [1, True]}])
def test_a_truth_is_no_number(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="must be a number, not true or false"):
        Sample.model_validate(body)


def test_a_truth_is_a_truth_and_digits_of_a_query_are_a_number() -> None:
    assert Sample.model_validate({"is_on": True, "count": "12", "share": "0.5"}) == Sample(is_on=True, count=12, share=0.5)


def test_a_long_list_is_given_up_at_its_first_wrong_item() -> None:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate({"steps": ["x"] * 10_000})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-00:01"])
def test_a_time_that_utc_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="years 1 to 9999"):
        Sample.model_validate({"at": text})


def test_a_year_is_written_with_four_digits() -> None:
    written = Sample(at=datetime(206, 3, 4, 5, 6, 7, 8, UTC)).model_dump(mode="json")["at"]
    assert written == "0206-03-04T05:06:07.000008Z"


@pytest.mark.parametrize(
    ("stored", "value"),
    [("100000000000000000000", 1e20), ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63))],
)
def test_what_the_database_writes_as_a_huge_integer_comes_back_as_the_float_it_was(stored: str, value: float) -> None:
    read = read_json(stored)
    assert read == value
    assert type(read) is type(value)

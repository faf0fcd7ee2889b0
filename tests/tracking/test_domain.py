"""The rules of Experiment Tracking, without any I/O."""

import doctest
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.core.errors import InvalidInput, PlatformError
from mlops_platform.core.query import errors as query_errors
from mlops_platform.tracking.domain import artifacts, ids, params, points, runs, search

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("module", [artifacts, ids, params, runs, search, query_errors])
def test_the_examples_in_the_code_are_true(module):
    assert doctest.testmod(module).failed == 0


class TestParams:
    @given(JSON)
    def test_every_value_comes_back_as_it_was(self, value):
        kept = params.to_param("key", value)
        assert kept.value == value
        assert type(kept.value) is type(value)
        assert kept.equals(params.to_param("key", value))

    @given(JSON, JSON)
    def test_two_values_are_the_same_only_if_they_are_equal(self, one, two):
        if params.to_param("key", one).equals(params.to_param("key", two)):
            assert one == two

    def test_large_integers_are_told_apart_though_no_float_can(self):
        assert not params.to_param("k", 2**53).equals(params.to_param("k", 2**53 + 1))


class TestRunLife:
    @pytest.mark.parametrize("before", list(RunStatus))
    @pytest.mark.parametrize("after", list(RunStatus))
    def test_a_run_has_an_end_exactly_when_its_status_is_final(self, before, after):
        life = runs.born(before, start_time=None, now=NOW)
        try:
            life = runs.changed(life, now=NOW + timedelta(hours=1), status=after)
        except PlatformError:
            assert after is RunStatus.SCHEDULED
        assert (life.end_time is not None) == (life.status in runs.FINAL)
        assert (life.start_time is not None) or life.status is RunStatus.SCHEDULED

    def test_a_clock_that_runs_behind_makes_no_negative_duration(self):
        life = runs.born(RunStatus.RUNNING, start_time=NOW + timedelta(hours=1), now=NOW)
        life = runs.changed(life, now=NOW, status=RunStatus.FINISHED)
        assert life.end_time == life.start_time


class TestPoints:
    @given(st.dictionaries(st.text(max_size=8), JSON | st.just("NaN"), max_size=4), st.booleans())
    def test_any_body_is_read_in_full_or_refused_with_a_field(self, body, is_batch):
        try:
            read = points.read_points([body, body] if is_batch else body, now=NOW)
        except InvalidInput as error:
            read, refused = None, error.errors
        if read is None:
            assert refused
        else:
            keys = [key for key in body if key not in {"step", "timestamp"}] * (2 if is_batch else 1)
            assert read.keys == keys
            assert len({len(read.keys), len(read.steps), len(read.timestamps), len(read.values), len(read.arrived)}) == 1

    @given(st.floats(allow_nan=True))
    def test_every_float_survives_the_wire(self, value):
        wire = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN" if math.isnan(value) else value)
        read = points.read_points(json.loads(json.dumps({"x": wire})), now=NOW).values[0]
        assert read == value or (math.isnan(read) and math.isnan(value))

    def test_milliseconds_and_rfc_3339_say_the_same(self):
        milliseconds = int(NOW.timestamp() * 1000) + 7
        assert points.read_timestamp(milliseconds) == points.read_timestamp("2026-01-31T10:00:00.007+01:00")


class TestPaths:
    @given(st.text(max_size=30))
    def test_a_path_that_is_accepted_stays_below_where_it_begins(self, path):
        try:
            checked = artifacts.checked_path(path)
        except InvalidInput:
            return
        assert checked == path
        assert not checked.startswith("/")
        assert not {"", ".", ".."} & set(checked.split("/"))
        assert "\\" not in checked

    @pytest.mark.parametrize("given_type", [None, "", "text", "text/html\r\nX: y", "a/b" * 100, "text/ html", "tëxt/html"])
    def test_what_is_no_content_type_becomes_bytes(self, given_type):
        assert artifacts.media_type(given_type) == "application/octet-stream"

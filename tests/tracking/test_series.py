"""Series for charts: what is left of a long one, and what must never be lost."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.tracking.domain.series import Columns, buckets, largest_triangles
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"
DAY = 1_769_850_000_000


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def series(caller, **body):
    response = await caller.http.post("/api/series", json=body)
    assert response.status_code == 200, response.text
    return response.json()["items"]


async def one(caller, run_id, **body):
    items = await series(caller, runs=[run_id], keys=["loss"], **body)
    assert len(items) == 1
    return items[0]


async def a_long_run(caller, values, *, first=0, stride=1, timed=False):
    run_id = await a_run(caller, await an_experiment(caller, str(random.random())))
    for start in range(0, len(values), 5000):
        body = [
            {"loss": value, "step": 0 if timed else first + stride * (start + n), "timestamp": DAY + 1000 * (start + n)}
            for n, value in enumerate(values[start : start + 5000])
        ]
        await log(caller, run_id, body)
    return run_id


def floats(values):
    return [float(value) for value in values]


class TestExact:
    async def test_a_short_series_is_answered_whole(self, ada):
        run_id = await a_run(
            ada, metrics=[{"loss": value, "step": step} for step, value in enumerate([3, "NaN", "-Infinity", 1])]
        )
        found = await one(ada, run_id)
        assert (found["x"], found["y"]) == ([0, 1, 2, 3], [3.0, "NaN", "-Infinity", 1.0])
        assert (found["points"], found["is_reduced"], found["context"]) == (4, False, {})

    async def test_several_metrics_of_several_runs_come_in_the_order_of_the_request(self, ada):
        experiment = await an_experiment(ada)
        body = [{"b": 1, "a": 2, "step": 1}, {"a": 3, "step": 1, "context": {"split": "val"}}]
        runs = [await a_run(ada, experiment, body) for _ in range(3)][::-1]
        found = await series(ada, runs=[*runs, "0" * 32], keys=["b", "a{split=val}", "none", "a"])
        assert [(each["run_id"], each["key"], each["context"]) for each in found] == [
            (run_id, key, context) for run_id in runs for key, context in (("b", {}), ("a", {"split": "val"}), ("a", {}))
        ]

    async def test_x_may_be_the_time_or_the_time_since_the_first_point(self, ada):
        body = [{"loss": 1, "step": 9, "timestamp": DAY}, {"loss": 2, "step": 3, "timestamp": DAY + 1500}]
        run_id = await a_run(ada, metrics=[*body, {"other": 1, "timestamp": DAY - 500}])
        assert (await one(ada, run_id))["x"] == [3, 9]
        assert (await one(ada, run_id, x="time"))["x"] == [DAY, DAY + 1500]
        found = await series(ada, runs=[run_id], keys=["loss", "other"], x="relative_time")
        assert [each["x"] for each in found] == [[500, 2000], [0]]


class TestReduced:
    @pytest.mark.parametrize("method", ["minmax", "lttb"])
    @pytest.mark.parametrize("x", ["step", "time"])
    async def test_points_are_real_in_order_few_and_hold_the_extremes_and_the_ends(self, ada, method, x):
        chance = random.Random(3)
        values = [math.sin(n / 300) + chance.random() / 5 for n in range(9000)]
        values[4321], values[7777] = 50.0, -50.0
        run_id = await a_long_run(ada, values)
        found = await one(ada, run_id, max_points=100, method=method, x=x)
        places = [value if x == "step" else (value - DAY) // 1000 for value in found["x"]]
        assert 60 <= len(places) <= 100
        assert places == sorted(set(places))
        assert (places[0], places[-1]) == (0, 8999)
        assert [values[place] for place in places] == found["y"]
        assert (max(found["y"]), min(found["y"])) == (50.0, -50.0)
        assert (found["points"], found["is_reduced"]) == (9000, True)

    async def test_each_part_keeps_its_least_and_greatest_value(self, ada):
        chance = random.Random(5)
        values = [chance.random() for _ in range(6000)]
        run_id = await a_long_run(ada, values, first=-700, stride=3)
        found = await one(ada, run_id, max_points=64)
        shown = dict(zip(found["x"], found["y"], strict=True))
        parts = buckets(64, has_nan=False)
        width = (3 * 5999) / parts
        for part in range(parts):
            inside = [value for n, value in enumerate(values) if part * width <= 3 * n < (part + 1) * width]
            kept = {y for place, y in shown.items() if part * width <= place + 700 < (part + 1) * width}
            assert {min(inside), max(inside)} <= kept

    @pytest.mark.parametrize("method", ["minmax", "lttb"])
    async def test_nan_and_infinities_stay_visible(self, ada, method):
        values: list[float | str] = [1.0] * 4000
        values[1000:1010] = ["NaN"] * 10
        values[2000], values[3000] = "Infinity", "-Infinity"
        found = await one(ada, await a_long_run(ada, values), max_points=50, method=method)
        at = dict(zip(found["x"], found["y"], strict=True))
        assert (at[2000], at[3000]) == ("Infinity", "-Infinity")
        assert "NaN" in [at.get(step) for step in range(1000, 1010)]
        assert len(at) <= 50

    async def test_a_series_of_nan_alone_is_shown(self, ada):
        found = await one(ada, await a_long_run(ada, ["NaN"] * 500), max_points=20)
        assert set(found["y"]) == {"NaN"}
        assert (found["x"][0], found["x"][-1]) == (0, 499)

    @pytest.mark.parametrize(("x", "least"), [("step", 2), ("time", 60)])
    async def test_points_without_steps_are_drawn_over_time(self, ada, x, least):
        values = [float(n % 97) for n in range(3000)]
        found = await one(ada, await a_long_run(ada, values, timed=True), max_points=80, x=x)
        assert least <= len(found["x"]) <= 80
        assert (max(found["y"]), min(found["y"])) == (96.0, 0.0)

    async def test_steps_as_far_apart_as_they_can_be_do_not_fail(self, ada):
        steps = [-(2**63), *range(-20, 20), 2**63 - 1]
        run_id = await a_run(ada, metrics=[{"loss": n, "step": step} for n, step in enumerate(steps)])
        found = await one(ada, run_id, max_points=10)
        assert (found["x"][0], found["x"][-1]) == (-(2**63), 2**63 - 1)
        near = [{"loss": n, "step": 2**63 - 50 + n} for n in range(50)]
        assert (await one(ada, await a_run(ada, await an_experiment(ada, "near"), near), max_points=10))["points"] == 50


class TestRefused:
    @pytest.mark.parametrize(
        "body",
        [
            {"runs": []}, {"keys": []}, {"runs": ["x"]}, {"runs": ["0" * 32] * 101}, {"keys": ["k"] * 51}, {"keys": [""]},
            {"max_points": 3}, {"max_points": 2001}, {"x": "value"}, {"method": "mean"},
        ],
    )  # fmt: skip
    async def test_bad_input_names_the_field(self, ada, body):
        response = await ada.http.post("/api/series", json={"runs": ["0" * 32], "keys": ["a"], **body})
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"].startswith(next(iter(body)))

    async def test_a_run_of_another_project_is_left_out(self, ada, platform):
        run_id = await a_run(ada, metrics={"loss": 1})
        bob = await platform.caller(SERVICE)
        assert await series(bob, runs=[run_id], keys=["loss"]) == []


class TestLargestTriangles:
    @given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=300), st.integers(4, 60))
    def test_it_keeps_real_points_in_order_and_no_more_than_asked_for(self, values, points):
        found = largest_triangles(Columns(list(range(len(values))), values), points)
        places = [int(place) for place in found.x]
        assert len(places) <= max(points, 1)
        assert places == sorted(set(places))
        assert np.array_equal(np.asarray(found.y), np.asarray(values)[places], equal_nan=True)
        finite = [n for n, value in enumerate(values) if math.isfinite(value)]
        if finite and points - min(len(values) - len(finite), points // 2) >= 2:
            assert {finite[0], finite[-1]} <= set(places)

"""Segments: a chart of a long series is drawn from them, and is never less true for it."""

import asyncio
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.segments import BLOCK, POINTS, RECORD, Stretch, blocks, packed, reduced, unpacked
from mlops_platform.tracking.repository import segments as repository
from mlops_platform.tracking.service.segments import WORTHWHILE, SegmentBuilder
from mlops_platform.tracking.tables import metric_points, metric_segments, run_metrics
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"
DAY = 1_769_850_000_000
LONG = WORTHWHILE + 3000


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


def a_stretch(values, *, first=0):
    steps = range(first, first + len(values))
    return Stretch.of(steps, [DAY / 1000 + step for step in steps], [float(value) for value in values])


def last_of(points):
    return int(points.steps[-1]), int(points.times[-1]), float(points.values[-1])


floats = st.floats(allow_nan=True, allow_infinity=True)


class TestDomain:
    @given(st.lists(floats, min_size=BLOCK, max_size=BLOCK))
    def test_a_block_knows_its_least_its_greatest_and_its_nan(self, values):
        record = blocks(a_stretch(values), BLOCK, BLOCK)[0]
        numbers = [value for value in values if not math.isnan(value)]
        has = record["least_time"] != np.iinfo(np.int64).min
        assert has == bool(numbers)
        if numbers:
            assert (record["least"], record["greatest"]) == (min(numbers), max(numbers))
            assert values[int(record["least_step"])] == min(numbers)
            assert values[int(record["greatest_step"])] == max(numbers)
            assert record["least_step"] == values.index(min(numbers))
        places = [place for place, value in enumerate(values) if math.isnan(value)]
        if places:
            assert record["nan_step"] == places[0]
        assert (record["nan_time"] != np.iinfo(np.int64).min) == bool(places)

    @pytest.mark.parametrize("by_time", [False, True])
    @given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 2**32))
    def test_what_is_drawn_are_points_in_order_with_both_ends_and_the_extremes(self, by_time, parts, over, seed):
        chance = random.Random(seed)
        values = [chance.choice([chance.random(), math.inf, -math.inf, math.nan]) for _ in range(POINTS + over)]
        whole = a_stretch(values)
        records = unpacked(packed(a_stretch(values[:POINTS])))
        found = reduced(records, a_stretch(values[POINTS:], first=POINTS), last_of(whole), parts, by_time=by_time)
        places = [int(x - DAY) // 1000 if by_time else int(x) for x in found.x]
        assert places == sorted(set(places))
        assert (places[0], places[-1]) == (0, len(values) - 1)
        assert len(places) <= 3 * parts + 2
        assert all(
            values[place] == y or (math.isnan(values[place]) and math.isnan(y))
            for place, y in zip(places, found.y, strict=True)
        )
        numbers = [value for value in values if not math.isnan(value)]
        assert {min(numbers), max(numbers)} <= set(found.y)

    def test_a_part_keeps_the_extremes_of_every_block_that_begins_in_it(self):
        chance = random.Random(1)
        values = [chance.random() for _ in range(8 * POINTS)]
        points, parts = a_stretch(values), 10
        found = reduced(unpacked(packed(points)), a_stretch([]), last_of(points), parts, by_time=False)
        shown = set(zip(found.x, found.y, strict=True))
        beginnings = range(0, len(values), BLOCK)
        for part in range(parts):
            mine = [at for at in beginnings if min(int(at / beginnings[-1] * parts), parts - 1) == part]
            inside = values[mine[0] : mine[-1] + BLOCK]
            assert (values.index(min(inside)), min(inside)) in shown
            assert (values.index(max(inside)), max(inside)) in shown

    def test_what_does_not_fill_a_segment_is_left(self):
        assert [len(each) for each in packed(a_stretch(range(2 * POINTS + 5)))] == [POINTS // BLOCK * RECORD.itemsize] * 2
        assert packed(a_stretch(range(POINTS - 1))) == []


async def a_long_run(caller, values, *, first=0):
    run_id = await a_run(caller, await an_experiment(caller, str(random.random())))
    await more(caller, run_id, values, first=first)
    return run_id


async def more(caller, run_id, values, *, first=0):
    for start in range(0, len(values), 5000):
        body = [
            {"loss": value, "step": first + start + n, "timestamp": DAY + 1000 * (first + start + n)}
            for n, value in enumerate(values[start : start + 5000])
        ]
        await log(caller, run_id, body)


async def chart(caller, run_id, **body):
    asked = {"runs": [run_id], "keys": ["loss"], "max_points": 64, **body}
    response = await caller.http.post("/api/series", json=asked)
    assert response.status_code == 200, response.text
    return response.json()["items"][0]


async def key_of(runtime, run_id):
    async with runtime.database.read() as session:
        return await session.scalar(select(run_metrics.c.key_id).where(run_metrics.c.run_id == run_id))


async def built(runtime: Runtime, run_id: str) -> repository.Covered:
    """The series with the segments that one builder makes."""
    builder = SegmentBuilder(runtime.database)
    await builder._build((run_id, await key_of(runtime, run_id)))
    return await state(runtime, run_id)


async def state(runtime, run_id):
    async with runtime.database.read() as session:
        found = (await repository.covered(session, [(run_id, await key_of(runtime, run_id))]))[0]
    assert found is not None
    return found


class TestBuilding:
    async def test_all_but_the_latest_points_come_into_segments_and_the_chart_is_of_all_of_them(self, ada, runtime):
        chance = random.Random(2)
        values = [chance.random() for _ in range(LONG)]
        values[100], values[LONG - 10] = -7.0, 9.0
        run_id = await a_long_run(ada, values)
        found = await built(runtime, run_id)
        assert found.is_true
        assert len(found.segments) == (LONG - repository.SETTLED) // POINTS
        assert len(found.segments) * POINTS + len(found.tail) == LONG
        drawn = await chart(ada, run_id)
        shown = dict(zip(drawn["x"], drawn["y"], strict=True))
        assert (shown[100], shown[LONG - 10]) == (-7.0, 9.0)
        assert (drawn["x"][0], drawn["x"][-1], drawn["points"]) == (0, LONG - 1, LONG)
        assert all(values[step] == value for step, value in shown.items())
        by_time = await chart(ada, run_id, x="time")
        assert [(x - DAY) // 1000 for x in by_time["x"]] == drawn["x"]

    async def test_a_point_that_comes_late_is_drawn_before_and_after_the_segments_are_made_anew(self, ada, runtime):
        run_id = await a_long_run(ada, [0.5] * LONG)
        assert (await built(runtime, run_id)).is_true
        await log(ada, run_id, [{"loss": 99.0, "step": 1234, "timestamp": DAY - 5000}])
        assert not (await state(runtime, run_id)).is_true
        assert 99.0 in (await chart(ada, run_id))["y"]
        assert (await built(runtime, run_id)).is_true
        assert 99.0 in (await chart(ada, run_id))["y"]

    async def test_a_series_that_is_cut_and_logged_anew_to_the_same_length_shows_what_is_new(self, ada, runtime):
        run_id = await a_long_run(ada, [1.0] * LONG)
        assert (await built(runtime, run_id)).is_true
        response = await ada.http.post(f"/api/runs/{run_id}/metrics/truncate", json={"from_step": 3000})
        assert response.status_code == 200, response.text
        await more(ada, run_id, [2.0] * (LONG - 3000), first=3000)
        for _ in range(2):
            drawn = await chart(ada, run_id)
            assert {y for x, y in zip(drawn["x"], drawn["y"], strict=True) if x >= 3000} == {2.0}
            assert {y for x, y in zip(drawn["x"], drawn["y"], strict=True) if x < 3000} == {1.0}
            assert (await built(runtime, run_id)).is_true

    async def test_a_replica_of_before_that_truncates_takes_the_segments_along(self, ada, runtime):
        run_id = await a_long_run(ada, [1.0] * LONG)
        assert (await built(runtime, run_id)).is_true
        key_id = await key_of(runtime, run_id)
        async with runtime.database.write() as session:
            # What truncation did before there were segments.
            of_run = (metric_points.c.run_id == run_id) & (metric_points.c.key_id == key_id)
            await session.execute(delete(metric_points).where(of_run, metric_points.c.step >= 3000))
            await session.execute(
                update(run_metrics).where(run_metrics.c.run_id == run_id).values(count=3000, last_step=2999)
            )
        await more(ada, run_id, [2.0] * (LONG - 3000), first=3000)
        drawn = await chart(ada, run_id)
        assert {y for x, y in zip(drawn["x"], drawn["y"], strict=True) if x >= 3000} == {2.0}

    async def test_builders_of_several_replicas_make_each_segment_once(self, ada, runtime):
        run_id = await a_long_run(ada, [float(n % 977) for n in range(LONG)])
        series = run_id, await key_of(runtime, run_id)
        await asyncio.gather(*(SegmentBuilder(runtime.database)._build(series) for _ in range(4)))
        found = await state(runtime, run_id)
        assert found.is_true
        begins = unpacked(found.segments)["first_step"]
        assert begins.tolist() == list(range(0, len(found.segments) * POINTS, BLOCK))

    async def test_a_series_that_always_gets_late_points_is_not_made_anew_again_and_again(self, ada, runtime):
        run_id = await a_long_run(ada, [1.0] * LONG)
        series = run_id, await key_of(runtime, run_id)
        builder = SegmentBuilder(runtime.database)
        await builder._build(series)
        for late in range(2):
            await log(ada, run_id, [{"loss": 50.0 + late, "step": 10, "timestamp": DAY + 1}])
            await builder._build(series)
        # The first made it anew, the second waits until the series has grown by a quarter.
        assert not (await state(runtime, run_id)).is_true
        assert 51.0 in (await chart(ada, run_id))["y"]

    async def test_points_that_are_stored_lead_to_segments_by_themselves(self, ada, runtime):
        run_id = await a_long_run(ada, [1.0] * (2 * WORTHWHILE))

        async def until_true():
            while True:
                await chart(ada, run_id)
                async with runtime.database.read() as session:
                    found = (await repository.covered(session, [(run_id, await key_of(runtime, run_id))]))[0]
                if found is not None and found.is_true and len(found.tail) < 2 * POINTS:
                    return

        await asyncio.wait_for(until_true(), 20)

    async def test_many_series_are_drawn_a_few_at_a_time(self, ada, runtime, monkeypatch):
        monkeypatch.setattr("mlops_platform.tracking.service.series.READ_AT_ONCE", repository.TAIL)
        runs = [await a_long_run(ada, [float(number)] * LONG) for number in range(3)]
        for run_id in runs:
            assert (await built(runtime, run_id)).is_true
        body = {"runs": runs, "keys": ["loss"], "max_points": 64}
        items = (await ada.http.post("/api/series", json=body)).json()["items"]
        assert [(each["run_id"], set(each["y"])) for each in items] == [
            (run_id, {float(n)}) for n, run_id in enumerate(runs)
        ]

    async def test_segments_go_with_the_run(self, ada, runtime):
        run_id = await a_long_run(ada, [1.0] * LONG)
        assert (await built(runtime, run_id)).is_true
        assert (await ada.http.delete(f"/api/runs/{run_id}")).status_code == 204
        assert (await ada.http.post(f"/api/runs/{run_id}/purge")).status_code < 300
        async with runtime.database.read() as session:
            assert await session.all(select(metric_segments).where(metric_segments.c.run_id == run_id)) == []

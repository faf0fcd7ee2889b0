"""Many write into one run at once: no point is lost or counted twice, and summaries are those of the points."""

import asyncio
import math
import random
from typing import Any

import pytest

from mlops_platform.tracking.domain.points import read_points
from mlops_platform.tracking.repository.metrics import IngestItem
from mlops_platform.tracking.service.ingest import MetricIngest
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"
VALUES = [*(number / 3 - 5 for number in range(30)), "NaN", "Infinity", "-Infinity", 1e308, -1e308, 5e-324, 0.0]


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


def bodies(seed, count=25):
    """Requests of one writer: keys and points that others write too, out of order, some of them twice."""
    chance = random.Random(seed)

    def point():
        body: dict[str, Any] = {"step": chance.randint(-5, 40), "timestamp": 1_767_225_600_000 + chance.randint(0, 5)}
        body |= {key: chance.choice(VALUES) for key in chance.sample(["a", "b", "c"], chance.randint(1, 3))}
        return body | ({"context": {"split": chance.choice(["train", "val"])}} if chance.random() < 0.5 else {})

    made = [[point() for _ in range(chance.randint(1, 20))] for _ in range(count)]
    return made + chance.sample(made, count // 3)


def as_float(value):
    return float(value) if isinstance(value, str) else value


def points_of(requests):
    """The distinct points of all requests, by key: (step, timestamp, value)."""
    found: dict[tuple[str, str | None], set[Any]] = {}
    for request in requests:
        for body in request:
            context = body.get("context", {}).get("split")
            for key in body.keys() & {"a", "b", "c"}:
                points = found.setdefault((key, context), set())
                # NaN is unlike itself, and one point all the same.
                points.add((body["step"], body["timestamp"], str(as_float(body[key]))))
    return found


def summed_up(points):
    """What must be kept of them: count, min, max, mean without NaN; the last one of step, time and value."""
    ordered = sorted(points, key=lambda point: (point[0], point[1], _rank(float(point[2]))))
    numbers = [float(value) for _, _, value in points if value != "nan"]
    return {
        "count": len(points),
        "last": float(ordered[-1][2]),
        "step": ordered[-1][0],
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
    }


def _rank(value):
    # As the database orders them: NaN is the greatest.
    return (1, 0.0) if math.isnan(value) else (0, value)


def same(one, other):
    return (one == other) or (isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other))


async def check(caller, run_id, requests):
    expected = points_of(requests)
    summaries = (await caller.http.get(f"/api/runs/{run_id}/metrics")).json()
    assert {(each["key"], each["context"].get("split")) for each in summaries} == set(expected)
    for each in summaries:
        points = expected[each["key"], each["context"].get("split")]
        spelled = each["key"] + (f"{{split={each['context']['split']}}}" if each["context"] else "")
        history = (await caller.http.get(f"/api/runs/{run_id}/metrics/{spelled}", params={"page_size": 1000})).json()
        assert len(history["items"]) == len(points)
        for field, value in summed_up(points).items():
            kept = as_float(each[field]) if each[field] is not None else None
            assert same(kept, value), (spelled, field, kept, value)
        mean = as_float(each["mean"])
        numbers = [float(value) for _, _, value in points if value != "nan"]
        if all(abs(number) < 1e290 for number in numbers):
            assert mean == pytest.approx(sum(numbers) / len(numbers))
        assert each["best"] is None or same(as_float(each["best"]), summed_up(points)["min"])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_summaries_of_many_writers_are_those_of_the_points(ada, seed):
    experiment_id = await an_experiment(ada)
    for key in "abc":
        await ada.http.put(f"/api/experiments/{experiment_id}/metrics/{key}/goal", json={"goal": "minimize"})
    run_id = await a_run(ada, experiment_id)
    writers = [bodies(seed * 100 + number) for number in range(8)]

    async def write(requests):
        for request in requests:
            await log(ada, run_id, request)

    await asyncio.gather(*(write(requests) for requests in writers))
    await check(ada, run_id, [request for requests in writers for request in requests])


async def test_replicas_that_write_the_same_run_agree(ada, runtime):
    run_id = await a_run(ada)
    writers = [bodies(number) for number in range(6)]
    async with MetricIngest(runtime.database).running() as one, MetricIngest(runtime.database).running() as two:

        async def write(ingest, requests):
            for request in requests:
                points = read_points(request, now=runtime.clock.now())
                await ingest.add(IngestItem(ada.project, run_id, None, points))

        await asyncio.gather(*(write((one, two)[number % 2], requests) for number, requests in enumerate(writers)))
    await check(ada, run_id, [request for requests in writers for request in requests])

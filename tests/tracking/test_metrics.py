import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from mlops_platform.core.errors import DependencyUnavailable, TooManyRequests
from mlops_platform.tracking.domain.points import Points
from mlops_platform.tracking.errors import RunNotFound
from mlops_platform.tracking.repository.metrics import IngestItem
from mlops_platform.tracking.service.ingest import MetricIngest
from tests.conftest import Caller, Platform
from tests.factories.tracking import METRICS, a_run, an_experiment, log

SERVICE = "experiment-tracking"
T = "2026-01-31T09:00:00.000000Z"
_NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def summary(caller, run_id):
    return {metric["key"]: metric for metric in (await caller.http.get(f"/api/runs/{run_id}/metrics")).json()}


async def history(caller, run_id, key, **query):
    response = await caller.http.get(f"/api/runs/{run_id}/metrics/{key}", params=query)
    assert response.status_code == 200, response.text
    return [(point["step"], point["value"]) for point in response.json()["items"]]


class TestLogMetrics:
    async def test_the_briefs_request_stores_three_metrics_at_a_step(self, ada):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        response = await ada.http.post(f"/api/experiments/{experiment_id}/runs/{run_id}/metrics", json=METRICS)
        assert (response.status_code, response.json()) == (200, {"accepted": 3, "stored": 3, "duplicates": 0})
        run = (await ada.http.get(f"/api/runs/{run_id}")).json()
        assert run["metrics"] == {"accuracy": 0.95, "precision": 0.92, "recall": 0.98}
        assert await history(ada, run_id, "accuracy") == [(100, 0.95)]

    @pytest.mark.parametrize("timed", [{}, {"timestamp": T}, {"timestamp": 1_769_850_000_000}])
    async def test_a_request_sent_again_stores_nothing_twice(self, ada, timed):
        run_id = await a_run(ada)
        body = {"loss": 0.5, "step": 3, **timed}
        assert (await log(ada, run_id, body))["stored"] == 1
        assert await log(ada, run_id, body) == {"accepted": 1, "stored": 0, "duplicates": 1}
        assert (await summary(ada, run_id))["loss"]["count"] == 1

    async def test_the_same_request_at_once_from_many_stores_one_point(self, ada):
        run_id = await a_run(ada)
        answers = await asyncio.gather(*(log(ada, run_id, {"loss": 0.5, "step": 3}) for _ in range(25)))
        assert sum(answer["stored"] for answer in answers) == 1

    async def test_another_timestamp_is_another_point(self, ada):
        run_id = await a_run(ada)
        await log(ada, run_id, [{"a": 1, "timestamp": 1_769_850_000_000}, {"a": 1, "timestamp": 1_769_850_000_001}])
        assert await history(ada, run_id, "a") == [(0, 1.0), (0, 1.0)]

    async def test_nan_and_infinities_are_kept_exactly(self, ada):
        run_id = await a_run(ada)
        values = ["NaN", "Infinity", "-Infinity", 5e-324, 1.7976931348623157e308, -0.1, 0.1 + 0.2]
        await log(ada, run_id, [{"x": value, "step": step} for step, value in enumerate(values)])
        assert [value for _, value in await history(ada, run_id, "x")] == values
        await log(ada, run_id, {"only": "NaN"})
        kept = (await summary(ada, run_id))["only"]
        assert (kept["last"], kept["min"], kept["mean"], kept["count"]) == ("NaN", None, None, 1)
        assert (await ada.http.get(f"/api/runs/{run_id}")).json()["metrics"]["only"] == "NaN"

    async def test_sums_that_no_float_holds_do_not_fail(self, ada):
        run_id = await a_run(ada)
        await log(ada, run_id, [{"x": 1.7e308, "step": step} for step in range(3)])
        await log(ada, run_id, {"x": 1.7e308, "step": 9})
        kept = (await summary(ada, run_id))["x"]
        assert (kept["max"], kept["mean"], kept["count"]) == (1.7e308, "Infinity", 4)

    async def test_summaries_count_only_what_is_new(self, ada):
        run_id = await a_run(ada)
        await log(ada, run_id, [{"x": value, "step": step} for step, value in enumerate([3, 1, "NaN", 2])])
        await log(ada, run_id, [{"x": 1, "step": 1}, {"x": 6, "step": 4}])
        kept = (await summary(ada, run_id))["x"]
        assert {key: kept[key] for key in ("last", "step", "min", "max", "mean", "count")} == {
            "last": 6.0, "step": 4, "min": 1.0, "max": 6.0, "mean": 3.0, "count": 5,
        }  # fmt: skip

    async def test_points_out_of_order_leave_the_latest_last(self, ada):
        run_id = await a_run(ada)
        for step in (5, 9, 7):
            await log(ada, run_id, {"x": step, "step": step})
        assert (await summary(ada, run_id))["x"]["last"] == 9.0
        await log(
            ada, run_id, [{"y": 1, "timestamp": "2026-01-02T00:00:00Z"}, {"y": 2, "timestamp": "2026-01-01T00:00:00Z"}]
        )
        assert (await summary(ada, run_id))["y"]["last"] == 1.0
        await log(ada, run_id, [{"z": 1, "timestamp": T}, {"z": 3, "timestamp": T}, {"z": 2, "timestamp": T}])
        assert (await summary(ada, run_id))["z"]["last"] == 3.0

    async def test_keys_may_hold_anything_printable(self, ada):
        run_id = await a_run(ada)
        for key in ("train/loss", "a b", "ünï", "metrics", "x" * 250, "run_id"):
            await log(ada, run_id, {key: 1})
            assert await history(ada, run_id, key) == [(0, 1.0)]

    async def test_a_run_that_ended_still_takes_points(self, ada):
        run_id = await a_run(ada)
        await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})
        assert (await log(ada, run_id, {"test_acc": 1}))["stored"] == 1

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"a": "fast"}, "a"), ({"a": True}, "a"), ({"a": None}, "a"), ({"a": {"b": 1}}, "a"), ({"a": [1]}, "a"),
            ({"a": 1, "step": 1.5}, "step"), ({"a": 1, "step": "1"}, "step"), ({"a": 1, "step": 2**63}, "step"),
            ({"a": 1, "step": True}, "step"), ({"a": 1, "step": None}, "step"), ({"a": 10**400}, "a"), ({"": 1}, ""),
            ({"x" * 251: 1}, "x"), ({"a\x00b": 1}, "a"), ({"a\nb": 1}, "a"), ({"step": 1}, "body"), ({}, "body"),
            ([], "body"),
            ([{"a": 1}, {"b": "x"}], "[1].b"), ([{"a": 1}, 3], "[1]"), ("x", "body"), (3, "body"),
            ({"a": 1, "timestamp": "now"}, "timestamp"), ({"a": 1, "timestamp": "2026-01-31T09:00:00"}, "timestamp"),
            ({"a": 1, "timestamp": -1}, "timestamp"), ({"a": 1, "timestamp": 1.5}, "timestamp"),
            ({"a": 1, "timestamp": True}, "timestamp"), ({"a": 1, "timestamp": 10**30}, "timestamp"),
            ({"a": 1, "timestamp": "20260131"}, "timestamp"), ({"a": 1, "timestamp": "1900-01-01T00:00:00Z"}, "timestamp"),
        ],
    )  # fmt: skip
    async def test_bad_input_names_the_field_and_stores_nothing(self, ada, body, field):
        run_id = await a_run(ada)
        response = await ada.http.post(f"/api/runs/{run_id}/metrics", json=body)
        assert response.status_code == 422, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["errors"][0]["field"].startswith(field)
        assert await summary(ada, run_id) == {}

    @pytest.mark.parametrize(
        ("timestamp", "unit"),
        [(1_769_850_000, "seconds"), (1_769_850_000_000_000, "microseconds"), (1_769_850_000 * 10**9, "nano")],
    )
    async def test_a_timestamp_in_another_unit_is_told_apart(self, ada, timestamp, unit):
        response = await ada.http.post(f"/api/runs/{await a_run(ada)}/metrics", json={"a": 1, "timestamp": timestamp})
        assert response.status_code == 422
        assert f"looks like {unit}" in response.json()["detail"]

    @pytest.mark.parametrize(
        ("content", "status"),
        [(b"{", 400), (b'{"a": NaN}', 400), (b"\xff", 400), (b"", 400), (b"[" * 5000, 400), (b" " * 2_000_000, 413)],
    )
    async def test_bytes_that_are_no_json_are_refused(self, ada, content, status):
        headers = {"Content-Type": "application/json"}
        response = await ada.http.post(f"/api/runs/{await a_run(ada)}/metrics", content=content, headers=headers)
        assert response.status_code == status

    @pytest.mark.parametrize("as_list", [False, True])
    async def test_more_points_than_a_request_may_hold_are_refused_in_either_form(self, ada, as_list):
        run_id = await a_run(ada)
        body = {f"m{number}": 1 for number in range(10_001)}
        response = await ada.http.post(f"/api/runs/{run_id}/metrics", json=[body] if as_list else body)
        assert response.status_code == 413, response.text
        assert await summary(ada, run_id) == {}

    async def test_another_content_type_is_refused(self, ada):
        headers = {"Content-Type": "text/plain"}
        response = await ada.http.post(f"/api/runs/{await a_run(ada)}/metrics", content=b'{"a":1}', headers=headers)
        assert response.status_code == 415

    @pytest.mark.parametrize("run_id", ["0" * 32, "x", "0" * 31 + "G", "'; DROP TABLE runs", "%00"])
    async def test_an_unknown_run_is_absent_and_leaves_no_key_behind(self, ada, run_id, platform):
        response = await ada.http.post(f"/api/runs/{run_id}/metrics", json={"never": 1})
        assert response.status_code == 404
        assert response.json()["code"] == "run_not_found"

    async def test_a_batch_may_hold_thousands_of_points(self, ada):
        run_id = await a_run(ada)
        body = [{"loss": 1 / (step + 1), "acc": step, "step": step} for step in range(2000)]
        assert (await log(ada, run_id, body))["stored"] == 4000
        assert (await log(ada, run_id, body))["duplicates"] == 4000


class TestHistory:
    async def test_pages_go_by_step_and_time_without_a_gap(self, ada):
        run_id = await a_run(ada)
        body = [{"x": step % 7, "y": 1, "step": step - 20} for step in range(50)]
        await log(ada, run_id, body[::-1])
        seen, token = [], None
        while True:
            query = {"page_size": 7, **({"page_token": token} if token else {})}
            page = (await ada.http.get(f"/api/runs/{run_id}/metrics/x", params=query)).json()
            seen += [point["step"] for point in page["items"]]
            if (token := page["next_page_token"]) is None:
                break
        assert seen == [step - 20 for step in range(50)]

    async def test_several_metrics_come_in_one_read(self, ada):
        run_id = await a_run(ada, metrics=[{"b": 1, "a": "NaN", "c": 3, "step": step} for step in range(3)])
        url = f"/api/runs/{run_id}/metric-points"
        seen, token = [], None
        while True:
            query = {"key": ["a", "b", "none"], "page_size": 2, **({"page_token": token} if token else {})}
            page = (await ada.http.get(url, params=query)).json()
            seen += [(point["key"], point["step"]) for point in page["items"]]
            if (token := page["next_page_token"]) is None:
                break
        assert sorted(seen) == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]

    async def test_an_unknown_metric_is_absent(self, ada):
        run_id = await a_run(ada, metrics={"a": 1})
        await a_run(ada, await an_experiment(ada, "two"), metrics={"b": 1})
        for key in ("none", "b"):
            response = await ada.http.get(f"/api/runs/{run_id}/metrics/{key}")
            assert (response.status_code, response.json()["code"]) == (404, "metric_not_found")


def points(**values):
    found = Points()
    for key, value in values.items():
        found.keys.append(key)
        found.steps.append(0)
        found.timestamps.append(_NOW)
        found.values.append(value)
        found.arrived.append(True)
    return found


class TestCoalescing:
    async def test_nobody_fails_for_anothers_points(self, ada, runtime):
        run_id = await a_run(ada)
        bad = points(ok=1.0)
        bad.steps = [2**70]  # what validation refuses, to make the whole statement fail
        async with MetricIngest(runtime.database).running() as ingest:
            results = await asyncio.gather(
                *(ingest.add(IngestItem(ada.project, run_id, None, points(**{f"k{n}": 1.0}))) for n in range(5)),
                ingest.add(IngestItem(ada.project, run_id, None, bad)),
                ingest.add(IngestItem(ada.project, "0" * 32, None, points(a=1.0))),
                ingest.add(IngestItem(ada.project, run_id, None, points(last=1.0))),
                return_exceptions=True,
            )
        assert results[:5] == [1] * 5
        assert isinstance(results[5], Exception)
        assert isinstance(results[6], RunNotFound)
        assert results[7] == 1
        assert set(await summary(ada, run_id)) == {"k0", "k1", "k2", "k3", "k4", "last"}

    async def test_many_requests_share_few_commits(self, ada, runtime):
        run_id = await a_run(ada)
        commits = 0

        class Counting:
            def write(self):
                nonlocal commits
                commits += 1
                return runtime.database.write()

            def autocommit(self):
                nonlocal commits
                commits += 1
                return runtime.database.autocommit()

        counting: Any = Counting()
        async with MetricIngest(counting).running() as ingest:
            await asyncio.gather(
                *(ingest.add(IngestItem(ada.project, run_id, None, points(**{f"k{n}": 1.0}))) for n in range(200))
            )
        assert commits <= 3
        assert len(await summary(ada, run_id)) == 200

    async def test_a_full_queue_sheds_and_keeps_nothing_of_it(self, ada, runtime):
        run_id = await a_run(ada)
        async with MetricIngest(runtime.database, queued_points=3).running() as ingest:
            results = await asyncio.gather(
                *(ingest.add(IngestItem(ada.project, run_id, None, points(**{f"k{n}": 1.0}))) for n in range(10)),
                return_exceptions=True,
            )
            assert sum(isinstance(result, TooManyRequests) for result in results) == 7
            assert await ingest.add(IngestItem(ada.project, run_id, None, points(after=1.0))) == 1
        assert set(await summary(ada, run_id)) == {"k0", "k1", "k2", "after"}

    async def test_what_was_added_before_the_end_is_stored(self, ada, runtime):
        run_id = await a_run(ada)
        async with MetricIngest(runtime.database).running() as ingest:
            waiting = [
                asyncio.ensure_future(ingest.add(IngestItem(ada.project, run_id, None, points(**{f"k{n}": 1.0}))))
                for n in range(20)
            ]
            await asyncio.sleep(0)
        assert await asyncio.gather(*waiting) == [1] * 20

    async def test_a_caller_that_goes_away_disturbs_nobody(self, ada, runtime):
        run_id = await a_run(ada)
        async with MetricIngest(runtime.database).running() as ingest:
            gone = asyncio.ensure_future(ingest.add(IngestItem(ada.project, run_id, None, points(gone=1.0))))
            stays = asyncio.ensure_future(ingest.add(IngestItem(ada.project, run_id, None, points(stays=math.inf))))
            await asyncio.sleep(0)
            gone.cancel()
            assert await stays == 1

    async def test_a_database_that_is_away_fails_those_who_wait_and_then_recovers(self, ada, runtime):
        run_id = await a_run(ada)

        class Away:
            is_away = True

            def write(self):
                if self.is_away:
                    raise DependencyUnavailable("database")
                return runtime.database.write()

            def autocommit(self):
                return runtime.database.autocommit()

        away: Any = Away()
        async with MetricIngest(away).running() as ingest:
            item = IngestItem(ada.project, run_id, None, points(a=1.0))
            with pytest.raises(DependencyUnavailable):
                await ingest.add(item)
            away.is_away = False
            assert await ingest.add(item) == 1

    async def test_replicas_that_write_to_the_same_metrics_do_not_deadlock(self, ada, runtime):
        run_ids = [await a_run(ada, await an_experiment(ada, f"e{n}")) for n in range(3)]
        async with MetricIngest(runtime.database).running() as one, MetricIngest(runtime.database).running() as two:

            async def write(ingest, order, shift):
                for step in range(15):
                    for run_id in order:
                        body = points(a=float(step), b=float(step + shift))
                        body.steps = [step * 2 + shift] * 2
                        await ingest.add(IngestItem(ada.project, run_id, None, body))

            await asyncio.gather(
                *(write(one, run_ids, 0) for _ in range(4)), *(write(two, run_ids[::-1], 1) for _ in range(4))
            )
        for run_id in run_ids:
            assert (await summary(ada, run_id))["a"]["count"] == 30

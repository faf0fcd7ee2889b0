"""What nobody should send to Experiment Tracking is refused whole, says why, and leaves nothing behind."""

import time
from datetime import UTC, datetime

import pytest

from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"
SHORTLY = 10.0
MEGABYTE = "x" * 1_000_000


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def state(caller, run_id):
    run = (await caller.http.get(f"/api/runs/{run_id}")).json()
    metrics = (await caller.http.get(f"/api/runs/{run_id}/metrics")).json()
    return {key: run[key] for key in ("run_name", "status", "notes", "parameters", "tags", "updated_at")}, metrics


async def refused(caller, method, path, statuses=(400, 413, 422), **request):
    begun = time.monotonic()
    response = await caller.http.request(method, path, **request)
    assert response.status_code in statuses, response.text[:500]
    assert len(response.content) < 20_000
    assert time.monotonic() - begun < SHORTLY
    return response.json()


def routes(run_id, experiment_id):
    """Every route that takes tags or parameters, with a way to put them into its body."""
    return {
        "experiment": ("POST", "/api/experiments", lambda tags: {"name": "many", "tags": tags}),
        "experiment change": ("PATCH", f"/api/experiments/{experiment_id}", lambda tags: {"tags": tags}),
        "run": ("POST", f"/api/experiments/{experiment_id}/runs", lambda tags: {"tags": tags}),
        "run params": ("POST", f"/api/experiments/{experiment_id}/runs", lambda tags: {"parameters": tags}),
        "change": ("PATCH", f"/api/runs/{run_id}", lambda tags: {"tags": tags}),
        "tags": ("POST", f"/api/runs/{run_id}/tags", lambda tags: {"tags": tags}),
        "params": ("POST", f"/api/runs/{run_id}/params", lambda tags: {"parameters": tags}),
        "bulk": ("POST", "/api/runs/bulk", lambda tags: {"action": "tag", "run_ids": [run_id], "tags": tags}),
    }


ROUTES = list(routes("", ""))


class TestTooMuch:
    @pytest.mark.parametrize("route", ROUTES)
    async def test_a_hundred_thousand_tags_or_parameters_are_refused_at_once(self, ada, route):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id, {"acc": 1})
        before = await state(ada, run_id)
        method, path, body = routes(run_id, experiment_id)[route]
        await refused(ada, method, path, json=body({f"t{number}": "x" for number in range(100_000)}))
        assert await state(ada, run_id) == before
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["run_count"] == 1

    @pytest.mark.parametrize("route", ROUTES)
    async def test_values_and_names_of_a_megabyte_are_refused_and_not_repeated(self, ada, route):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id, {"acc": 1})
        before = await state(ada, run_id)
        method, path, body = routes(run_id, experiment_id)[route]
        for pair in ({"key": MEGABYTE}, {MEGABYTE: "value"}):
            assert MEGABYTE[:2000] not in str(await refused(ada, method, path, json=body(pair)))
        assert await state(ada, run_id) == before

    @pytest.mark.parametrize("field", ["run_name", "notes", "group", "user", "writer"])
    async def test_texts_of_a_megabyte_are_no_names(self, ada, field):
        await refused(ada, "POST", f"/api/experiments/{await an_experiment(ada)}/runs", json={field: MEGABYTE})

    async def test_a_metric_key_or_context_of_a_megabyte_is_refused(self, ada):
        path = f"/api/runs/{await a_run(ada)}/metrics"
        await refused(ada, "POST", path, json={MEGABYTE: 1})
        await refused(ada, "POST", path, json={"acc": 1, "context": {"split": MEGABYTE}})
        await refused(ada, "POST", path, json={"acc": MEGABYTE})

    async def test_a_hundred_thousand_metrics_in_one_body_are_refused_whole(self, ada):
        run_id = await a_run(ada)
        await refused(ada, "POST", f"/api/runs/{run_id}/metrics", json={f"m{number}": number for number in range(100_000)})
        assert (await state(ada, run_id))[1] == []

    @pytest.mark.parametrize("name", ["x" * 501, "x" * 1_000_000, "\U0001f9ea" * 501])
    async def test_a_huge_name_makes_no_experiment(self, ada, name):
        await refused(ada, "POST", "/api/experiments", json={"name": name})
        assert (await ada.http.get("/api/experiments")).json()["items"] == []

    async def test_the_longest_name_of_the_widest_letters_is_kept(self, ada):
        name = "\U0001f9ea" * 500
        experiment_id = await an_experiment(ada, name)
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["name"] == name
        found = (await ada.http.get("/api/experiments", params={"name": name})).json()["items"]
        assert [each["id"] for each in found] == [experiment_id]


class TestKeysGivenTwice:
    @pytest.mark.parametrize(
        ("method", "suffix", "body"),
        [
            ("POST", "/metrics", '{"acc": 0.1, "acc": 0.2, "step": 1}'),
            ("POST", "/metrics", '{"acc": 0.1, "step": 1, "step": 2}'),
            ("POST", "/metrics", '[{"acc": 0.1, "step": 1}, {"loss": 1, "loss": 2, "step": 2}]'),
            ("POST", "/metrics", '{"acc": 0.1, "timestamp": "2026-01-31T09:00:00Z", "\\u0061cc": 0.2}'),
            ("POST", "/metrics", '{"acc": 0.1, "context": {"split": "val", "split": "train"}}'),
            ("POST", "/params", '{"parameters": {"lr": 0.1, "lr": 0.2}}'),
            ("POST", "/params", '{"parameters": {"a": 1}, "parameters": {"b": 2}}'),
            ("POST", "/params", '{"parameters": {"optimizer": {"lr": 1}, "optimizer": {"momentum": 2}}}'),
            ("POST", "/params", '{"parameters": {"optimizer": {"lr": 1}, "optimizer.lr": 2}}'),
            ("POST", "/tags", '{"tags": {"team": "a", "team": "b"}}'),
            ("PATCH", "", '{"tags": {"url": "http://x:80", "url": "http://y"}}'),
            ("PATCH", "", '{"status": "FINISHED", "status": "FAILED"}'),
        ],
    )
    async def test_are_refused_and_none_of_the_two_is_kept(self, ada, method, suffix, body):
        run_id = await a_run(ada)
        before = await state(ada, run_id)
        headers = {"Content-Type": "application/json"}
        problem = await refused(ada, method, f"/api/runs/{run_id}{suffix}", (400, 422), content=body, headers=headers)
        assert "twice" in problem["detail"]
        assert await state(ada, run_id) == before

    async def test_are_refused_on_mlflows_wire_in_its_own_words(self, ada):
        run_id = await a_run(ada)
        body = f'{{"run_id": "{run_id}", "key": "acc", "value": 0.1, "value": 0.2, "timestamp": 1767225600000}}'
        headers = {"Content-Type": "application/json"}
        response = await ada.http.post("/api/2.0/mlflow/runs/log-metric", content=body, headers=headers)
        assert response.status_code == 400
        assert set(response.json()) == {"error_code", "message"}
        assert "'value' twice" in response.json()["message"]
        assert (await state(ada, run_id))[1] == []

    async def test_the_same_key_at_two_steps_of_a_batch_is_no_repetition(self, ada):
        run_id = await a_run(ada, metrics=[{"acc": 1, "step": 1}, {"acc": 2, "step": 2}])
        assert (await state(ada, run_id))[1][0]["count"] == 2


class TestSteps:
    @pytest.mark.parametrize("step", [-1, -(2**63), 2**63 - 1, 0])
    async def test_every_step_of_64_bits_is_kept_exactly_and_ordered(self, ada, step):
        run_id = await a_run(ada, metrics=[{"acc": 1, "step": step}, {"acc": 2, "step": 5}])
        points = (await ada.http.get(f"/api/runs/{run_id}/metrics/acc")).json()["items"]
        assert [point["step"] for point in points] == sorted([step, 5])

    @pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 10**400, 1.5, 1.0, "1", True, None, [1]])
    async def test_what_is_no_step_is_refused_with_its_whole_batch(self, ada, step):
        run_id = await a_run(ada)
        body = [{"acc": 1, "step": 1}, {"acc": 2, "step": step}]
        problem = await refused(ada, "POST", f"/api/runs/{run_id}/metrics", (400, 422), json=body)
        assert "step" in str(problem)
        assert (await state(ada, run_id))[1] == []


NOW = datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp()


class TestTimes:
    @pytest.mark.parametrize(
        ("timestamp", "unit"),
        [
            (int(NOW), "seconds"),
            (int(NOW * 1e6), "microseconds"),
            (int(NOW * 1e9), "nanoseconds"),
            (NOW + 0.5, "seconds with a fraction"),
            (str(int(NOW * 1000)), "without quotes"),
            (str(int(NOW)), "seconds"),
            (-1, "not milliseconds"),
            (10**30, "not milliseconds"),
            ("1970-01-21T11:49:40Z", "1970"),
        ],
    )
    async def test_a_time_in_another_unit_is_refused_says_so_and_takes_its_batch_with_it(self, ada, timestamp, unit):
        run_id = await a_run(ada)
        body = [{"acc": 1, "timestamp": int(NOW * 1000)}, {"acc": 2, "timestamp": timestamp}]
        problem = await refused(ada, "POST", f"/api/runs/{run_id}/metrics", (400, 422), json=body)
        assert "timestamp" in problem["errors"][0]["field"]
        assert unit in problem["detail"]
        assert (await state(ada, run_id))[1] == []

    @pytest.mark.parametrize("field", ["start_time", "end_time"])
    @pytest.mark.parametrize(
        "value",
        [
            *(int(NOW), int(NOW * 1000), int(NOW * 1e6), NOW, str(int(NOW))),
            *("0001-01-01T00:00:00Z", "1970-01-21T11:49:40Z", "1999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"),
        ],
    )
    async def test_the_times_of_a_run_are_refused_when_they_cannot_be(self, ada, field, value):
        run_id = await a_run(ada)
        before = await state(ada, run_id)
        body = {field: value, "status": "FINISHED"}
        await refused(ada, "PATCH", f"/api/runs/{run_id}", (400, 422), json=body)
        assert await state(ada, run_id) == before

    async def test_summaries_are_of_what_was_taken_alone(self, ada):
        run_id = await a_run(ada, metrics={"acc": 1, "timestamp": int(NOW * 1000)})
        await refused(ada, "POST", f"/api/runs/{run_id}/metrics", json={"acc": 9, "timestamp": int(NOW)})
        assert await log(ada, run_id, {"acc": 2, "step": 1}) == {"accepted": 1, "stored": 1, "duplicates": 0}
        (metric,) = (await state(ada, run_id))[1]
        assert (metric["max"], metric["count"], metric["last"]) == (2.0, 2, 2.0)

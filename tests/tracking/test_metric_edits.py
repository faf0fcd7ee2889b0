"""Contexts, goals and truncation."""

import asyncio
from typing import Any

import pytest

from mlops_platform.tracking.domain.keys import make_key, read_key, spell_key
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def summaries(caller, run_id) -> dict[str, Any]:
    found = (await caller.http.get(f"/api/runs/{run_id}/metrics")).json()
    return {metric["key"] + "".join(f"/{value}" for value in metric["context"].values()): metric for metric in found}


async def steps(caller, run_id, key):
    return [point["step"] for point in (await caller.http.get(f"/api/runs/{run_id}/metrics/{key}")).json()["items"]]


async def found(caller, **body):
    response = await caller.http.post("/api/runs/search", json=body)
    assert response.status_code == 200, response.text
    return [run["id"] for run in response.json()["items"]]


class TestKeys:
    @pytest.mark.parametrize("name", ["acc", "a b", "train/loss", "odd{name}", "{}", "a{b=c}", "ünï"])
    @pytest.mark.parametrize("context", [{}, {"split": "val"}, {"a b": 'q"{},=', "z": "1"}])
    def test_what_is_spelled_is_read_again(self, name, context):
        key = make_key(name, context)
        spelled = spell_key(name, key.partition("\x1f")[2])
        if not context and name.endswith("}"):
            spelled += "{}"
        assert read_key(spelled) == key

    def test_the_order_of_a_context_does_not_matter(self):
        assert make_key("a", {"x": "1", "y": "2"}) == make_key("a", {"y": "2", "x": "1"})


class TestContexts:
    async def test_a_context_makes_another_series(self, ada):
        run_id = await a_run(ada)
        body = [
            {"acc": 0.9, "step": 1, "context": {"split": "train"}},
            {"acc": 0.7, "step": 1, "context": {"split": "val"}},
        ]
        assert (await log(ada, run_id, [*body, {"acc": 0.5, "step": 1}]))["stored"] == 3
        assert (await log(ada, run_id, body))["duplicates"] == 2
        kept = await summaries(ada, run_id)
        assert {key: metric["last"] for key, metric in kept.items()} == {"acc": 0.5, "acc/train": 0.9, "acc/val": 0.7}
        assert kept["acc/val"]["context"] == {"split": "val"}
        points = (await ada.http.get(f"/api/runs/{run_id}/metrics/acc{{split=val}}")).json()["items"]
        assert [(point["key"], point["context"], point["value"]) for point in points] == [("acc", {"split": "val"}, 0.7)]
        several = (
            await ada.http.get(f"/api/runs/{run_id}/metric-points", params={"key": ["acc", "acc{split=train}"]})
        ).json()
        assert sorted(point["value"] for point in several["items"]) == [0.5, 0.9]
        run = (await ada.http.get(f"/api/runs/{run_id}")).json()
        assert run["metrics"] == {"acc": 0.5, "acc{split=train}": 0.9, "acc{split=val}": 0.7}

    async def test_search_orders_and_selects_by_context(self, ada):
        experiment = await an_experiment(ada)
        runs = [
            await a_run(
                ada, experiment, [{"acc": n, "context": {"split": "val"}}, {"acc": -n, "context": {"split": "train"}}]
            )
            for n in range(4)
        ]
        assert await found(ada, filter="metrics.acc{split=val} >= 2") == [runs[3], runs[2]]
        assert await found(ada, filter="metrics.acc >= 0") == []
        assert await found(ada, order_by=["metrics.acc{split=train}"]) == runs[::-1]
        assert await found(ada, filter="metrics.acc{split=val} - metrics.acc{split=train} = 4") == [runs[2]]
        body = {"filter": "metrics.acc{split=val} = 1", "fields": ["metrics.acc{split=val}"]}
        assert (await ada.http.post("/api/runs/search", json=body)).json()["items"][0]["metrics"] == {"acc{split=val}": 1.0}

    async def test_a_number_named_context_is_a_metric(self, ada):
        run_id = await a_run(ada, metrics={"context": 4096, "step": 1})
        assert (await summaries(ada, run_id))["context"]["last"] == 4096

    @pytest.mark.parametrize(
        "context",
        [
            *({"split": 1}, {"split": None}, {"split": ""}, {"": "x"}, {"a\n": "x"}, {"a": "x" * 101}, {"a": {"b": "c"}}),
            *({f"k{n}": "v" for n in range(9)}, {f"{n}" * 100: "€" * 100 for n in range(8)}, {"a": "\x1f"}),
        ],
    )
    async def test_a_context_that_is_no_small_object_of_texts_is_refused(self, ada, context):
        run_id = await a_run(ada)
        response = await ada.http.post(f"/api/runs/{run_id}/metrics", json={"acc": 1, "context": context})
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"].startswith("context")

    async def test_the_longest_name_with_the_longest_context_is_stored(self, ada):
        context = {str(n): "€" * 60 for n in range(7)}
        run_id = await a_run(ada, metrics={"€" * 250: 1, "context": context})
        assert len(await summaries(ada, run_id)) == 1


class TestGoals:
    async def test_best_follows_the_goal_of_the_experiment(self, ada):
        one, two = await an_experiment(ada, "one"), await an_experiment(ada, "two")
        losses = [{"loss": value, "step": step} for step, value in enumerate([3, 1, "NaN", 2])]
        first, second = await a_run(ada, one, losses), await a_run(ada, two, losses)
        third = await a_run(ada, await an_experiment(ada, "three"), losses)
        for experiment, goal in ((one, "minimize"), (two, "maximize")):
            answer = await ada.http.put(f"/api/experiments/{experiment}/metrics/loss/goal", json={"goal": goal})
            assert (answer.status_code, answer.json()["goal"]) == (200, goal)
        for run_id, best in ((first, 1.0), (second, 3.0), (third, None)):
            assert (await summaries(ada, run_id))["loss"]["best"] == best
        assert await found(ada, filter="metrics.loss.best = 1") == [first]
        assert await found(ada, filter="metrics.loss.best = 3") == [second]
        assert await found(ada, filter="metrics.loss.best IS NULL") == [third]
        assert await found(ada, filter="metrics.loss.best - 1 >= 0", order_by=["metrics.loss.best DESC"]) == [second, first]
        assert await found(ada, order_by=["metrics.loss.best"], experiment_ids=[one]) == [first]

    async def test_a_best_value_without_a_goal_is_an_error_that_says_what_to_do(self, ada):
        experiment = await an_experiment(ada)
        await a_run(ada, experiment, {"loss": 1})
        for body, source in (
            ({"filter": "metrics.loss > 0 AND metrics.loss.best < 1"}, "filter"),
            ({"order_by": ["run_name", "metrics.loss.best"], "experiment_ids": [experiment]}, "order_by[1]"),
        ):
            response = await ada.http.post("/api/runs/search", json=body)
            assert (response.status_code, response.json()["code"]) == (400, "invalid_query")
            assert response.json()["errors"][0]["field"] == source
            assert "/goal" in response.json()["detail"]

    async def test_a_goal_is_listed_changed_and_cleared_and_each_change_is_audited(self, ada, runtime):
        experiment = await an_experiment(ada)
        url = f"/api/experiments/{experiment}/metrics/train/loss/goal"
        for goal in ("minimize", "minimize", "maximize"):
            assert (await ada.http.put(url, json={"goal": goal})).status_code == 200
        listed = (await ada.http.get(f"/api/experiments/{experiment}/metric-goals")).json()
        assert [(goal["key"], goal["goal"]) for goal in listed] == [("train/loss", "maximize")]
        for _ in range(2):
            assert (await ada.http.delete(url)).status_code == 204
        assert (await ada.http.get(f"/api/experiments/{experiment}/metric-goals")).json() == []

    @pytest.mark.parametrize("body", [{}, {"goal": "up"}, {"goal": None}, {"goal": "minimize", "x": 1}])
    async def test_another_goal_is_refused(self, ada, body):
        response = await ada.http.put(f"/api/experiments/{await an_experiment(ada)}/metrics/a/goal", json=body)
        assert response.status_code == 422

    async def test_an_unknown_or_deleted_experiment_has_no_goals(self, ada):
        missing = f"/api/experiments/{'0' * 32}"
        assert (await ada.http.put(f"{missing}/metrics/a/goal", json={"goal": "minimize"})).status_code == 404
        assert (await ada.http.get(f"{missing}/metric-goals")).status_code == 404
        deleted = await an_experiment(ada)
        await ada.http.delete(f"/api/experiments/{deleted}")
        response = await ada.http.put(f"/api/experiments/{deleted}/metrics/a/goal", json={"goal": "minimize"})
        assert response.json()["code"] == "experiment_deleted"


class TestTruncate:
    async def cut(self, caller, run_id, **body):
        response = await caller.http.post(f"/api/runs/{run_id}/metrics/truncate", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def test_points_from_a_step_on_go_and_the_summaries_follow(self, ada):
        values = [5, 1, "NaN", 4, 9, -3]
        run_id = await a_run(ada, metrics=[{"loss": value, "acc": 1, "step": step} for step, value in enumerate(values)])
        answer = await self.cut(ada, run_id, from_step=4, keys=["loss"])
        assert answer == {"removed": 2, "metrics": [{"key": "loss", "context": {}, "removed": 2, "remaining": 4}]}
        kept = (await summaries(ada, run_id))["loss"]
        assert {key: kept[key] for key in ("last", "step", "min", "max", "mean", "count")} == {
            "last": 4.0, "step": 3, "min": 1.0, "max": 5.0, "mean": 10 / 3, "count": 4,
        }  # fmt: skip
        assert (await summaries(ada, run_id))["acc"]["count"] == 6
        assert await steps(ada, run_id, "loss") == [0, 1, 2, 3]

    async def test_a_metric_without_points_is_none(self, ada):
        run_id = await a_run(ada, metrics=[{"a": 1, "step": 5}, {"a": 1, "step": 5, "context": {"split": "val"}}, {"b": 1}])
        answer = await self.cut(ada, run_id, from_step=-(2**63), keys=["a{split=val}"])
        assert answer["metrics"] == [{"key": "a", "context": {"split": "val"}, "removed": 1, "remaining": 0}]
        assert set(await summaries(ada, run_id)) == {"a", "b"}
        assert (await self.cut(ada, run_id, from_step=1))["removed"] == 1
        assert set(await summaries(ada, run_id)) == {"b"}

    async def test_what_was_cut_can_be_logged_again(self, ada):
        body = [{"a": step, "step": step} for step in range(10)]
        run_id = await a_run(ada, metrics=body)
        await self.cut(ada, run_id, from_step=5)
        assert (await log(ada, run_id, body)) == {"accepted": 10, "stored": 5, "duplicates": 5}
        assert (await summaries(ada, run_id))["a"]["count"] == 10

    async def test_nothing_to_cut_changes_nothing(self, ada):
        run_id = await a_run(ada, metrics={"a": 1, "step": 3})
        for body in ({"from_step": 4}, {"from_step": 2**63 - 1}, {"from_step": 0, "keys": ["none"]}):
            assert await self.cut(ada, run_id, **body) == {"removed": 0, "metrics": []}

    async def test_points_that_arrive_meanwhile_are_counted_once(self, ada):
        run_id = await a_run(ada, metrics=[{"a": step, "step": step} for step in range(50)])

        async def train(worker):
            for n in range(10):
                await log(ada, run_id, {"a": worker, "step": 100 + worker * 100 + n})

        await asyncio.gather(
            *(train(worker) for worker in range(4)), *(self.cut(ada, run_id, from_step=40) for _ in range(5))
        )
        page = await ada.http.get(f"/api/runs/{run_id}/metrics/a", params={"page_size": 1000})
        points = page.json()["items"]
        kept = (await summaries(ada, run_id))["a"]
        values = [point["value"] for point in points]
        assert (kept["count"], kept["min"], kept["max"], kept["last"]) == (
            len(points),
            min(values),
            max(values),
            values[-1],
        )
        assert kept["mean"] == pytest.approx(sum(values) / len(values))

    async def test_a_deleted_or_unknown_run_is_not_cut(self, ada):
        run_id = await a_run(ada, metrics={"a": 1})
        await ada.http.delete(f"/api/runs/{run_id}")
        response = await ada.http.post(f"/api/runs/{run_id}/metrics/truncate", json={"from_step": 0})
        assert response.json()["code"] == "run_deleted"
        response = await ada.http.post(f"/api/runs/{'0' * 32}/metrics/truncate", json={"from_step": 0})
        assert response.status_code == 404

    @pytest.mark.parametrize(
        "body", [{}, {"from_step": 1.5}, {"from_step": 2**63}, {"from_step": 0, "keys": []}, {"from_step": 0, "keys": [""]}]
    )
    async def test_bad_input_is_refused(self, ada, body):
        response = await ada.http.post(f"/api/runs/{await a_run(ada)}/metrics/truncate", json=body)
        assert response.status_code == 422


class TestTimestamps:
    @pytest.mark.parametrize(
        ("timestamp", "said"),
        [
            (1_769_850_000.25, "looks like seconds with a fraction"),
            (1_769_850_000_000.5, "milliseconds with a fraction"),
            ("1769850000", "looks like seconds"),
            ("1769850000000", "digits are sent without quotes"),
            ("1970-01-21T11:37:30Z", "seconds that were read as milliseconds"),
            ("1999-12-31T23:59:59Z", "outside the years 2000 to 2100"),
            ("2100-01-01T00:00:00Z", "outside the years 2000 to 2100"),
            ("9999-01-01T00:00:00Z", "microseconds that were read as milliseconds"),
            (-(10**12), "not milliseconds"),
        ],
    )
    async def test_an_implausible_time_is_refused_and_the_likely_unit_is_named(self, ada, timestamp, said):
        response = await ada.http.post(f"/api/runs/{await a_run(ada)}/metrics", json={"a": 1, "timestamp": timestamp})
        assert response.status_code == 422
        assert said in response.json()["detail"]

    async def test_steps_of_64_bits_are_exact(self, ada):
        extremes = [-(2**63), -(2**53) - 1, -1, 2**53 + 1, 2**63 - 1]
        run_id = await a_run(ada, metrics=[{"a": 1, "step": step} for step in extremes])
        assert await steps(ada, run_id, "a") == extremes
        assert (await summaries(ada, run_id))["a"]["step"] == 2**63 - 1

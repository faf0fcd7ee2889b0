import asyncio
import math
import random

import numpy as np
import psutil
import pytest
from scipy import stats

from mlops_platform.core.identity import Role
from mlops_platform.tracking.backends.forest import Forest
from mlops_platform.tracking.domain import comparison as rules
from mlops_platform.tracking.domain.comparison import MetricCells, ParamCells
from mlops_platform.tracking.errors import AnalysisFailed, PackageMissing
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def compare(caller, **body):
    response = await caller.http.post("/api/compare", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def by_key(items):
    return {item["key"]: item for item in items}


def forests() -> list[int]:
    """Processes of forests that this one has started."""
    alive = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each.pid for each in alive if any("forest_process" in word for word in each.cmdline())]


class TestColumns:
    async def test_only_parameters_that_differ_are_shown_in_the_order_of_the_runs(self, ada):
        experiment_id = await an_experiment(ada)
        given = [
            {"same": 1, "lr": 0.1, "layers": [1, 2], "flag": True},
            {"same": 1.0, "lr": 0.01, "layers": [1, 2], "flag": False, "only": "x"},
        ]
        ids = [await a_run(ada, experiment_id, parameters=parameters) for parameters in given]
        found = await compare(ada, run_ids=ids[::-1])
        assert [run["id"] for run in found["runs"]] == ids[::-1]
        assert [(it["key"], it["values"], it["absent"]) for it in found["params"]] == [
            ("flag", [False, True], []),
            ("lr", [0.01, 0.1], []),
            ("only", ["x", None], [1]),
        ]
        assert found["equal_params"] == 2

    async def test_integers_that_one_float_stands_for_still_differ_and_a_text_is_no_number(self, ada):
        experiment_id = await an_experiment(ada)
        given = [{"seed": 2**60, "one": 1}, {"seed": 2**60 + 1, "one": "1"}]
        ids = [await a_run(ada, experiment_id, parameters=parameters) for parameters in given]
        found = by_key((await compare(ada, run_ids=ids))["params"])
        assert found["seed"]["values"] == [2**60, 2**60 + 1]
        assert found["one"]["values"] == [1, "1"]

    async def test_metrics_are_summed_up_as_asked_and_keep_what_json_numbers_cannot_say(self, ada):
        experiment_id = await an_experiment(ada)
        first = await a_run(ada, experiment_id, metrics=[{"loss": 3, "step": 1}, {"loss": 1, "step": 2}])
        second = await a_run(ada, experiment_id, metrics={"loss": "NaN", "other": "Infinity"})
        found = await compare(ada, run_ids=[first, second])
        assert by_key(found["metrics"]) == {
            "loss": {"key": "loss", "values": [1.0, "NaN"], "min": 1.0, "max": 1.0},
            "other": {"key": "other", "values": [None, "Infinity"], "min": "Infinity", "max": "Infinity"},
        }
        best = by_key((await compare(ada, run_ids=[first, second], summary="mean", metrics=["loss"]))["metrics"])
        assert best["loss"]["values"] == [2.0, None]

    async def test_axes_say_where_each_run_crosses(self, ada):
        experiment_id = await an_experiment(ada)
        given = [(0.001, "adam", 1.0), (0.1, "sgd", 3.0), (0.01, "adam", 2.0)]
        ids = [
            await a_run(ada, experiment_id, parameters={"lr": lr, "opt": opt}, metrics={"acc": acc})
            for lr, opt, acc in given
        ]
        axes = {axis["field"]: axis for axis in (await compare(ada, run_ids=ids, target="acc"))["axes"]}
        assert list(axes) == ["params.lr", "params.opt", "metrics.acc"]
        assert (axes["params.lr"]["scale"], axes["params.lr"]["positions"]) == ("log", pytest.approx([0.0, 1.0, 0.5]))
        assert axes["params.opt"]["categories"] == ["adam", "sgd"]
        assert axes["params.opt"]["positions"] == [0.0, 1.0, 0.0]
        assert (axes["metrics.acc"]["scale"], axes["metrics.acc"]["positions"]) == ("linear", [0.0, 1.0, 0.5])

    async def test_more_keys_than_are_shown_are_counted(self, ada):
        experiment_id = await an_experiment(ada)
        ids = [await a_run(ada, experiment_id, parameters={f"p{n:03}": [n, run] for n in range(230)}) for run in range(2)]
        found = await compare(ada, run_ids=ids)
        assert (len(found["params"]), found["omitted_params"]) == (200, 30)
        assert [it["key"] for it in (await compare(ada, run_ids=ids, params=["p229"]))["params"]] == ["p229"]


class TestWhichRuns:
    async def test_a_search_names_them_and_the_pinned_run_is_the_baseline(self, ada):
        experiment_id = await an_experiment(ada)
        ids = [await a_run(ada, experiment_id, metrics={"n": n}) for n in range(3)]
        await ada.http.put(f"/api/experiments/{experiment_id}/baseline", json={"run_id": ids[2]})
        search = {"experiment_ids": [experiment_id], "filter": "metrics.n > 0"}
        found = await compare(ada, search=search)
        assert {run["id"] for run in found["runs"]} == set(ids[1:])
        assert found["baseline_run_id"] == ids[2]
        assert (await compare(ada, run_ids=ids[:2]))["baseline_run_id"] is None
        assert (await compare(ada, run_ids=ids, baseline_run_id=ids[0]))["baseline_run_id"] == ids[0]

    async def test_runs_of_hidden_names_and_other_projects_are_not_found(self, ada, platform):
        run_id = await a_run(ada, await an_experiment(ada, "secret"))
        limited = await platform.caller(SERVICE, Role.VIEWER, project=ada.project, pattern="open*")
        for caller in (limited, await platform.caller(SERVICE)):
            response = await caller.http.post("/api/compare", json={"run_ids": [run_id]})
            assert (response.status_code, response.json()["code"]) == (404, "run_not_found")

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({}, 422), ({"run_ids": []}, 422), ({"run_ids": ["0" * 32] * 1001}, 422), ({"run_ids": ["0" * 32]}, 404),
            ({"search": {"experiment_ids": ["0" * 32], "filter": "a >> b"}}, 400),
        ],
    )  # fmt: skip
    async def test_a_question_that_cannot_be_answered_says_why(self, ada, body, status):
        assert (await ada.http.post("/api/compare", json=body)).status_code == status

    async def test_a_target_that_no_run_has_and_a_baseline_that_is_not_there_are_refused(self, ada):
        run_id = await a_run(ada)
        for body, code in (({"target": "loss"}, "metric_not_found"), ({"baseline_run_id": "0" * 32}, "invalid_input")):
            response = await ada.http.post("/api/compare", json={"run_ids": [run_id], **body})
            assert response.json()["code"] == code


class TestCorrelation:
    async def test_numeric_parameters_are_correlated_with_the_target_the_strongest_first(self, ada):
        experiment_id = await an_experiment(ada)
        noise = [3, 1, 4, 1, 5, 9]
        ids = [
            await a_run(
                ada, experiment_id, parameters={"lr": n, "noise": noise[n], "opt": str(n)}, metrics={"acc": -(n**3)}
            )
            for n in range(6)
        ]
        found = (await compare(ada, run_ids=ids, target="acc"))["correlations"]
        assert [it["key"] for it in found] == ["lr", "noise"]
        assert (found[0]["spearman"], found[0]["runs"]) == (pytest.approx(-1.0), 6)
        assert -1 < found[0]["pearson"] < -0.9

    @pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, -1e308])
    def test_it_is_the_same_at_any_scale_and_what_scipy_says(self, scale):
        rng = random.Random(7)
        x = np.array([rng.random() for _ in range(40)])
        y = x + np.array([rng.random() for _ in range(40)])
        assert rules.pearson(x * scale, y) == pytest.approx(math.copysign(1, scale) * stats.pearsonr(x, y)[0])
        tied = np.round(x, 1)
        assert rules.pearson(rules.ranks(tied), rules.ranks(y)) == pytest.approx(stats.spearmanr(tied, y)[0])

    @pytest.mark.parametrize("x", [[1.0, 1.0, 1.0], [1.0, 2.0], [], [1e308, -1e308, 0.0]])
    def test_what_has_no_correlation_has_none_and_nothing_overflows(self, x):
        value = rules.pearson(np.array(x), np.array([1.0, 2.0, 3.0][: len(x)]))
        assert value is None or -1 <= value <= 1

    def test_an_axis_of_extremes_stays_between_its_ends(self):
        axis = rules.number_axis("x", np.array([1e308, -1e308, np.nan, np.inf, 0.0]))
        assert axis.positions == [1.0, 0.0, None, None, 0.5]

    def test_mixed_values_are_categories(self):
        cells = ParamCells("p", [0, 1, 3], ["int", "string", "bool"], ["1", "a", "true"], [1.0, None, None])
        assert rules.numeric(cells, 4) is None
        assert rules.param_axis(cells, 4).positions == [0.0, 0.5, None, 1.0]
        assert rules.param_column(cells, 4).absent == [2]
        assert rules.metric_column(MetricCells("m", [0], [math.nan]), 1).min is None


class TestImportance:
    async def test_the_parameter_that_decides_is_the_most_important(self, ada):
        experiment_id, rng = await an_experiment(ada), random.Random(3)
        for _ in range(30):
            depth, seed, opt = rng.randint(1, 10), rng.randint(0, 99), rng.choice(["adam", "sgd"])
            parameters = {"depth": depth, "seed": seed, "opt": opt}
            await a_run(ada, experiment_id, parameters=parameters, metrics={"acc": depth + 0.01 * rng.random()})
        found = await compare(ada, search={"experiment_ids": [experiment_id]}, target="acc", importance=True)
        ranked = found["importance"]["params"]
        assert ranked[0]["key"] == "depth"
        assert ranked[0]["importance"] > 0.5
        assert ranked[0]["permutation"] > 0.3
        assert sum(it["importance"] for it in ranked) == pytest.approx(1.0)
        assert found["importance"]["score"] > 0.3

    async def test_too_few_runs_or_no_target_are_refused(self, ada):
        experiment_id = await an_experiment(ada)
        ids = [await a_run(ada, experiment_id, parameters={"a": n}, metrics={"acc": n}) for n in range(3)]
        for body in ({"target": "acc"}, {}):
            response = await ada.http.post("/api/compare", json={"run_ids": ids, "importance": True, **body})
            assert response.status_code == 422, response.text

    def test_a_missing_package_is_named(self):
        with pytest.raises(PackageMissing, match="scikit-learn"):
            Forest(package="a_package_that_is_not_there").require()

    async def test_a_forest_that_takes_too_long_is_cut_and_the_next_one_may_grow(self):
        columns, target = [[float(n) for n in range(20)]], [float(n) for n in range(20)]
        for _ in range(2):
            with pytest.raises(AnalysisFailed):
                await Forest(seconds=0.01).weigh(columns, target)
        weighed = await Forest().weigh(columns, target)
        assert weighed.importances == [1.0]

    async def test_a_cancelled_question_leaves_no_process_behind(self):
        task = asyncio.create_task(Forest().weigh([[1.0] * 20], [1.0] * 20))
        async with asyncio.timeout(20):
            while not forests():  # noqa: ASYNC110  # a process that begins tells nobody
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert forests() == []
        assert Forest._free.acquire(blocking=False)
        Forest._free.release()

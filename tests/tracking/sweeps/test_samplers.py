"""Searching with Optuna, in its own process, from nothing but the runs."""

import asyncio
import itertools
import json
import os
import signal
from contextlib import suppress
from typing import Any

import pytest

from mlops_platform.contracts.tracking_sweeps import SweepParam
from mlops_platform.core.errors import TooManyRequests
from mlops_platform.tracking.backends.sampler import Sampler
from mlops_platform.tracking.domain import spaces
from mlops_platform.tracking.errors import AnalysisFailed, PackageMissing
from mlops_platform.tracking.service.sweeps import described
from tests.conftest import Caller, Platform
from tests.factories.sweeps import LINE, a_sweep, a_trial, get, quadratic, tell, worked
from tests.factories.tracking import an_experiment, log
from tests.factories.waiting import until

PLANE = {"x": {"min": -5.0, "max": 5.0}, "y": {"min": -5.0, "max": 5.0}}


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("experiment-tracking")


async def searched(caller, name, method, *, loss=quadratic, most=30, **fields):
    experiment_id = await an_experiment(caller, name)
    sweep_id = await a_sweep(caller, experiment_id, method=method, max_trials=most, **{"parameters": PLANE, **fields})
    return sweep_id, await worked(caller, sweep_id, loss)


def points(trials):
    return [trial["parameters"] for trial in trials]


class TestSearching:
    async def test_tpe_finds_the_least_of_a_quadratic_far_better_than_chance(self, ada):
        _, trials = await searched(ada, "tpe", "tpe", seed=1, most=30)
        space = spaces.read_space({name: SweepParam(**bounds) for name, bounds in PLANE.items()})
        chance = [min(quadratic(spaces.random_point(space, seed, slot)) for slot in range(30)) for seed in range(20)]
        assert min(trial["values"][0] for trial in trials) < sum(chance) / 20 / 3

    @pytest.mark.parametrize("method", ["random", "tpe", "qmc"])
    async def test_one_worker_with_one_seed_searches_the_same_way_twice(self, ada, method):
        options = {"most": 8, "startup_trials": 4}
        _, first = await searched(ada, "first", method, seed=5, **options)
        _, second = await searched(ada, "second", method, seed=5, **options)
        _, other = await searched(ada, "other", method, seed=6, **options)
        assert points(first) == points(second)
        assert points(first)[0] != points(other)[0]

    async def test_a_sweep_without_a_seed_is_given_one(self, ada):
        sweep_id, trials = await searched(ada, "first", "random", most=3)
        seed = (await get(ada, sweep_id))["seed"]
        assert points((await searched(ada, "again", "random", seed=seed, most=3))[1]) == points(trials)

    async def test_quasi_random_points_fill_the_space_evenly(self, ada):
        _, trials = await searched(ada, "qmc", "qmc", seed=1, most=16)
        quarters = [(point["x"] > 0, point["y"] > 0) for point in points(trials)]
        assert {quarter: quarters.count(quarter) for quarter in set(quarters)} == {
            (right, up): 4 for right in (False, True) for up in (False, True)
        }

    async def test_tpe_searches_spaces_of_every_kind_and_never_leaves_them(self, ada):
        parameters = {
            "optimizer": {"values": ["adam", "sgd", None]},
            "momentum": {"min": 0.0, "max": 0.9, "step": 0.3, "when": {"optimizer": "sgd"}},
            "lr": {"min": 1e-5, "max": 1e-1, "log": True},
            "layers": {"min": 1, "max": 3},
            "width": {"min": 8, "max": 512, "log": True, "when": {"layers": [2, 3]}},
            "shape": {"values": [[1, 2], [3]]},
            "fixed": {"value": 1.0},
        }
        _, trials = await searched(
            ada, "kinds", "tpe", loss=lambda point: point["lr"], parameters=parameters, seed=2, most=16, startup_trials=4
        )
        for point in points(trials):
            assert ("momentum" in point) is (point["optimizer"] == "sgd")
            assert ("width" in point) is (point["layers"] > 1)
            assert point.get("momentum", 0.0) in {0.0, 0.3, 0.6, 0.9}
            assert 1e-5 <= point["lr"] <= 1e-1
            assert point["shape"] in ([1, 2], [3])
            assert (type(point["layers"]), type(point["fixed"])) == (int, float)

    async def test_workers_at_once_do_not_crowd_at_one_place(self, ada):
        sweep_id, _ = await searched(ada, "crowd", "tpe", seed=3, most=6, startup_trials=4)
        await ada.http.post(f"/api/sweeps/{sweep_id}/resume", json={"max_trials": 100})
        asked = await asyncio.gather(*(a_trial(ada, sweep_id) for _ in range(6)))
        places = [(trial["parameters"]["x"], trial["parameters"]["y"]) for trial in asked]
        assert len(set(places)) == 6

    async def test_what_was_found_by_hand_is_learnt_from_too(self, ada):
        """The study is made of the runs: one whose metric is logged, not told, counts like any other."""
        sweep_id = await a_sweep(ada, method="tpe", parameters=LINE, seed=1, startup_trials=5, max_trials=60)
        for _ in range(12):
            trial = await a_trial(ada, sweep_id)
            await log(ada, trial["run_id"], {"loss": quadratic(trial["parameters"])})
            await ada.http.patch(f"/api/runs/{trial['run_id']}", json={"status": "FINISHED"})
        late = points(await worked(ada, sweep_id, quadratic, most=5))
        assert sum(abs(point["x"] - 2.0) for point in late) / 5 < 1.5

    async def test_the_point_of_a_lost_trial_is_tried_again_as_it_was(self, ada):
        sweep_id, _ = await searched(ada, "lost", "tpe", seed=3, most=5, startup_trials=4)
        await ada.http.post(f"/api/sweeps/{sweep_id}/resume", json={"max_trials": 100})
        lost = await a_trial(ada, sweep_id)
        await ada.http.patch(f"/api/runs/{lost['run_id']}", json={"status": "KILLED"})
        again = await a_trial(ada, sweep_id)
        assert (again["parameters"], again["slot"], again["attempt"]) == (lost["parameters"], lost["slot"], 2)

    async def test_a_trial_whose_parameter_was_corrected_to_something_outside_is_left_out(self, ada):
        sweep_id, trials = await searched(ada, "corrected", "tpe", seed=3, most=5, startup_trials=3)
        body = {"key": "x", "value": "left", "reason": "it was no number"}
        assert (await ada.http.patch(f"/api/runs/{trials[0]['run_id']}/params", json=body)).status_code == 200
        await ada.http.post(f"/api/sweeps/{sweep_id}/resume", json={"max_trials": 7})
        assert len(await worked(ada, sweep_id, quadratic)) == 2

    async def test_two_objectives_are_searched_together_and_none_of_the_best_beats_another(self, ada):
        sweep_id = await a_sweep(
            ada,
            method="tpe",
            parameters=LINE,
            objectives=[{"metric": "loss"}, {"metric": "size", "goal": "maximize"}],
            max_trials=10,
            startup_trials=5,
            seed=1,
        )
        while (trial := (await ada.http.post(f"/api/sweeps/{sweep_id}/ask", json={})).json()["trial"]) is not None:
            x = trial["parameters"]["x"]
            await tell(ada, sweep_id, trial["run_id"], x * x, x)
        best = [trial["values"] for trial in (await get(ada, sweep_id, "/best"))["items"]]
        assert best == sorted(best)
        assert all(one[1] < other[1] for one, other in itertools.pairwise(best))
        assert (await get(ada, sweep_id, "/history", objective="size"))["goal"] == "maximize"


class TestReading:
    async def test_best_trial_and_history(self, ada):
        sweep_id = await a_sweep(ada)
        await worked(ada, sweep_id, lambda point: abs(point["a"] - 2) + (point["b"] == "x"))
        best = (await get(ada, sweep_id, "/best"))["items"]
        assert [(trial["parameters"], trial["values"]) for trial in best] == [({"a": 2, "b": "y"}, [0.0])]
        history = await get(ada, sweep_id, "/history")
        assert [(point["value"], point["best"]) for point in history["items"]] == [
            (2.0, 2.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0), (2.0, 0.0), (1.0, 0.0),
        ]  # fmt: skip

    async def test_nothing_is_best_before_something_is_complete(self, ada):
        sweep_id = await a_sweep(ada)
        await a_trial(ada, sweep_id)
        assert (await get(ada, sweep_id, "/best"))["items"] == []
        assert (await get(ada, sweep_id, "/history"))["items"] == []

    async def test_importances_are_of_what_was_varied_and_are_1_together(self, ada):
        parameters = {"x": LINE["x"], "noise": LINE["x"], "fixed": {"value": 1}}
        objectives = [{"metric": "gain", "goal": "maximize"}]
        options = {"most": 12, "parameters": parameters, "objectives": objectives, "seed": 1}
        sweep_id, _ = await searched(ada, "i", "random", loss=lambda point: -(point["x"] ** 2), **options)
        found = await get(ada, sweep_id, "/importance")
        assert (found["metric"], found["trials"]) == ("gain", 12)
        assert set(found["importances"]) == {"x", "noise"}
        assert sum(found["importances"].values()) == pytest.approx(1.0)

    async def test_importance_of_too_few_trials_is_refused(self, ada):
        response = await ada.http.get(f"/api/sweeps/{await a_sweep(ada)}/importance")
        assert response.status_code == 422

    async def test_sweeps_and_their_trials_are_listed_page_by_page(self, ada):
        experiment_id = await an_experiment(ada)
        made = [await a_sweep(ada, experiment_id) for _ in range(3)]
        first = (await ada.http.get("/api/sweeps", params={"page_size": 2, "experiment_id": experiment_id})).json()
        rest = (
            await ada.http.get(
                "/api/sweeps",
                params={"page_size": 2, "experiment_id": experiment_id, "page_token": first["next_page_token"]},
            )
        ).json()
        assert [sweep["id"] for sweep in [*first["items"], *rest["items"]]] == made[::-1]
        trial = await a_trial(ada, made[0])
        await a_trial(ada, made[0])
        await tell(ada, made[0], trial["run_id"], 1.0)
        done = (await get(ada, made[0], "/trials", state="COMPLETE"))["items"]
        assert [(it["number"], it["values"]) for it in done] == [(0, [1.0])]
        page = await get(ada, made[0], "/trials", page_size=1)
        following = await get(ada, made[0], "/trials", page_size=1, page_token=page["next_page_token"])
        assert [it["number"] for it in (*page["items"], *following["items"])] == [0, 1]

    async def test_a_sweep_of_another_project_is_not_there(self, ada, platform):
        other = await platform.caller("experiment-tracking")
        sweep_id = await a_sweep(ada)
        for method, part in (("GET", ""), ("POST", "/ask"), ("GET", "/best")):
            body: dict[str, Any] = {"json": {}} if method == "POST" else {}
            assert (await other.http.request(method, f"/api/sweeps/{sweep_id}{part}", **body)).status_code == 404


SPACE = described(spaces.read_space({"x": SweepParam(min=0.0, max=1.0)}))


def question(trials: int = 0, **fields: Any) -> dict[str, Any]:
    told = [
        [number, "COMPLETE", [number / 10], None, json.dumps({"x": f"float:{number / 100}"})] for number in range(trials)
    ]
    asked = {"kind": "sample", "seed": 1, "startup_trials": 5, "directions": ["minimize"], "space": SPACE, "trials": told}
    return asked | fields


class TestProcess:
    async def test_tpe_beats_chance_whatever_the_seed(self):
        space = spaces.read_space({name: SweepParam(**bounds) for name, bounds in PLANE.items()})
        found, chance = [], []
        async with Sampler() as sampler:
            for seed in range(5):
                told: list[Any] = []
                for number in range(40):
                    asked = {"seed": 1000 * seed + number, "space": described(space), "trials": told}
                    point = await sampler.ask(question() | asked)
                    codes = {name: f"float:{value!r}" for name, value in point.items()}
                    told.append([number, "COMPLETE", [quadratic(point)], None, json.dumps(codes)])
                found.append(min(each[2][0] for each in told))
                chance.append(min(quadratic(spaces.random_point(space, seed, slot)) for slot in range(40)))
        assert sum(found) < sum(chance) / 3, (found, chance)

    @pytest.mark.parametrize(("goal", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
    async def test_what_matters_is_told_from_what_does_not(self, goal, sign):
        space = spaces.read_space({name: SweepParam(min=-5.0, max=5.0) for name in ("noise", "x")})
        drawn = [spaces.random_point(space, 1, slot) for slot in range(100)]
        told = [
            [
                n,
                "COMPLETE",
                [sign * it["x"] ** 2],
                None,
                json.dumps({name: f"float:{value!r}" for name, value in it.items()}),
            ]
            for n, it in enumerate(drawn)
        ]
        asked = {"kind": "importance", "objective": 0, "directions": [goal], "space": described(space), "trials": told}
        async with Sampler() as sampler:
            found = await sampler.ask(asked)
        assert found["x"] > 0.8

    async def test_one_process_answers_all_and_the_same_question_alike(self):
        async with Sampler() as sampler:
            first = await sampler.ask(question(20))
            process_id = sampler.process_id
            again = await asyncio.gather(*(sampler.ask(question(20)) for _ in range(3)))
            assert sampler.process_id == process_id
        assert again == [first] * 3
        assert sampler.process_id is None

    async def test_a_process_that_is_not_needed_ends_and_a_new_one_takes_its_place(self):
        async with Sampler(idle_seconds=0.01) as sampler:
            first = await sampler.ask(question(20))
            assert sampler._process is not None  # its end is what is waited for
            await sampler._process.wait()
            assert sampler.process_id is None
            assert await sampler.ask(question(20)) == first

    async def test_a_process_that_was_killed_is_replaced_without_anybody_noticing(self):
        async with Sampler() as sampler:
            first = await sampler.ask(question(20))
            assert sampler._process is not None  # it is killed below
            sampler._process.kill()
            assert await sampler.ask(question(20)) == first

    async def test_a_question_that_takes_too_long_is_given_up_and_the_next_one_is_answered(self):
        async with Sampler(seconds=0.001) as impatient:
            with pytest.raises(AnalysisFailed, match=r"no answer after 0\.001 s"):
                await impatient.ask(question(20))
        async with Sampler() as sampler:
            waiting = asyncio.create_task(sampler.ask(question(20)))
            await asyncio.sleep(0)
            waiting.cancel()
            assert "x" in await sampler.ask(question(20, seed=2))

    async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_question(self):
        plane = described(spaces.read_space({name: SweepParam(**bounds) for name, bounds in PLANE.items()}))
        async with Sampler() as sampler:
            await sampler.ask(question())
            process_id = sampler.process_id
            assert process_id is not None
            os.kill(process_id, signal.SIGSTOP)
            sampler._seconds = 0.1
            with pytest.raises(AnalysisFailed, match="no answer"):
                await sampler.ask(question(space=plane))
            sampler._seconds = 30.0
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGCONT)
            assert set(await sampler.ask(question())) == {"x"}

    async def test_the_answer_to_another_question_is_refused_and_its_process_ends(self):
        async with Sampler() as sampler:
            await sampler.ask(question())
            assert sampler._process is not None  # something is left in its pipe
            assert sampler._process.stdin is not None
            sampler._process.stdin.write(json.dumps(question() | {"number": 99}).encode() + b"\n")
            with pytest.raises(AnalysisFailed, match="another question"):
                await sampler.ask(question())
            assert "x" in await sampler.ask(question())

    async def test_who_waits_too_long_for_a_turn_is_given_up_and_who_has_it_is_not_disturbed(self):
        async with Sampler() as sampler:
            await sampler.ask(question())
            process_id = sampler.process_id
            sampler._seconds = 0.05
            async with asyncio.timeout(20), sampler._turn:
                with pytest.raises(AnalysisFailed, match="no answer"):
                    await sampler.ask(question())
            assert sampler.process_id == process_id

    async def test_more_than_a_few_do_not_wait(self):
        async with Sampler() as sampler:
            async with sampler._turn:
                waiting = [asyncio.create_task(sampler.ask(question())) for _ in range(8)]
                await until(lambda: sampler._asking == 8)
                with pytest.raises(TooManyRequests, match="8 questions"):
                    await sampler.ask(question())
            assert all("x" in answer for answer in await asyncio.gather(*waiting))
            assert "x" in await sampler.ask(question())

    async def test_importances_hold_up_nobody_who_asks_for_a_trial(self, ada, monkeypatch):
        sweep_id, _ = await searched(ada, "i", "tpe", most=5, startup_trials=3, seed=1)
        await ada.http.post(f"/api/sweeps/{sweep_id}/resume", json={"max_trials": 100})
        begun, may_end = asyncio.Event(), asyncio.Event()
        real = Sampler._asked

        async def slow(self, line, number):
            if b'"importance"' in line:
                begun.set()
                await may_end.wait()
            return await real(self, line, number)

        monkeypatch.setattr(Sampler, "_asked", slow)
        reading = asyncio.create_task(get(ada, sweep_id, "/importance"))
        await begun.wait()
        async with asyncio.timeout(20):
            await a_trial(ada, sweep_id)
        may_end.set()
        assert set((await reading)["importances"]) == {"x", "y"}

    async def test_what_optuna_cannot_read_fails_alone(self):
        async with Sampler() as sampler:
            with pytest.raises(AnalysisFailed, match="cannot go on"):
                await sampler.ask(question(1, directions=["sideways"]))
            assert "x" in await sampler.ask(question(20))

    async def test_values_at_the_ends_of_floats_are_taken(self):
        told = [[n, "COMPLETE", [value], None, '{"x": "float:0.5"}'] for n, value in enumerate([1e308, -1e308, 5e-324] * 4)]
        told += [[20, "PRUNED", [0.5], 3, '{"x": "float:0.25"}'], [21, "PRUNED", [], None, '{"x": "float:0.25"}']]
        told += [[22, "RUNNING", [], None, '{"x": "float:0.75"}'], [23, "RUNNING", [], None, "{}"]]
        async with Sampler() as sampler:
            assert 0.0 <= (await sampler.ask(question(trials=0) | {"trials": told}))["x"] <= 1.0

    async def test_a_server_without_the_package_says_so_and_refuses_the_sweep(self, platform):
        with pytest.raises(PackageMissing, match="'no_such_package'"):
            Sampler(package="no_such_package").require()

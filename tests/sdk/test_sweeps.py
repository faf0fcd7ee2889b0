"""The client against sweeps: the loop of a worker, what it tells, and how spaces are written."""

import asyncio
import math
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import optuna
import pytest
from sqlalchemy import update

from mlops_platform.sdk import AsyncPlatform, Platform
from mlops_platform.sdk.errors import Conflict, InvalidRequest
from mlops_platform.sdk.settings import Service
from mlops_platform.sdk.sweeps import Heartbeat, TrialPruned, read_config, read_objectives, read_space
from mlops_platform.tracking.tables import run_leases
from mlops_platform.tracking.tasks import fail_silent_runs
from tests.conftest import Platform as RunningPlatform
from tests.factories.serving import serving
from tests.factories.waiting import until

GRID = {"a": [1, 2, 3]}


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    """A client with the key of an admin of a fresh project."""
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


async def states(sweep):
    return [trial.state for trial in await sweep.trials().all()]


class TestWorking:
    async def test_the_loop_gives_every_trial_and_ends_with_the_sweep(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid")
        seen = []
        async for trial in sweep:
            seen.append(trial.params["a"])
            trial.run.log_metric("loss", trial.params["a"])
        assert seen == [1, 2, 3]
        assert await states(sweep) == ["COMPLETE"] * 3
        assert (await sweep.refresh()).status == "FINISHED"
        best = await sweep.best()
        assert best is not None
        assert (best.parameters, best.values) == ({"a": 1}, [1.0])

    async def test_an_objective_is_called_for_trial_after_trial(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep(
            "churn", {"x": {"min": -5.0, "max": 5.0}}, objective="acc", goal="maximize", seed=1
        )

        async def objective(trial):
            return -((trial.params["x"] - 2) ** 2)

        assert await sweep.run(objective, trials=4) == 4
        history = await sweep.history()
        assert (history.goal, len(history.items)) == ("maximize", 4)
        assert [point.best for point in history.items] == sorted(point.best for point in history.items)
        assert set(await sweep.importance()) == {"x"}

    async def test_several_workers_share_the_work(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep("churn", {"a": list(range(6))}, objective="loss", method="grid")
        joined = [sweep, await sdk.tracking.open_sweep(sweep.id), await sdk.tracking.open_sweep(sweep.id)]

        async def objective(trial):
            return trial.params["a"]

        done = await asyncio.gather(*(worker.run(objective) for worker in joined))
        assert sum(done) == 6
        assert sorted(trial.parameters["a"] for trial in await sweep.trials().all()) == list(range(6))

    async def test_an_error_fails_the_trial_and_reaches_the_caller_unless_it_is_expected(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid")

        async def broken(trial):
            raise ZeroDivisionError(f"at {trial.number}")

        with pytest.raises(ZeroDivisionError, match="at 0"):
            await sweep.run(broken)
        assert await sweep.run(broken, catch=(ZeroDivisionError,)) == 2
        trials = await sweep.trials().all()
        assert [(trial.state, trial.reason) for trial in trials] == [
            ("FAILED", f"ZeroDivisionError: at {number}") for number in range(3)
        ]

    async def test_a_trial_that_does_badly_is_pruned(self, sdk: AsyncPlatform):
        pruner = {"kind": "median", "startup_trials": 1}
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid", pruner=pruner)
        stopped_at = {}

        async def objective(trial):
            for step in range(3):
                trial.report(trial.params["a"] + step, step)
                if await trial.should_prune():
                    stopped_at[trial.params["a"]] = step
                    trial.prune()

        assert await sweep.run(objective) == 3
        assert stopped_at == {2: 0, 3: 0}
        assert await states(sweep) == ["COMPLETE", "PRUNED", "PRUNED"]
        run = await sdk.tracking.get_run((await sweep.trials().all())[1].run_id)
        assert (run.status, run.metrics) == ("KILLED", {"loss": 2.0})

    async def test_who_is_interrupted_gives_the_point_back(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid")
        trial = await sweep.ask()
        assert trial is not None
        with pytest.raises(KeyboardInterrupt):
            async with trial:
                raise KeyboardInterrupt
        again = await sweep.ask()
        assert again is not None
        assert (again.params, again.info.attempt) == ({"a": 1}, 2)
        await again.tell(1.0)

    async def test_runs_that_are_started_within_a_trial_know_it(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid")
        trial = await sweep.ask()
        assert trial is not None
        assert sdk.tracking.active_run() is trial.run
        await trial.tell(1.0)
        assert sdk.tracking.active_run() is None

    async def test_a_trial_beats_and_learns_that_it_was_given_away(self, sdk: AsyncPlatform, monkeypatch):
        monkeypatch.setattr("mlops_platform.sdk._async.sweeps.BEAT_SECONDS", 0.02)
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid")
        trial = await sweep.ask()
        assert trial is not None
        first = (await sdk.tracking.heartbeat(trial.run.id)).last_heartbeat_at

        async def has_beaten():
            response = await sdk.tracking._client.request("GET", f"/api/runs/{trial.run.id}/heartbeat")
            return response.json()["last_heartbeat_at"] > first.isoformat()

        await until(has_beaten)
        await sdk.tracking.update_run(trial.run.id, status="KILLED")

        async def is_lost():
            return trial.is_lost

        await until(is_lost)
        other = await sweep.ask()
        assert other is not None
        with pytest.raises(Conflict, match="handed out again"):
            await trial.tell(1.0)
        trial.abandon()
        await other.tell(1.0)

    async def test_a_sweep_is_stopped_resumed_and_listed(self, sdk: AsyncPlatform):
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="random", max_trials=1, name="s")
        assert (await sweep.stop("enough")).status_reason == "enough"
        assert await sweep.ask() is None
        assert (await sweep.resume(max_trials=2)).size == 2
        assert [found.name async for found in await sdk.tracking.sweeps("churn", status="RUNNING")] == ["s"]
        assert "s" in sweep._repr_html_()

    async def test_what_is_wrong_with_a_space_is_said(self, sdk: AsyncPlatform):
        with pytest.raises(InvalidRequest, match="'min' above its 'max'"):
            await sdk.tracking.sweep("churn", {"x": {"min": 2, "max": 1}}, objective="loss")

    async def test_the_sweep_records_what_it_was_started_with(self, sdk: AsyncPlatform):
        sdk.tracking._settings = replace(sdk.tracking._settings, capture=True)
        sweep = await sdk.tracking.sweep("churn", GRID, objective="loss", method="grid", seed=3)
        assert await (await sdk.tracking.resume_run(sweep.id)).flush()
        listed = [entry.path async for entry in sdk.tracking.artifacts(sweep.id)]
        assert listed == ["reproduction"]

    async def test_a_sweep_outlives_the_one_who_started_it(self, sdk_for, platform: RunningPlatform):
        key, _ = await platform.key(await platform.project())
        async with sdk_for(key) as creator:
            creator.tracking._settings = replace(creator.tracking._settings, capture=True)
            sweep = await creator.tracking.sweep("churn", GRID, objective="loss", method="grid", heartbeat_seconds=60)
        async with platform.runtime.database.write() as session:
            later = update(run_leases).values(due_at=datetime.now(UTC) - timedelta(hours=1))
            await session.execute(later.where(run_leases.c.run_id == sweep.id))
        await fail_silent_runs(platform.runtime, None)
        async with sdk_for(key) as worker:
            assert (await worker.tracking.get_run(sweep.id)).status == "RUNNING"
            trial = await (await worker.tracking.open_sweep(sweep.id)).ask()
            assert trial is not None
            await trial.tell(1.0)


class TestSynchronously:
    @pytest.fixture
    async def sweep_id(self, apps, platform: RunningPlatform, settings_for):
        """A sweep on services that listen, and a way to connect to them."""
        key, _ = await platform.key(await platform.project())
        async with serving(apps) as served:
            urls = {Service(name): address for name, address in served.items()}
            self.settings = settings_for("http://127.0.0.1:1", urls=urls, credential=key)
            async with AsyncPlatform(settings=self.settings) as client:
                yield (await client.tracking.sweep("churn", {"a": list(range(8))}, objective="loss", method="grid")).id

    def work(self, sweep_id):
        with Platform(settings=self.settings) as client:
            tried = []
            for trial in client.tracking.open_sweep(sweep_id):
                with trial:
                    trial.run.log_metric("loss", trial.params["a"])
                    tried.append(trial.params["a"])
            return tried

    async def test_threads_share_a_grid_without_repeats(self, sweep_id):
        shares = await asyncio.gather(*(asyncio.to_thread(self.work, sweep_id) for _ in range(4)))
        assert sorted(value for share in shares for value in share) == list(range(8))

    async def test_a_loop_that_is_left_gives_its_trial_back_in_time(self, sweep_id):
        def leave():
            with Platform(settings=self.settings) as client:
                for trial in client.tracking.open_sweep(sweep_id):
                    left.append((trial.info.state, "mlops-heartbeat" in {thread.name for thread in threading.enumerate()}))
                    break

        left: list[tuple[str, bool]] = []
        await asyncio.to_thread(leave)
        assert left == [("RUNNING", True)]
        await until(lambda: all(thread.name != "mlops-heartbeat" for thread in threading.enumerate()))


class TestSpaces:
    def test_shorthand(self):
        written = {"a": [1, "x"], "b": range(2, 9, 2), "c": "fixed", "d": {"min": 0, "max": 1}, "e": range(3, 0, -1)}
        assert read_space(written) == {
            "a": {"values": [1, "x"]},
            "b": {"min": 2, "max": 8, "step": 2},
            "c": {"value": "fixed"},
            "d": {"min": 0, "max": 1},
            "e": {"min": 1, "max": 3},
        }

    def test_distributions_of_optuna(self):
        written = {
            "lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
            "drop": optuna.distributions.FloatDistribution(0.0, 0.5, step=0.1),
            "layers": optuna.distributions.IntDistribution(1, 9, step=2),
            "width": optuna.distributions.IntDistribution(8, 512, log=True),
            "opt": optuna.distributions.CategoricalDistribution(["adam", None]),
        }
        assert read_space(written) == {
            "lr": {"min": 1e-5, "max": 1e-1, "log": True},
            "drop": {"min": 0.0, "max": 0.5, "step": 0.1},
            "layers": {"min": 1, "max": 9, "step": 2},
            "width": {"min": 8, "max": 512, "log": True},
            "opt": {"values": ["adam", None]},
        }

    def test_a_configuration_of_weights_and_biases(self):
        config = {
            "program": "train.py",
            "method": "bayes",
            "name": "sweep",
            "metric": {"name": "val_loss", "goal": "minimize", "target": 0.1},
            "run_cap": 20,
            "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 2},
            "parameters": {
                "epochs": {"value": 10},
                "batch": {"values": [16, 32]},
                "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1},
                "old": {"distribution": "log_uniform", "min": 0, "max": math.log(8)},
                "momentum": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1},
                "optimizer": {"parameters": {"beta": {"min": 0.5, "max": 0.9}}},
            },
        }
        assert read_config(config) == {
            "method": "tpe",
            "name": "sweep",
            "objectives": [{"metric": "val_loss", "goal": "minimize", "target": 0.1}],
            "max_trials": 20,
            "pruner": {"kind": "asha", "min_resource": 3, "reduction_factor": 2},
            "parameters": {
                "epochs": {"value": 10},
                "batch": {"values": [16, 32]},
                "lr": {"min": 1e-4, "max": 1, "log": True, "type": "float"},
                "old": {"min": 1.0, "max": pytest.approx(8.0), "log": True, "type": "float"},
                "momentum": {"min": 0, "max": 1, "step": 0.1, "type": "float"},
                "optimizer": {"parameters": {"beta": {"min": 0.5, "max": 0.9}}},
            },
        }

    def test_brackets_from_the_longest_training(self):
        early = {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3}
        found = read_config({"parameters": {}, "early_terminate": early})
        assert found["pruner"] == {"kind": "asha", "min_resource": 3, "reduction_factor": 3}

    @pytest.mark.parametrize(
        ("parameters", "complaint"),
        [
            ({"x": {"distribution": "beta", "min": 0, "max": 1}}, "'beta' is none of"),
            ({"x": {"values": [1, 2], "probabilities": [0.1, 0.9]}}, "weighted"),
        ],
    )
    def test_what_is_not_searched_is_refused_by_name(self, parameters, complaint):
        with pytest.raises(ValueError, match=f"^x: .*{complaint}"):
            read_space(parameters)

    def test_an_early_termination_that_is_not_known_is_refused(self):
        with pytest.raises(ValueError, match="'envelope' is not known"):
            read_config({"parameters": {}, "early_terminate": {"type": "envelope"}})

    async def test_a_configuration_of_weights_and_biases_runs(self, sdk: AsyncPlatform):
        config = {"method": "grid", "metric": {"name": "acc", "goal": "maximize"}, "parameters": {"a": {"values": [1, 2]}}}
        sweep = await sdk.tracking.sweep("churn", config=config)

        async def objective(trial):
            return trial.params["a"]

        assert await sweep.run(objective) == 2
        best = await sweep.best()
        assert best is not None
        assert best.parameters == {"a": 2}

    def test_objectives(self):
        assert read_objectives({"loss": "minimize", "acc": "maximize"}, "minimize") == [
            {"metric": "loss", "goal": "minimize"},
            {"metric": "acc", "goal": "maximize"},
        ]
        assert read_objectives(["a", {"metric": "b", "target": 1}], "maximize") == [
            {"metric": "a", "goal": "maximize"},
            {"metric": "b", "target": 1},
        ]
        assert read_objectives({"metric": "b", "summary": "best"}, "minimize") == [{"metric": "b", "summary": "best"}]


def test_pruned_is_no_error_of_the_platform():
    assert issubclass(TrialPruned, Exception)


def test_a_heart_that_is_stopped_beats_no_more():
    beats = SimpleNamespace(count=0)

    def beat():
        beats.count += 1
        return False

    heart = Heartbeat(beat, 0.001)
    heart._thread.join(5)
    assert beats.count == 1
    heart.stop()

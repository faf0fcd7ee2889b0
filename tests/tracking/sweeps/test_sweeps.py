import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.events.tables import events
from mlops_platform.tracking.tables import run_leases, sweeps
from mlops_platform.tracking.tasks import fail_silent_runs
from tests.conftest import Caller, Platform
from tests.factories.sweeps import GRID, LINE, LOSS, a_sweep, a_trial, ask, get, quadratic, tell, worked
from tests.factories.tracking import an_experiment, log

SERVICE = "experiment-tracking"
CELLS = [(a, b) for a in (1, 2, 3) for b in ("x", "y")]


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


def cell(trial):
    return trial["parameters"]["a"], trial["parameters"]["b"]


async def silence(platform, run_id):
    """Let the worker of a run die."""
    async with platform.runtime.database.write() as session:
        earlier = datetime.now(UTC) - timedelta(hours=1)
        await session.execute(update(run_leases).where(run_leases.c.run_id == run_id).values(due_at=earlier))
    await fail_silent_runs(platform.runtime, None)


async def run_of(caller, run_id):
    return (await caller.http.get(f"/api/runs/{run_id}")).json()


class TestCreating:
    async def test_a_sweep_is_a_run_and_its_trials_are_runs_below_it_with_the_point_as_parameters(self, ada):
        experiment_id = await an_experiment(ada)
        sweep_id = await a_sweep(ada, experiment_id, name="lr search", tags={"team": "vision"})
        trial = await a_trial(ada, sweep_id)
        parent, child = await run_of(ada, sweep_id), await run_of(ada, trial["run_id"])
        assert (parent["run_name"], parent["status"], parent["experiment_id"]) == ("lr search", "RUNNING", experiment_id)
        assert parent["tags"] == {"team": "vision", "mlops.sweep": "grid"}
        assert (child["parent_run_id"], child["parameters"], child["status"]) == (sweep_id, {"a": 1, "b": "x"}, "RUNNING")
        assert (child["run_name"], child["experiment_id"]) == ("lr search #0", experiment_id)

    async def test_a_sweep_says_what_it_searches_and_where_its_trials_stand(self, ada):
        sweep_id = await a_sweep(ada, seed=7, max_trials=4)
        first, second = await a_trial(ada, sweep_id), await a_trial(ada, sweep_id)
        await tell(ada, sweep_id, first["run_id"], 0.5)
        sweep = await get(ada, sweep_id)
        assert (sweep["method"], sweep["seed"], sweep["size"], sweep["max_trials"]) == ("grid", 7, 4, 4)
        assert sweep["parameters"] == GRID
        assert sweep["trials"] == {"COMPLETE": 1, "RUNNING": 1}
        assert sweep["objectives"] == [{"metric": "loss", "goal": "minimize", "summary": "last", "target": None}]
        assert second["number"] == 1

    async def test_the_order_of_the_parameters_and_the_types_of_their_values_are_kept(self, ada):
        parameters = {"zz": {"values": [1, 1.0, True, "1", None, [1, 2]]}, "a": {"min": 1, "max": 2}}
        sweep_id = await a_sweep(ada, parameters=parameters)
        trials = await worked(ada, sweep_id, lambda _: 0.0)
        seen = [(trial["parameters"]["zz"], trial["parameters"]["a"]) for trial in trials]
        expected = [(value, a) for value in (1, 1.0, True, "1", None, [1, 2]) for a in (1, 2)]
        assert [(type(zz), zz, a) for zz, a in seen] == [(type(zz), zz, a) for zz, a in expected]
        assert list((await get(ada, sweep_id))["parameters"]) == ["zz", "a"]

    async def test_it_is_audited_and_told_as_an_event(self, ada, platform):
        sweep_id = await a_sweep(ada)
        async with platform.runtime.database.read() as session:
            mine = audit_entries.c.resource.endswith(f":run:{sweep_id}")
            audited = await session.all(select(audit_entries.c.action).where(mine))
            told = await session.all(select(events.c.type).where(events.c.subject.endswith(f":run:{sweep_id}")))
        assert {row.action for row in audited} == {"run.created", "sweep.created"}
        assert {row.type for row in told} == {"run.created", "sweep.created"}

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"parameters": {"x": {"min": 0.0, "max": 1.0}}}, "parameters.x"),
            ({"parameters": {f"p{n}": {"values": list(range(10))} for n in range(5)}}, "parameters"),
            ({"parameters": {"x": {"min": 2, "max": 1}}}, "parameters.x"),
            ({"parameters": {"x": {"values": [1, 1]}}}, "parameters.x"),
            ({"parameters": {"x": {"values": [{"a": 1}]}}}, "parameters.x"),
            ({"parameters": {"x": {"values": [1], "when": {"y": [1]}}}}, "parameters.x"),
            ({"parameters": {"x": {}}}, "parameters.x"),
            ({"parameters": {}}, "parameters"),
            ({"objectives": []}, "objectives"),
            ({"objectives": [{"metric": "loss"}, {"metric": "loss"}]}, "objectives"),
            ({"objectives": [{"metric": "a"}, {"metric": "b"}], "pruner": {"kind": "median"}}, "pruner"),
            ({"pruner": {"kind": "hyperband"}}, "pruner.max_resource"),
            ({"method": "tpe", "max_trials": 10_000, "parameters": {f"p{n}": LINE["x"] for n in range(40)}}, "max_trials"),
            ({"max_trials": 10_001}, "max_trials"),
            ({"seed": -1}, "seed"),
        ],
    )
    async def test_what_makes_no_sense_is_refused_by_name(self, ada, change, field):
        body = {"experiment_id": await an_experiment(ada), "method": "grid", "parameters": GRID, "objectives": LOSS}
        response = await ada.http.post("/api/sweeps", json=body | change)
        assert response.status_code == 422, response.text
        assert field in {error["field"].removeprefix("body.") for error in response.json()["errors"]}
        assert (await ada.http.get("/api/sweeps")).json()["items"] == []

    async def test_an_experiment_that_is_not_there_or_put_away_takes_none(self, ada):
        body = {"method": "grid", "parameters": GRID, "objectives": LOSS}
        missing = await ada.http.post("/api/sweeps", json=body | {"experiment_id": "0" * 32})
        assert (missing.status_code, missing.json()["code"]) == (404, "experiment_not_found")
        experiment_id = await an_experiment(ada)
        await ada.http.post(f"/api/experiments/{experiment_id}/archive")
        archived = await ada.http.post("/api/sweeps", json=body | {"experiment_id": experiment_id})
        assert (archived.status_code, archived.json()["code"]) == (409, "experiment_archived")


class TestGrid:
    async def test_every_cell_is_tried_once_and_then_the_sweep_is_over(self, ada):
        sweep_id = await a_sweep(ada)
        trials = await worked(ada, sweep_id, lambda parameters: parameters["a"])
        assert [cell(trial) for trial in trials] == CELLS
        sweep = await get(ada, sweep_id)
        assert (sweep["status"], sweep["status_reason"]) == ("FINISHED", "All 6 points were tried.")
        answer = await ask(ada, sweep_id)
        assert (answer["trial"], answer["status"]) == (None, "FINISHED")

    async def test_workers_who_ask_at_once_never_get_the_same_cell(self, ada):
        sweep_id = await a_sweep(ada)
        answers = await asyncio.gather(*(ask(ada, sweep_id) for _ in range(9)))
        trials = [answer["trial"] for answer in answers if answer["trial"] is not None]
        assert sorted(cell(trial) for trial in trials) == CELLS
        assert sorted(trial["number"] for trial in trials) == list(range(6))
        waiting = [answer for answer in answers if answer["trial"] is None]
        assert {(answer["status"], answer["retry_after_seconds"]) for answer in waiting} == {("RUNNING", 5.0)}

    async def test_several_workers_together_try_each_cell_once(self, ada):
        sweep_id = await a_sweep(ada)
        shares = await asyncio.gather(*(worked(ada, sweep_id, lambda _: 1.0) for _ in range(4)))
        assert sorted(cell(trial) for share in shares for trial in share) == CELLS
        assert (await get(ada, sweep_id))["trials"] == {"COMPLETE": 6}

    async def test_a_repeated_request_gets_the_same_trial(self, ada):
        sweep_id = await a_sweep(ada)
        key = {"Idempotency-Key": "worker-1-first"}
        answers = [await ada.http.post(f"/api/sweeps/{sweep_id}/ask", json={}, headers=key) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert (await get(ada, sweep_id))["trials"] == {"RUNNING": 1}

    async def test_the_cell_of_a_worker_that_died_is_handed_out_again(self, ada, platform):
        sweep_id = await a_sweep(ada)
        lost = await a_trial(ada, sweep_id, writer="w1", heartbeat_seconds=60)
        await a_trial(ada, sweep_id)
        await silence(platform, lost["run_id"])
        again = await a_trial(ada, sweep_id)
        assert cell(again) == cell(lost)
        assert (again["number"], again["slot"], again["attempt"]) == (2, lost["slot"], 2)
        assert (await get(ada, sweep_id))["trials"] == {"LOST": 1, "RUNNING": 2}
        assert (await run_of(ada, lost["run_id"]))["status"] == "FAILED"

    async def test_a_cell_whose_workers_always_die_is_given_up_after_so_many_attempts(self, ada, platform):
        sweep_id = await a_sweep(ada, parameters={"a": {"value": 1}}, max_attempts=2)
        for attempt in (1, 2):
            trial = await a_trial(ada, sweep_id)
            assert trial["attempt"] == attempt
            await silence(platform, trial["run_id"])
        answer = await ask(ada, sweep_id)
        assert (answer["trial"], answer["status"]) == (None, "FINISHED")

    async def test_a_cell_that_was_told_to_fail_is_not_tried_again(self, ada):
        sweep_id = await a_sweep(ada, parameters={"a": {"values": [1, 2]}})
        first = await a_trial(ada, sweep_id)
        await tell(ada, sweep_id, first["run_id"], outcome="FAILED", reason="out of memory")
        assert (await a_trial(ada, sweep_id))["parameters"] == {"a": 2}
        assert (await run_of(ada, first["run_id"]))["status_reason"] == "out of memory"

    async def test_the_cells_of_deleted_and_of_purged_trials_are_tried_again(self, ada):
        sweep_id = await a_sweep(ada)
        trials = [await a_trial(ada, sweep_id) for _ in range(3)]
        for trial in trials[:2]:
            await tell(ada, sweep_id, trial["run_id"], 1.0)
            await ada.http.delete(f"/api/runs/{trial['run_id']}")
        assert (await ada.http.post(f"/api/runs/{trials[0]['run_id']}/purge")).status_code == 200
        again = [await a_trial(ada, sweep_id) for _ in range(2)]
        assert [cell(trial) for trial in again] == [cell(trial) for trial in trials[:2]]

    async def test_parameters_that_a_choice_does_not_bring_are_not_in_the_cell(self, ada):
        parameters = {
            "optimizer": {"values": ["adam", "sgd"]},
            "sgd": {"when": {"optimizer": "sgd"}, "parameters": {"momentum": {"values": [0.0, 0.9]}}},
        }
        sweep_id = await a_sweep(ada, parameters=parameters)
        trials = await worked(ada, sweep_id, lambda _: 0.0)
        assert [trial["parameters"] for trial in trials] == [
            {"optimizer": "adam"},
            {"optimizer": "sgd", "sgd.momentum": 0.0},
            {"optimizer": "sgd", "sgd.momentum": 0.9},
        ]


class TestTelling:
    async def test_a_told_value_is_a_metric_of_the_run_and_the_run_has_ended(self, ada):
        sweep_id = await a_sweep(ada)
        trial = await a_trial(ada, sweep_id)
        told = await tell(ada, sweep_id, trial["run_id"], 0.25)
        assert (told["trial"]["state"], told["trial"]["values"], told["status"]) == ("COMPLETE", [0.25], "RUNNING")
        run = await run_of(ada, trial["run_id"])
        assert (run["status"], run["metrics"]) == ("FINISHED", {"loss": 0.25})

    async def test_a_value_that_was_logged_need_not_be_told(self, ada):
        sweep_id = await a_sweep(ada, objectives=[{"metric": "acc{split=val}", "goal": "maximize", "summary": "best"}])
        trial = await a_trial(ada, sweep_id)
        for step, value in enumerate((0.5, 0.9, 0.7)):
            await log(ada, trial["run_id"], {"acc": value, "step": step, "context": {"split": "val"}})
        assert (await tell(ada, sweep_id, trial["run_id"]))["trial"]["values"] == [0.9]

    async def test_a_value_that_was_logged_already_is_not_logged_twice(self, ada):
        sweep_id = await a_sweep(ada)
        trial = await a_trial(ada, sweep_id)
        await log(ada, trial["run_id"], {"loss": 0.5, "step": 3})
        await tell(ada, sweep_id, trial["run_id"], 0.5)
        points = await ada.http.get(f"/api/runs/{trial['run_id']}/metrics/loss")
        assert [(point["step"], point["value"]) for point in points.json()["items"]] == [(3, 0.5)]

    async def test_a_trial_without_a_value_is_not_complete(self, ada):
        sweep_id = await a_sweep(ada)
        trial = await a_trial(ada, sweep_id)
        response = await ada.http.post(f"/api/sweeps/{sweep_id}/tell", json={"run_id": trial["run_id"]})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "values")
        assert (await run_of(ada, trial["run_id"]))["status"] == "RUNNING"

    async def test_a_trial_whose_value_is_nan_has_failed(self, ada):
        sweep_id = await a_sweep(ada)
        trial = await a_trial(ada, sweep_id)
        told = await tell(ada, sweep_id, trial["run_id"], "NaN")
        assert (told["trial"]["state"], told["trial"]["reason"]) == ("FAILED", "loss is NaN.")

    async def test_the_same_said_again_changes_nothing_and_another_outcome_is_refused(self, ada):
        sweep_id = await a_sweep(ada)
        trial = await a_trial(ada, sweep_id)
        first = await tell(ada, sweep_id, trial["run_id"], 0.5)
        assert await tell(ada, sweep_id, trial["run_id"], 0.7) == first
        body = {"run_id": trial["run_id"], "outcome": "FAILED"}
        other = await ada.http.post(f"/api/sweeps/{sweep_id}/tell", json=body)
        assert (other.status_code, other.json()["code"]) == (409, "trial_ended")

    async def test_a_trial_that_came_back_from_the_dead_counts_unless_its_point_was_given_away(self, ada, platform):
        sweep_id = await a_sweep(ada)
        late, later = await a_trial(ada, sweep_id), await a_trial(ada, sweep_id)
        await silence(platform, late["run_id"])
        assert (await tell(ada, sweep_id, late["run_id"], 0.5))["trial"]["state"] == "COMPLETE"
        await silence(platform, later["run_id"])
        assert cell(await a_trial(ada, sweep_id)) == cell(later)
        body = {"run_id": later["run_id"], "values": [0.5]}
        refused = await ada.http.post(f"/api/sweeps/{sweep_id}/tell", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "trial_ended")

    async def test_a_worker_that_resumes_its_run_after_its_point_was_given_away_has_lost_it(self, ada, platform):
        sweep_id = await a_sweep(ada)
        lost = await a_trial(ada, sweep_id)
        await silence(platform, lost["run_id"])
        again = await a_trial(ada, sweep_id)
        resumed = await ada.http.patch(f"/api/runs/{lost['run_id']}", json={"status": "RUNNING"})
        assert resumed.status_code == 200, resumed.text
        body = {"run_id": lost["run_id"], "values": [0.5]}
        refused = await ada.http.post(f"/api/sweeps/{sweep_id}/tell", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "trial_ended")
        assert (await tell(ada, sweep_id, again["run_id"], 0.7))["trial"]["state"] == "COMPLETE"
        assert (await get(ada, sweep_id))["trials"] == {"COMPLETE": 1, "RUNNING": 1}

    async def test_another_writer_cannot_end_a_trial(self, ada):
        sweep_id = await a_sweep(ada)
        trial = await a_trial(ada, sweep_id, writer="w1")
        body = {"run_id": trial["run_id"], "values": [1.0], "writer": "w2"}
        response = await ada.http.post(f"/api/sweeps/{sweep_id}/tell", json=body)
        assert (response.status_code, response.json()["code"]) == (409, "run_held")

    async def test_a_run_that_simply_ended_with_its_metric_is_a_complete_trial(self, ada):
        sweep_id = await a_sweep(ada, parameters={"a": {"value": 1}})
        trial = await a_trial(ada, sweep_id)
        await log(ada, trial["run_id"], {"loss": 0.5})
        await ada.http.patch(f"/api/runs/{trial['run_id']}", json={"status": "FINISHED"})
        assert [found["state"] for found in (await get(ada, sweep_id, "/trials"))["items"]] == ["COMPLETE"]
        assert (await ask(ada, sweep_id))["status"] == "FINISHED"

    async def test_a_run_that_is_no_trial_cannot_be_told(self, ada):
        sweep_id, other = await a_sweep(ada), await a_sweep(ada, await an_experiment(ada, "other"))
        trial = await a_trial(ada, other)
        response = await ada.http.post(f"/api/sweeps/{sweep_id}/tell", json={"run_id": trial["run_id"], "values": [1]})
        assert (response.status_code, response.json()["code"]) == (404, "trial_not_found")


class TestEnding:
    async def test_a_stopped_sweep_hands_out_nothing_until_it_is_resumed(self, ada):
        sweep_id = await a_sweep(ada)
        under_way = await a_trial(ada, sweep_id)
        stopped = await ada.http.post(f"/api/sweeps/{sweep_id}/stop", json={"reason": "enough"})
        assert (stopped.json()["status"], stopped.json()["status_reason"]) == ("KILLED", "enough")
        assert (await ask(ada, sweep_id))["trial"] is None
        assert (await tell(ada, sweep_id, under_way["run_id"], 1.0))["trial"]["state"] == "COMPLETE"
        assert (await ada.http.post(f"/api/sweeps/{sweep_id}/resume", json={})).json()["status"] == "RUNNING"
        assert (await a_trial(ada, sweep_id))["number"] == 1

    async def test_as_many_points_as_were_wished_for_are_tried_and_resuming_can_add_some(self, ada):
        sweep_id = await a_sweep(ada, method="random", parameters=LINE, max_trials=3)
        assert len(await worked(ada, sweep_id, quadratic)) == 3
        assert (await get(ada, sweep_id))["status"] == "FINISHED"
        await ada.http.post(f"/api/sweeps/{sweep_id}/resume", json={"max_trials": 5})
        assert len(await worked(ada, sweep_id, quadratic)) == 2

    async def test_a_value_that_reaches_the_target_ends_the_sweep(self, ada):
        sweep_id = await a_sweep(ada, objectives=[{"metric": "loss", "target": 2}])
        trials = await worked(ada, sweep_id, lambda parameters: 4 - parameters["a"])
        assert len(trials) == 3
        assert (await get(ada, sweep_id))["status_reason"] == "Trial 2 reached the target loss = 2."

    async def test_after_the_time_limit_nothing_is_handed_out(self, ada, platform):
        sweep_id = await a_sweep(ada, timeout_seconds=3600)
        await a_trial(ada, sweep_id)
        async with platform.runtime.database.write() as session:
            earlier = datetime.now(UTC) - timedelta(seconds=1)
            await session.execute(update(sweeps).where(sweeps.c.id == sweep_id).values(deadline=earlier))
        answer = await ask(ada, sweep_id)
        assert (answer["trial"], answer["status"], answer["reason"]) == (None, "FINISHED", "The time limit is reached.")

    async def test_a_deleted_sweep_hands_out_nothing_and_is_not_listed(self, ada):
        sweep_id = await a_sweep(ada)
        await ada.http.delete(f"/api/runs/{sweep_id}")
        response = await ada.http.post(f"/api/sweeps/{sweep_id}/ask", json={})
        assert (response.status_code, response.json()["code"]) == (409, "run_deleted")
        assert (await ada.http.get("/api/sweeps")).json()["items"] == []
        assert (await ada.http.post(f"/api/runs/{sweep_id}/purge")).status_code == 200
        assert (await ada.http.get(f"/api/sweeps/{sweep_id}")).status_code == 404

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.events.tables import events
from mlops_platform.core.identity import Role
from mlops_platform.tracking.tables import run_leases
from mlops_platform.tracking.tasks import fail_silent_runs
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def get(caller, run_id):
    return (await caller.http.get(f"/api/runs/{run_id}")).json()


async def beat(caller, run_id, **body):
    return await caller.http.post(f"/api/runs/{run_id}/heartbeat", json=body)


async def resume(caller, run_id, writer, **body):
    return await caller.http.post(f"/api/runs/{run_id}/resume", json={"writer": writer, **body})


async def silence(platform, run_id):
    """Let the run's heartbeat be overdue."""
    async with platform.runtime.database.write() as session:
        earlier = datetime.now(UTC) - timedelta(hours=1)
        await session.execute(update(run_leases).where(run_leases.c.run_id == run_id).values(due_at=earlier))


async def entries(platform, run_id, action):
    async with platform.runtime.database.read() as session:
        mine = audit_entries.c.resource.endswith(f":run:{run_id}")
        return await session.all(select(audit_entries).where(mine, audit_entries.c.action == action))


class TestHeartbeat:
    async def test_a_beat_moves_the_moment_at_which_the_run_counts_as_dead(self, ada):
        run_id = await a_run(ada, heartbeat_seconds=60, writer="w1")
        first = (await ada.http.get(f"/api/runs/{run_id}/heartbeat")).json()
        again = (await beat(ada, run_id, writer="w1")).json()
        assert (first["writer"], first["heartbeat_seconds"]) == ("w1", 60)
        assert again["due_at"] > first["due_at"]
        assert again["taken_at"] == first["taken_at"]

    async def test_a_silent_run_fails_at_its_last_beat_with_a_reason_and_is_counted_so(self, ada, platform):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id, heartbeat_seconds=60, writer="trainer-1")
        heard = (await ada.http.get(f"/api/runs/{run_id}/heartbeat")).json()["last_heartbeat_at"]
        await silence(platform, run_id)
        await fail_silent_runs(platform.runtime, None)
        run = await get(ada, run_id)
        assert (run["status"], run["end_time"]) == ("FAILED", heard)
        assert "'trainer-1'" in run["status_reason"]
        assert "60 s" in run["status_reason"]
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["runs"] == {"FAILED": 1}
        assert len(await entries(platform, run_id, "run.finished")) == 1
        assert (await ada.http.get(f"/api/runs/{run_id}/heartbeat")).json()["code"] == "lease_not_found"

    async def test_several_replicas_fail_a_silent_run_once(self, ada, platform):
        run_id = await a_run(ada, heartbeat_seconds=60)
        await silence(platform, run_id)
        await asyncio.gather(*(fail_silent_runs(platform.runtime, None) for _ in range(4)))
        assert len(await entries(platform, run_id, "run.finished")) == 1

    async def test_a_run_that_beats_or_never_promised_to_is_left_alone(self, ada, platform):
        beating = await a_run(ada, heartbeat_seconds=60)
        silent = await a_run(ada, (await get(ada, beating))["experiment_id"])
        await fail_silent_runs(platform.runtime, None)
        assert {(await get(ada, run_id))["status"] for run_id in (beating, silent)} == {"RUNNING"}

    async def test_a_beat_of_a_failed_run_says_why_it_failed_and_changes_nothing(self, ada, platform):
        run_id = await a_run(ada, heartbeat_seconds=60, writer="w1")
        await silence(platform, run_id)
        await fail_silent_runs(platform.runtime, None)
        response = await beat(ada, run_id, writer="w1")
        assert (response.status_code, response.json()["code"]) == (409, "run_fell_silent")
        assert "No heartbeat of 'w1'" in response.json()["detail"]
        assert (await get(ada, run_id))["status"] == "FAILED"

    async def test_another_writers_beat_is_refused_even_when_the_first_is_overdue(self, ada, platform):
        run_id = await a_run(ada, heartbeat_seconds=60, writer="w1")
        assert (await beat(ada, run_id, writer="w2")).json()["code"] == "run_held"
        await silence(platform, run_id)
        assert (await beat(ada, run_id, writer="w2")).json()["code"] == "run_held"

    async def test_a_run_that_promised_none_may_begin_to_beat(self, ada):
        run_id = await a_run(ada)
        assert (await beat(ada, run_id)).status_code == 422
        assert (await beat(ada, run_id, heartbeat_seconds=30)).json()["heartbeat_seconds"] == 30
        assert (await beat(ada, run_id)).status_code == 200

    async def test_a_scheduled_run_owes_its_heartbeats_from_its_start(self, ada, platform):
        run_id = await a_run(ada, status="SCHEDULED", heartbeat_seconds=60)
        assert (await beat(ada, run_id)).json()["code"] == "run_not_running"
        await ada.http.patch(f"/api/runs/{run_id}", json={"status": "RUNNING", "writer": "w1"})
        await silence(platform, run_id)
        await fail_silent_runs(platform.runtime, None)
        assert (await get(ada, run_id))["status"] == "FAILED"

    async def test_a_finished_run_is_never_failed_for_its_silence(self, ada, platform):
        run_id = await a_run(ada, heartbeat_seconds=60)
        await silence(platform, run_id)
        await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})
        await fail_silent_runs(platform.runtime, None)
        assert (await get(ada, run_id))["status"] == "FINISHED"


class TestResume:
    async def test_of_two_processes_that_resume_one_run_one_is_refused_and_told_who_has_it(self, ada):
        run_id = await a_run(ada, status="FAILED")
        answers = await asyncio.gather(*(resume(ada, run_id, f"writer-{n}", heartbeat_seconds=60) for n in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        holder = (await ada.http.get(f"/api/runs/{run_id}/heartbeat")).json()["writer"]
        for answer in answers:
            if answer.status_code == 409:
                assert answer.json()["code"] == "run_held"
                assert f"'{holder}'" in answer.json()["detail"]

    async def test_the_same_writer_may_resume_again(self, ada):
        run_id = await a_run(ada, status="KILLED")
        answers = [await resume(ada, run_id, "w1") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[1].json()["status"] == "RUNNING"

    async def test_a_run_failed_for_silence_is_resumed_without_its_reason_and_counted_as_running(self, ada, platform):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id, heartbeat_seconds=60, writer="w1")
        await silence(platform, run_id)
        await fail_silent_runs(platform.runtime, None)
        body = (await resume(ada, run_id, "w2")).json()
        assert (body["status"], body["end_time"], body["status_reason"]) == ("RUNNING", None, None)
        lease = (await ada.http.get(f"/api/runs/{run_id}/heartbeat")).json()
        assert (lease["writer"], lease["heartbeat_seconds"]) == ("w2", 60)
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["runs"] == {"RUNNING": 1}

    async def test_a_writer_that_is_overdue_loses_the_run(self, ada, platform):
        run_id = await a_run(ada, heartbeat_seconds=60, writer="w1")
        await silence(platform, run_id)
        assert (await resume(ada, run_id, "w2")).status_code == 200
        assert (await beat(ada, run_id, writer="w1")).json()["code"] == "run_held"

    async def test_a_writer_without_heartbeats_is_passed_over_only_on_purpose(self, ada):
        run_id = await a_run(ada, writer="w1")
        refused = await resume(ada, run_id, "w2")
        assert (refused.status_code, refused.json()["code"]) == (409, "run_held")
        assert "promised no heartbeat" in refused.json()["detail"]
        assert (await resume(ada, run_id, "w2", take_over=True)).status_code == 200

    async def test_who_lost_the_run_cannot_finish_it_in_his_own_name(self, ada):
        run_id = await a_run(ada, writer="w1")
        await resume(ada, run_id, "w2", take_over=True)
        finish = {"status": "FINISHED", "writer": "w1"}
        assert (await ada.http.patch(f"/api/runs/{run_id}", json=finish)).json()["code"] == "run_held"
        finish["writer"] = "w2"
        assert (await ada.http.patch(f"/api/runs/{run_id}", json=finish)).json()["status"] == "FINISHED"
        assert (await resume(ada, run_id, "w3")).status_code == 200

    async def test_a_deleted_run_is_not_resumed(self, ada):
        run_id = await a_run(ada, status="FAILED")
        await ada.http.delete(f"/api/runs/{run_id}")
        assert (await resume(ada, run_id, "w1")).json()["code"] == "run_deleted"


class TestGroupsAndChildren:
    async def test_runs_are_found_and_ordered_by_their_group(self, ada):
        experiment_id = await an_experiment(ada)
        made = {name: await a_run(ada, experiment_id, group=name) for name in ("b", "a")}
        alone = await a_run(ada, experiment_id)
        search = {"experiment_ids": [experiment_id], "filter": "group = 'a'"}
        found = (await ada.http.post("/api/runs/search", json=search)).json()["items"]
        assert [(run["id"], run["group"]) for run in found] == [(made["a"], "a")]
        search = {"experiment_ids": [experiment_id], "order_by": ["group ASC"]}
        found = (await ada.http.post("/api/runs/search", json=search)).json()["items"]
        assert [run["id"] for run in found] == [made["a"], made["b"], alone]

    async def test_an_empty_group_takes_a_run_out_of_its_group(self, ada):
        run_id = await a_run(ada, group="fold")
        assert (await ada.http.patch(f"/api/runs/{run_id}", json={"notes": "x"})).json()["group"] == "fold"
        assert (await ada.http.patch(f"/api/runs/{run_id}", json={"group": ""})).json()["group"] is None

    async def test_children_are_paged_and_leave_out_deleted_ones(self, ada):
        parent = await a_run(ada)
        experiment_id = (await get(ada, parent))["experiment_id"]
        children = [await a_run(ada, experiment_id, parent_run_id=parent, metrics={"n": n}) for n in range(4)]
        await ada.http.delete(f"/api/runs/{children[1]}")
        shown, token = [], None
        while True:
            parameters = {"page_size": 2, **({"page_token": token} if token else {})}
            page = (await ada.http.get(f"/api/runs/{parent}/children", params=parameters)).json()
            shown += [(run["id"], run["metrics"]["n"]) for run in page["items"]]
            if (token := page["next_page_token"]) is None:
                break
        assert shown == [(children[0], 0.0), (children[2], 2.0), (children[3], 3.0)]

    async def test_children_in_experiments_of_other_names_stay_hidden(self, ada, platform):
        parent = await a_run(ada, await an_experiment(ada, "open"))
        await a_run(ada, await an_experiment(ada, "secret"), parent_run_id=parent)
        limited = await platform.caller(SERVICE, Role.VIEWER, project=ada.project, pattern="open*")
        assert (await limited.http.get(f"/api/runs/{parent}/children")).json()["items"] == []


class TestCorrectParam:
    async def test_a_correction_is_kept_found_by_search_and_audited_with_its_reason(self, ada, platform):
        run_id = await a_run(ada, parameters={"lr": 10})
        body = {"key": "lr", "value": 0.1, "reason": "logged as a percentage"}
        response = await ada.http.patch(f"/api/runs/{run_id}/params", json=body)
        assert response.json()["parameters"] == {"lr": 0.1}
        found = (await ada.http.post("/api/runs/search", json={"filter": "params.lr < 1"})).json()["items"]
        assert [run["id"] for run in found] == [run_id]
        [entry] = await entries(platform, run_id, "run.param_corrected")
        assert entry.detail == {"key": "lr", "old": 10, "new": 0.1, "reason": "logged as a percentage"}
        async with platform.runtime.database.read() as session:
            mine = events.c.project_id == ada.project
            told = await session.all(select(events).where(mine, events.c.type == "run.param_corrected"))
        assert [row.data["new"] for row in told] == [0.1]

    async def test_what_was_never_logged_is_not_corrected(self, ada):
        run_id = await a_run(ada)
        body = {"key": "lr", "value": 1, "reason": "because"}
        response = await ada.http.patch(f"/api/runs/{run_id}/params", json=body)
        assert (response.status_code, response.json()["code"]) == (404, "param_not_found")

    @pytest.mark.parametrize("change", [{"reason": ""}, {"value": {"a": 1}}, {"value": "x" * 20_000}])
    async def test_a_correction_without_a_reason_or_with_no_single_value_is_refused(self, ada, change):
        run_id = await a_run(ada, parameters={"lr": 10})
        body = {"key": "lr", "value": 1, "reason": "because", **change}
        assert (await ada.http.patch(f"/api/runs/{run_id}/params", json=body)).status_code == 422
        assert (await get(ada, run_id))["parameters"] == {"lr": 10}

    async def test_a_run_takes_metrics_while_it_is_resumed(self, ada):
        run_id = await a_run(ada, status="FAILED")
        answers = await asyncio.gather(
            resume(ada, run_id, "w1"), *(log(ada, run_id, {"n": n, "step": n}) for n in range(5))
        )
        assert answers[0].status_code == 200
        assert sum(answer["stored"] for answer in answers[1:]) == 5

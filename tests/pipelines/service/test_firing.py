"""Schedules: one run for each instant, however many schedulers are alive."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.service.firing import Firing
from mlops_platform.pipelines.tasks.duties import fire_schedules
from tests.conftest import Caller, Platform
from tests.factories.pipelines import Paper, a_pipeline, a_task, set_aside_leftovers


@pytest.fixture
async def ada(platform: Platform, runtime: Runtime) -> Caller:
    async with runtime.database.write() as session:
        await session.execute(text("UPDATE pipelines.schedules SET is_paused = true"))
    await set_aside_leftovers(runtime)
    return await platform.caller("pipeline-orchestrator")


async def a_schedule(ada: Caller, runtime: Runtime, *, due_ago: timedelta = timedelta(0), **fields) -> None:
    """A schedule of every minute whose next instant was so long ago."""
    schedule = {"cron": "* * * * *", "overlap": "allow", "catch_up": "all", **fields}
    await a_pipeline(ada, a_task("a", value=1), schedule=schedule)
    async with runtime.database.write() as session:
        await session.execute(
            text(
                "UPDATE pipelines.schedules SET next_at = date_trunc('minute', now()) - make_interval(secs => :ago)"
                " WHERE project_id = CAST(:project AS uuid)"
            ),
            {"ago": due_ago.total_seconds(), "project": ada.project},
        )


async def runs_of(ada: Caller) -> list[dict]:
    return (await ada.http.get("/api/pipelines/p/runs")).json()["items"]


async def fire(runtime: Runtime) -> int:
    async with runtime.database.write() as session:
        return await Firing(session, runtime.clock).fire_due()


class TestFire:
    async def test_an_instant_makes_one_run_that_knows_it_and_the_next_is_in_the_future(self, ada, runtime):
        await a_schedule(ada, runtime, parameters={})
        assert await fire(runtime) == 1
        assert await fire(runtime) == 0
        (run,) = await runs_of(ada)
        assert (run["trigger"], run["state"], run["scheduled_for"][17:]) == ("schedule", "running", "00.000000Z")
        schedule = (await ada.http.get("/api/pipelines/p/schedule")).json()
        assert schedule["last_at"] == run["scheduled_for"] < schedule["next_at"]

    async def test_ten_schedulers_at_once_make_each_run_once(self, ada, runtime):
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=5))
        await asyncio.gather(*(fire(runtime) for _ in range(10)))
        instants = [run["scheduled_for"] for run in await runs_of(ada)]
        assert len(instants) == len(set(instants)) == 6

    async def test_a_schedule_that_is_set_back_does_not_repeat_an_instant(self, ada, runtime):
        await a_schedule(ada, runtime)
        await fire(runtime)
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=1))
        await fire(runtime)
        instants = [run["scheduled_for"] for run in await runs_of(ada)]
        assert len(instants) == len(set(instants)) == 2

    @pytest.mark.parametrize(("catch_up", "count"), [("skip", 1), ("latest", 1), ("all", 10)])
    async def test_missed_instants_follow_the_policy(self, ada, runtime, catch_up, count):
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=30), catch_up=catch_up, catch_up_limit=10)
        await fire(runtime)
        assert 1 <= len(await runs_of(ada)) <= count + (catch_up != "all")

    async def test_paused_and_deleted_ones_do_not_fire(self, ada, runtime):
        await a_schedule(ada, runtime)
        await ada.http.patch("/api/pipelines/p/schedule", json={"is_paused": True})
        assert await fire(runtime) == 0
        await a_schedule(ada, runtime)
        await ada.http.delete("/api/pipelines/p")
        assert await fire(runtime) == 0

    async def test_a_version_that_asks_for_more_does_not_stop_other_schedules(self, ada, runtime):
        await a_schedule(ada, runtime)
        await ada.http.post(
            "/api/pipelines", json={"name": "p", "tasks": [a_task("a")], "parameters": {"x": {"type": "string"}}}
        )
        assert await fire(runtime) == 1
        assert await runs_of(ada) == []
        assert await fire(runtime) == 0

    async def test_a_zone_that_is_not_known_here_does_not_stop_other_schedules(self, ada, runtime, platform):
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=1))
        async with runtime.database.write() as session:
            await session.execute(
                text("UPDATE pipelines.schedules SET time_zone = 'Mars/Base' WHERE project_id = CAST(:project AS uuid)"),
                {"project": ada.project},
            )
        other = await platform.caller("pipeline-orchestrator")
        await a_schedule(other, runtime)
        assert await fire(runtime) == 2
        assert (len(await runs_of(ada)), len(await runs_of(other))) == (0, 1)
        assert await fire(runtime) == 0


class TestInWhoseName:
    async def test_the_tasks_of_a_later_author_do_not_run_with_the_rights_of_who_set_the_schedule(
        self, ada, runtime, platform
    ):
        await a_schedule(ada, runtime)
        narrow = await platform.caller("pipeline-orchestrator", project=ada.project, scopes=("pipelines:*",))
        await a_pipeline(narrow, a_task("a", value=2))
        await fire(runtime)
        (run,) = await runs_of(ada)
        assert (run["version"], run["created_by"]) == (2, narrow.principal)
        (claimed,) = await Paper(runtime).claim()
        client = platform.client("model-registry", claimed.token)
        assert (await client.get("/api/models")).status_code == 403

    async def test_the_same_document_again_leaves_the_schedule_to_who_set_it(self, ada, runtime, platform):
        await a_schedule(ada, runtime)
        other = await platform.caller("pipeline-orchestrator", project=ada.project)
        await a_pipeline(other, a_task("a", value=1))
        await fire(runtime)
        assert [run["created_by"] for run in await runs_of(ada)] == [ada.principal]


class TestOverlap:
    async def test_skip_makes_no_run_while_one_is_open(self, ada, runtime):
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=3), overlap="skip")
        await fire(runtime)
        await a_schedule(ada, runtime, overlap="skip", due_ago=timedelta(minutes=-1))
        await fire(runtime)
        assert len(await runs_of(ada)) == 1

    async def test_queued_runs_follow_one_another_in_order(self, ada, runtime):
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=2), overlap="queue")
        await asyncio.gather(*(fire_schedules(runtime, None) for _ in range(4)))
        newest_first = await runs_of(ada)
        assert [run["state"] for run in newest_first] == ["queued", "queued", "running"]
        for run in reversed(newest_first):
            await ada.http.post(f"/api/pipeline-runs/{run['id']}/cancel")
            await fire_schedules(runtime, None)
        finals = await runs_of(ada)
        started = [run["started_at"] for run in reversed(finals) if run["started_at"]]
        assert started == sorted(started)
        assert len(started) == 3

    async def test_a_queued_run_can_be_cancelled(self, ada, runtime):
        await a_schedule(ada, runtime, due_ago=timedelta(minutes=1), overlap="queue")
        await fire_schedules(runtime, None)
        queued = next(run for run in await runs_of(ada) if run["state"] == "queued")
        response = await ada.http.post(f"/api/pipeline-runs/{queued['id']}/cancel")
        assert response.json()["state"] == "cancelled"
        await set_aside_leftovers(runtime)

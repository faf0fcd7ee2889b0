"""Claims, leases and fences, with workers that are only names: every interleaving is ours to choose."""

import asyncio
from random import Random

import pytest
from sqlalchemy import text

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.service.dispatch import ClaimedTask, Dispatcher
from tests.conftest import Caller, Platform
from tests.factories.pipelines import Paper, a_run, a_task, finished, set_aside_leftovers, the_task
from tests.pipelines.eventually import eventually


@pytest.fixture
async def ada(platform: Platform, runtime: Runtime) -> Caller:
    await set_aside_leftovers(runtime)
    return await platform.caller("pipeline-orchestrator")


async def let_leases_run_out(runtime: Runtime) -> int:
    async with runtime.database.write() as session:
        await session.execute(
            text("UPDATE pipelines.task_runs SET lease_until = now() - interval '1 s' WHERE lease_until > now()")
        )
    return await Dispatcher(runtime, 60.0, Random(0)).expire()


class TestFence:
    async def test_only_the_latest_attempt_records_its_result(self, ada, runtime):
        first, second = Paper(runtime), Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1))
        (early,) = await first.claim()
        assert await let_leases_run_out(runtime) == 1
        (late,) = await second.claim()
        assert (early.attempt, late.attempt) == (1, 2)
        assert not await first.end(early, result="stale")
        assert await second.end(late, result="good")
        assert not await first.end(early, result="stale")
        assert (await the_task(ada, run_id, "a"))["result"] == "good"

    async def test_the_same_ending_twice_counts_once(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1), a_task("b", value=1, depends_on=["a"]))
        (claimed,) = await paper.claim()
        assert [await paper.end(claimed, result=n) for n in range(2)] == [True, False]
        assert (await the_task(ada, run_id, "b"))["pending"] == 0

    async def test_a_lease_that_ran_out_but_was_not_reaped_may_still_be_used(self, ada, runtime):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        assert await paper.renew(claimed) is PipelineRunState.RUNNING
        assert await paper.end(claimed)

    async def test_a_renewal_of_what_somebody_else_has_is_refused(self, ada, runtime):
        first, second = Paper(runtime), Paper(runtime)
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await first.claim()
        await let_leases_run_out(runtime)
        (again,) = await second.claim()
        assert await first.renew(claimed) is None
        assert await second.renew(again) is PipelineRunState.RUNNING

    async def test_an_attempt_of_before_a_retry_of_the_run_is_refused(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        assert await paper.end(claimed, AttemptState.FAILED)
        await ada.http.post(f"/api/pipeline-runs/{run_id}/retry")
        assert not await paper.end(claimed, result="stale")
        assert (await the_task(ada, run_id, "a"))["state"] == "ready"

    async def test_cancelling_what_nobody_runs_ends_the_tokens_of_the_run_too(self, ada, runtime, platform):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1, retries=1))
        (claimed,) = await paper.claim()
        client = platform.client("pipeline-orchestrator", claimed.token)
        assert (await client.get(f"/api/pipeline-runs/{run_id}")).status_code == 200
        await paper.end(claimed, AttemptState.FAILED)
        assert (await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")).json()["state"] == "cancelled"

        async def is_refused():
            return (await client.get(f"/api/pipeline-runs/{run_id}")).status_code == 401

        await eventually(is_refused, within=5)

    async def test_a_task_lost_again_and_again_ends(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1))
        for _ in range(4):
            assert len(await paper.claim()) == 1
            await let_leases_run_out(runtime)
        assert await paper.claim() == []
        assert (await finished(ada, run_id))["state"] == "failed"


class TestFrozenTransaction:
    async def test_the_reaper_passes_over_a_run_that_a_frozen_worker_holds(self, ada, runtime):
        paper = Paper(runtime)
        frozen = await a_run(ada, a_task("a", value=1), name="frozen")
        other = await a_run(ada, a_task("a", value=1), name="other")
        assert len(await paper.claim(slots=2)) == 2
        async with runtime.database.write() as session:
            await session.execute(
                text("SELECT 1 FROM pipelines.pipeline_runs WHERE id = CAST(:id AS uuid) FOR UPDATE"), {"id": frozen}
            )
            assert await let_leases_run_out(runtime) == 1
        assert (await the_task(ada, other, "a"))["state"] == "retry_wait"
        assert await Dispatcher(runtime, 60.0, Random(0)).expire() == 1

    async def test_the_database_ends_a_transaction_that_falls_silent(self, ada, runtime):
        dispatcher = Dispatcher(runtime, 3.0, Random(0))

        async def fall_silent() -> None:
            async with dispatcher._transaction() as session:
                await asyncio.sleep(2.5)
                await session.scalar(text("SELECT 1"))

        with pytest.raises(DependencyUnavailable):
            await fall_silent()


class TestClaim:
    async def test_only_what_fits_together_is_taken(self, ada, runtime):
        await a_run(ada, *(a_task(f"t{n}", value=n, resources={"memory_mb": 40}) for n in range(5)))
        paper = Paper(runtime)
        assert len(await paper.claim(slots=5)) == 2
        assert len(await Paper(runtime).claim(slots=5, memory_mb=1000)) == 3

    async def test_the_authors_of_two_projects_get_their_own_tokens(self, ada, runtime, platform):
        eve = await platform.caller("pipeline-orchestrator")
        runs = {await a_run(ada, a_task("a", value=1)): ada, await a_run(eve, a_task("a", value=1)): eve}
        for claimed in await Paper(runtime).claim(slots=2):
            client = platform.client("pipeline-orchestrator", claimed.token)
            assert (await client.get("/api/pipeline-runs")).json()["items"][0]["id"] == claimed.run_id
            other = next(run for run in runs if run != claimed.run_id)
            assert (await client.get(f"/api/pipeline-runs/{other}")).status_code == 404


class Story:
    """Three workers do anything at any time to one run; what must never happen is asserted as it would."""

    def __init__(self, runtime: Runtime, chance: Random) -> None:
        self.runtime = runtime
        self.chance = chance
        self.papers = [Paper(runtime) for _ in range(3)]
        self.held: list[tuple[Paper, ClaimedTask]] = []
        self.latest: dict[str, int] = {}
        self.done: list[str] = []

    async def step(self) -> None:
        steps = [self.claim] * 4
        if self.held:
            steps += [self.end, self.end, self.end_and_say_it_again_later, self.fail, self.fall_silent]
        await self.chance.choice(steps)()

    async def claim(self) -> None:
        paper = self.chance.choice(self.papers)
        for claimed in await paper.claim(self.chance.randint(1, 3)):
            assert set(claimed.spec.depends_on) <= set(self.done), "claimed before what it waits for"
            assert claimed.task not in self.done, "claimed after it had succeeded"
            assert claimed.attempt == self.latest.get(claimed.task, 0) + 1
            self.latest[claimed.task] = claimed.attempt
            self.held.append((paper, claimed))

    async def end(self) -> None:
        await self._succeed(*self.held.pop(self.chance.randrange(len(self.held))))

    async def end_and_say_it_again_later(self) -> None:
        await self._succeed(*self.chance.choice(self.held))

    async def fail(self) -> None:
        paper, claimed = self.held.pop(self.chance.randrange(len(self.held)))
        await paper.end(claimed, AttemptState.FAILED)

    async def fall_silent(self) -> None:
        if self.chance.random() < 0.3:
            await let_leases_run_out(self.runtime)

    async def _succeed(self, paper: Paper, claimed: ClaimedTask) -> None:
        if await paper.end(claimed, result=claimed.attempt):
            assert claimed.attempt == self.latest[claimed.task], "a stale attempt recorded its result"
            assert claimed.task not in self.done, "a result was recorded twice"
            self.done.append(claimed.task)


class TestAnyInterleaving:
    @pytest.mark.parametrize("seed", range(12))
    async def test_every_task_is_recorded_once_after_all_that_it_waits_for(self, ada, runtime, seed):
        chance = Random(seed)
        names = [f"t{n}" for n in range(12)]
        tasks = [
            a_task(
                name,
                value=1,
                retries=100,
                retry_delay_seconds=0,
                depends_on=sorted({chance.choice(names[:n]) for _ in range(2)} if n else []),
            )
            for n, name in enumerate(names)
        ]
        run_id = await a_run(ada, *tasks)
        story = Story(runtime, chance)
        for _ in range(400):
            await story.step()
            run = (await ada.http.get(f"/api/pipeline-runs/{run_id}")).json()
            if run["state"] != "running":
                break
        if run["state"] == "succeeded":
            assert sorted(story.done) == sorted(names)
        else:
            # Only a task that was lost four times may end a run in another way.
            assert (run["state"], "failed" in run["task_counts"]) == ("failed", True)

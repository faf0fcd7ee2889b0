"""Claims, leases and fences, with workers that are only names: every interleaving is ours to choose."""

from random import Random

import pytest
from sqlalchemy import text
from tests.conftest import Caller, Platform
from tests.factories.pipelines import a_run, a_task, finished, set_aside_leftovers, the_task

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.repository.dispatch import Offer
from mlops_platform.pipelines.service.dispatch import ClaimedTask, Dispatcher
from mlops_platform.pipelines.service.settlement import Ending


@pytest.fixture
async def ada(platform: Platform, runtime: Runtime) -> Caller:
    await set_aside_leftovers(runtime)
    return await platform.caller("pipeline-orchestrator")


class Paper:
    """A worker on paper: it claims and ends when it is told to."""

    def __init__(self, runtime: Runtime, seed: int = 0) -> None:
        self.id = new_id()
        self.runtime = runtime
        self.dispatcher = Dispatcher(runtime, 60.0, Random(seed))

    async def claim(self, slots: int = 1, **room) -> list[ClaimedTask]:
        needs = {"cpus": 100.0, "memory_mb": 100, "gpus": 0} | room
        offer = Offer(worker_id=self.id, worker="paper", slots=slots, **needs)
        return list((await self.dispatcher.exchange([], [], offer)).claimed)

    async def end(self, claimed: ClaimedTask, state=AttemptState.SUCCEEDED, result=None) -> bool:
        """Whether the ending counted."""
        ending = Ending(claimed.task_run_id, claimed.attempt, state, result=result)
        return not (await self.dispatcher.exchange([ending], [], None)).refused

    async def renew(self, claimed: ClaimedTask) -> PipelineRunState | None:
        return (await self.dispatcher.renew(self.id, [claimed.fence])).get(claimed.fence)


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

    async def test_a_task_lost_again_and_again_ends(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1))
        for _ in range(4):
            assert len(await paper.claim()) == 1
            await let_leases_run_out(runtime)
        assert await paper.claim() == []
        assert (await finished(ada, run_id))["state"] == "failed"


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


class TestAnyInterleaving:
    @pytest.mark.parametrize("seed", range(12))
    async def test_every_task_succeeds_once_after_all_that_it_waits_for(self, ada, runtime, seed):
        chance = Random(seed)
        tasks = [
            a_task(
                f"t{n}",
                value=n,
                retries=100,
                retry_delay_seconds=0,
                depends_on=sorted({f"t{chance.randrange(n)}" for _ in range(2)}) if n else [],
            )
            for n in range(12)
        ]
        run_id = await a_run(ada, *tasks)
        papers = [Paper(runtime, seed) for _ in range(3)]
        held: list[tuple[Paper, ClaimedTask]] = []
        done: list[str] = []
        for _ in range(400):
            match chance.choice(["claim", "claim", "end", "end", "end", "fail", "again", "expire"]):
                case "claim":
                    paper = chance.choice(papers)
                    for claimed in await paper.claim(chance.randint(1, 3)):
                        assert set(claimed.spec.depends_on) <= set(done), "claimed before what it waits for"
                        assert claimed.task not in done, "claimed after it had succeeded"
                        held.append((paper, claimed))
                case "end" if held:
                    paper, claimed = held.pop(chance.randrange(len(held)))
                    if await paper.end(claimed, result=claimed.attempt):
                        done.append(claimed.task)
                case "fail" if held and chance.random() < 0.5:
                    paper, claimed = held.pop(chance.randrange(len(held)))
                    await paper.end(claimed, AttemptState.FAILED)
                case "again" if held:
                    paper, claimed = chance.choice(held)
                    if await paper.end(claimed, result=claimed.attempt):
                        done.append(claimed.task)
                case "expire" if chance.random() < 0.15:
                    await let_leases_run_out(runtime)
            run = (await ada.http.get(f"/api/pipeline-runs/{run_id}")).json()
            if run["state"] != "running":
                break
        assert len(done) == len(set(done)), "a result was recorded twice"
        if run["state"] == "succeeded":
            assert sorted(done) == sorted(task["name"] for task in tasks)
        else:
            assert "failed" in run["task_counts"], run

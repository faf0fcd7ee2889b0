"""Claims, leases and fences, with workers that are only names: every interleaving is ours to choose."""

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.repository import dispatch as sql
from mlops_platform.pipelines.repository.dispatch import Offer
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


async def set_lease(runtime: Runtime, claimed: ClaimedTask, left: float) -> None:
    async with runtime.database.write() as session:
        await session.execute(
            text("UPDATE pipelines.task_runs SET lease_until = now() + make_interval(secs => :left) WHERE id = :id"),
            {"left": left, "id": claimed.task_run_id},
        )


async def seconds_left(runtime: Runtime, claimed: ClaimedTask) -> Any:
    async with runtime.database.read() as session:
        statement = "SELECT CAST(extract(epoch FROM lease_until - now()) AS float) FROM pipelines.task_runs WHERE id = :id"
        return await session.scalar(text(statement), {"id": claimed.task_run_id})


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


class TestLease:
    async def test_a_lease_that_has_not_run_out_is_left_alone(self, ada, runtime):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        assert await Dispatcher(runtime, 60.0, Random(0)).expire() == 0
        assert await paper.end(claimed)

    async def test_a_claim_lasts_as_long_as_the_lease_and_a_renewal_begins_it_anew(self, ada, runtime):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        assert 55 < await seconds_left(runtime, claimed) <= 60
        await set_lease(runtime, claimed, 3.0)
        await paper.renew(claimed)
        assert 55 < await seconds_left(runtime, claimed) <= 60

    async def test_another_worker_cannot_renew_with_the_same_fence(self, ada, runtime):
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await Paper(runtime).claim()
        assert await Paper(runtime).renew(claimed) is None

    async def test_an_attempt_that_has_ended_has_no_lease(self, ada, runtime):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        await paper.end(claimed)
        assert await paper.renew(claimed) is None
        assert await seconds_left(runtime, claimed) is None
        assert await let_leases_run_out(runtime) == 0

    async def test_a_renewal_says_that_the_run_is_being_cancelled(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
        assert await paper.renew(claimed) is PipelineRunState.CANCELLING

    async def test_a_renewal_of_several_extends_those_that_are_still_held(self, ada, runtime):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1), a_task("b", value=1))
        one, two = await paper.claim(slots=2)
        await paper.end(one)
        assert set(await paper.dispatcher.renew(paper.id, [one.fence, two.fence])) == {two.fence}

    async def test_the_reaper_takes_the_longest_silent_first_and_no_more_than_it_is_told(self, ada, runtime):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1), a_task("b", value=1))
        one, two = await paper.claim(slots=2)
        await set_lease(runtime, one, -1.0)
        await set_lease(runtime, two, -9.0)
        reaper = Dispatcher(runtime, 60.0, Random(0))
        assert await reaper.expire(limit=1) == 1
        assert not await paper.end(two)
        assert await paper.end(one)

    async def test_what_was_lost_is_told_with_the_name_of_the_worker(self, ada, runtime):
        run_id = await a_run(ada, a_task("a", value=1))
        await Paper(runtime).claim()
        await let_leases_run_out(runtime)
        (attempt,) = (await the_task(ada, run_id, "a"))["attempts"]
        assert (attempt["state"], attempt["worker"], attempt["error"]["type"]) == ("lost", "paper", "WorkerLost")
        assert "'paper' fell silent" in attempt["error"]["message"]
        assert attempt["finished_at"] is not None


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

    async def test_the_limit_of_silence_ends_with_its_transaction(self, ada, runtime):
        """A connection goes back to the pool for requests that may take their time."""

        async def limits() -> set[str]:
            found = set()
            for _ in range(20):
                async with runtime.database.write() as session:
                    found.add(await session.scalar(text("SHOW idle_in_transaction_session_timeout")))
            return found

        before = await limits()
        for _ in range(20):
            await Dispatcher(runtime, 60.0, Random(0)).renew(new_id(), [(new_id(), 1)])
        assert await limits() == before


class TestClaim:
    async def test_only_what_fits_together_is_taken(self, ada, runtime):
        await a_run(ada, *(a_task(f"t{n}", value=n, resources={"memory_mb": 40}) for n in range(5)))
        paper = Paper(runtime)
        assert len(await paper.claim(slots=5)) == 2
        assert len(await Paper(runtime).claim(slots=5, memory_mb=1000)) == 3

    async def test_what_fits_exactly_is_taken(self, ada, runtime):
        needs = {"memory_mb": 40, "cpus": 2, "gpus": 1}
        await a_run(ada, *(a_task(f"t{n}", value=n, resources=needs) for n in range(3)))
        assert len(await Paper(runtime).claim(slots=3, memory_mb=80, cpus=4.0, gpus=2)) == 2
        assert len(await Paper(runtime).claim(slots=3, memory_mb=40, cpus=2.0, gpus=1)) == 1

    @pytest.mark.parametrize("scarce", [{"memory_mb": 79}, {"cpus": 3.5}, {"gpus": 1}])
    async def test_each_resource_bounds_what_is_taken_together(self, ada, runtime, scarce):
        needs = {"memory_mb": 40, "cpus": 2, "gpus": 1}
        await a_run(ada, *(a_task(f"t{n}", value=n, resources=needs) for n in range(2)))
        assert len(await Paper(runtime).claim(slots=2, **{"memory_mb": 1000, "cpus": 100.0, "gpus": 9} | scarce)) == 1

    @pytest.mark.parametrize("scarce", [{"memory_mb": 39}, {"cpus": 1.5}, {"gpus": 0}])
    async def test_a_task_that_is_too_large_does_not_stand_in_the_way_of_a_later_one(self, ada, runtime, scarce):
        await a_run(ada, a_task("large", value=1, resources={"memory_mb": 40, "cpus": 2, "gpus": 1}), name="first")
        await a_run(ada, a_task("small", value=1, resources={"memory_mb": 1, "cpus": 1}), name="second")
        room = {"memory_mb": 1000, "cpus": 100.0, "gpus": 9} | scarce
        assert [claimed.task for claimed in await Paper(runtime).claim(**room)] == ["small"]

    async def test_the_oldest_is_taken_first(self, ada, runtime):
        runs = [await a_run(ada, a_task("a", value=1), name=name) for name in ("first", "second", "third")]
        paper = Paper(runtime)
        assert [(await paper.claim())[0].run_id for _ in runs] == runs

    async def test_a_retry_is_taken_when_its_delay_is_over_and_not_before(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1, retries=1, retry_delay_seconds=1000))
        (claimed,) = await paper.claim()
        await paper.end(claimed, AttemptState.FAILED)
        assert (await the_task(ada, run_id, "a"))["state"] == "retry_wait"
        assert await paper.claim() == []
        async with runtime.database.write() as session:
            await session.execute(
                text("UPDATE pipelines.task_runs SET not_before = now() WHERE id = :id"), {"id": claimed.task_run_id}
            )
        assert [again.attempt for again in await paper.claim()] == [2]

    async def test_what_another_worker_is_claiming_is_passed_over_and_not_waited_for(self, ada, runtime):
        await a_run(ada, a_task("a", value=1), a_task("b", value=1))
        paper = Paper(runtime)
        async with runtime.database.write() as session:
            offer = Offer(worker_id=new_id(), worker="slow", slots=1, cpus=9.0, memory_mb=99, gpus=0)
            (taken,) = await sql.claim(session, offer, timedelta(seconds=60))
            async with asyncio.timeout(10):
                (other,) = await paper.claim(slots=2)
        assert {taken.task, other.task} == {"a", "b"}

    @pytest.mark.parametrize(
        ("patterns", "is_taken"),
        [
            (["user_code"], True),
            (["user_*"], True),
            (["user?code"], True),
            (["other", "user_code"], True),
            (["user.code"], False),
            (["user_cod_"], False),
            (["user%"], False),
            (["ser_code"], False),
            (["user"], False),
            (["user\\_code"], False),
        ],
    )
    async def test_a_worker_gets_only_tasks_of_the_modules_that_it_runs(self, ada, runtime, patterns, is_taken):
        await a_run(ada, a_task("a", value=1))
        assert len(await Paper(runtime).claim(allow=patterns)) == is_taken

    async def test_without_room_nothing_is_claimed(self, ada, runtime):
        await a_run(ada, a_task("a", value=1))
        assert await Paper(runtime).claim(slots=0) == []

    async def test_a_claim_opens_an_attempt_and_its_end_closes_it(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        task = await the_task(ada, run_id, "a")
        (attempt,) = task["attempts"]
        assert (task["state"], task["worker"], attempt["number"], attempt["state"]) == ("running", "paper", 1, "running")
        assert (attempt["finished_at"], task["not_before"]) == (None, None)
        await paper.end(claimed)
        task = await the_task(ada, run_id, "a")
        assert (task["attempts"][0]["state"], task["state"]) == ("succeeded", "succeeded")
        assert None not in {task["attempts"][0]["finished_at"], task["finished_at"]}

    async def test_a_second_attempt_keeps_when_the_task_began(self, ada, runtime):
        paper = Paper(runtime)
        run_id = await a_run(ada, a_task("a", value=1, retries=1, retry_delay_seconds=0))
        (claimed,) = await paper.claim()
        began = (await the_task(ada, run_id, "a"))["started_at"]
        await paper.end(claimed, AttemptState.FAILED)
        await paper.claim()
        task = await the_task(ada, run_id, "a")
        assert task["started_at"] == began
        assert task["attempts"][-1]["started_at"] != began

    async def test_the_token_of_a_run_ends_with_the_run(self, ada, runtime, platform):
        paper = Paper(runtime)
        await a_run(ada, a_task("a", value=1))
        (claimed,) = await paper.claim()
        client = platform.client("pipeline-orchestrator", claimed.token)
        assert (await client.get("/api/pipeline-runs")).status_code == 200
        await paper.end(claimed)

        async def refused() -> bool:
            return (await client.get("/api/pipeline-runs")).status_code == 401

        await eventually(refused, within=5)

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

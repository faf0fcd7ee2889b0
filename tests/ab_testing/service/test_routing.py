"""The snapshot and the queue: other replicas, outages, full buffers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from mlops_platform.ab_testing.errors import ABTestNotFound
from mlops_platform.ab_testing.service import routing as routing_module
from mlops_platform.ab_testing.service.routing import ExposureQueue, Routing
from mlops_platform.core.clock import FixedClock
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.errors import DependencyUnavailable
from tests.conftest import Caller, Platform
from tests.factories.ab_testing import a_test

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("ab-testing")


@pytest.fixture
def replica(platform):
    """What another process would have: its own snapshot and queue over the same database."""
    return Routing(platform.runtime.database, platform.runtime.clock)


class Away(Database):
    """A database that does not answer until it is told to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.is_away = True

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        if self.is_away:
            raise DependencyUnavailable("database")
        async with self.database.write() as session:
            yield session

    read = write


class TestSnapshot:
    async def test_a_test_made_elsewhere_is_found_at_its_first_request(self, ada, replica):
        await a_test(ada)
        plan = await replica.plan(ada.project, "model_v2_test")
        assert plan.definition.name == "model_v2_test"

    async def test_two_replicas_give_the_same_answers(self, ada, replica):
        await a_test(ada, traffic_share=0.7)
        plan = await replica.plan(ada.project, "model_v2_test")
        for i in range(50):
            response = await ada.http.get(f"/api/route?user_id=u{i}&experiment=model_v2_test")
            assert response.content == plan.route(f"u{i}")[1]

    async def test_a_change_made_elsewhere_comes_with_the_next_refresh(self, ada, replica):
        await a_test(ada)
        await replica.snapshot.refresh()
        await ada.http.post("/api/experiments/model_v2_test/pause")
        assert replica.snapshot.find(ada.project, "model_v2_test").route("u")[0] is not None
        await replica.snapshot.refresh()
        assert replica.snapshot.find(ada.project, "model_v2_test").route("u")[0] is None

    async def test_a_deletion_elsewhere_comes_with_the_next_refresh(self, ada, replica):
        await a_test(ada)
        await replica.snapshot.refresh()
        await ada.http.delete("/api/experiments/model_v2_test")
        await replica.snapshot.refresh()
        with pytest.raises(ABTestNotFound):
            await replica.plan(ada.project, "model_v2_test")

    async def test_an_old_state_never_replaces_a_newer_one(self, ada, replica):
        await a_test(ada)
        plan = await replica.plan(ada.project, "model_v2_test")
        paused = (await ada.http.post("/api/experiments/model_v2_test/pause")).json()
        await replica.snapshot.refresh()
        replica.snapshot.install(plan.definition, plan.revision)
        current = replica.snapshot.find(ada.project, "model_v2_test")
        assert current.definition.status.value == paused["status"] == "paused"

    async def test_a_change_that_skips_revisions_is_used_and_the_gap_is_loaded(self, ada, replica, platform):
        await a_test(ada, "first")
        await replica.snapshot.refresh()
        await a_test(ada, "second")
        await a_test(ada, "third")
        third = await Routing(platform.runtime.database, platform.runtime.clock).plan(ada.project, "third")
        replica.snapshot.install(third.definition, third.revision)
        assert replica.snapshot.find(ada.project, "third") is not None
        assert replica.snapshot.find(ada.project, "second") is None
        await replica.snapshot.refresh()
        assert replica.snapshot.find(ada.project, "second") is not None

    async def test_an_unrefreshed_snapshot_goes_on_answering(self, ada, platform):
        await a_test(ada)
        away = Away(platform.runtime.database)
        away.is_away = False
        routing = Routing(away, platform.runtime.clock)
        await routing.snapshot.refresh()
        away.is_away = True
        with pytest.raises(DependencyUnavailable):
            await routing.snapshot.refresh()
        assert (await routing.plan(ada.project, "model_v2_test")).route("u")[0] is not None

    async def test_a_known_test_is_routed_without_the_database(self, ada, platform):
        await a_test(ada)
        away = Away(platform.runtime.database)
        away.is_away = False
        routing = Routing(away, platform.runtime.clock)
        plan = await routing.plan(ada.project, "model_v2_test")
        away.is_away = True
        assert routing.answer(plan, "u")
        assert len(routing.exposures) == 1


class TestExposureQueue:
    async def test_a_unit_takes_one_place_however_often_it_comes(self, ada, replica):
        await a_test(ada)
        plan = await replica.plan(ada.project, "model_v2_test")
        for _ in range(100):
            replica.answer(plan, "u")
        assert len(replica.exposures) == 1

    async def test_an_outage_loses_nothing_that_fits(self, ada, platform):
        made = await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        away = Away(platform.runtime.database)
        queue = ExposureQueue(away, platform.runtime.clock)
        for i in range(20):
            queue.add(plan.definition, f"u{i}", 0)
        with pytest.raises(DependencyUnavailable):
            await queue.flush()
        queue.add(plan.definition, "u0", 0)
        queue.add(plan.definition, "late", 0)
        away.is_away = False
        await queue.flush()
        assert await exposures_of(platform, made["id"]) == {**{f"u{i}": 1 for i in range(1, 20)}, "u0": 2, "late": 1}

    async def test_a_full_queue_drops_and_counts_and_goes_on(self, ada, platform):
        await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        queue = ExposureQueue(Away(platform.runtime.database), platform.runtime.clock, limit=10)
        for i in range(25):
            queue.add(plan.definition, f"u{i}", 0)
        queue.add(plan.definition, "u0", 0)
        assert (len(queue), queue.dropped) == (10, 15)

    async def test_a_flush_that_is_cancelled_keeps_its_rows(self, ada, platform):
        await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")

        class Hanging(Away):
            @asynccontextmanager
            async def write(self) -> AsyncIterator[WriteSession]:
                await asyncio.Event().wait()
                async with super().write() as session:
                    yield session

        queue = ExposureQueue(Hanging(platform.runtime.database), platform.runtime.clock)
        queue.add(plan.definition, "u", 0)
        task = asyncio.create_task(queue.flush())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(queue) == 1

    async def test_writing_the_same_rows_twice_counts_once(self, ada, platform):
        made = await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        clock = FixedClock(NOON)
        for _ in range(2):
            queue = ExposureQueue(platform.runtime.database, clock)
            queue.add(plan.definition, "u", 0)
            await queue.flush()
        assert await exposures_of(platform, made["id"]) == {"u": 1}
        clock.moment += timedelta(seconds=1)
        queue.add(plan.definition, "u", 0)
        await queue.flush()
        assert await exposures_of(platform, made["id"]) == {"u": 2}

    async def test_a_unit_that_comes_again_waits_and_a_new_one_does_not(self, ada, platform):
        made = await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        clock = FixedClock(NOON)
        queue = ExposureQueue(platform.runtime.database, clock)
        for units in (["old"], ["old", "old", "new"], ["new"]):
            clock.moment += timedelta(seconds=1)
            for unit in units:
                queue.add(plan.definition, unit, 0)
            await queue.flush(repeats=False)
        assert await exposures_of(platform, made["id"]) == {"old": 1, "new": 1}
        await queue.flush()
        assert await exposures_of(platform, made["id"]) == {"old": 3, "new": 2}
        assert len(queue) == 0

    async def test_repeats_that_could_not_be_written_are_kept(self, ada, platform):
        made = await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        away, clock = Away(platform.runtime.database), FixedClock(NOON)
        away.is_away = False
        queue = ExposureQueue(away, clock)
        queue.add(plan.definition, "u", 0)
        await queue.flush()
        away.is_away = True
        for _ in range(2):
            clock.moment += timedelta(seconds=1)
            queue.add(plan.definition, "u", 0)
            with pytest.raises(DependencyUnavailable):
                await queue.flush()
        away.is_away = False
        await queue.flush(repeats=False)
        await queue.flush()
        assert await exposures_of(platform, made["id"]) == {"u": 3}

    async def test_what_is_remembered_is_bounded(self, ada, platform, monkeypatch):
        monkeypatch.setattr(routing_module, "REMEMBERED", 10)
        made = await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        clock = FixedClock(NOON)
        queue = ExposureQueue(platform.runtime.database, clock)
        for _ in range(3):
            clock.moment += timedelta(seconds=1)
            for i in range(25):
                queue.add(plan.definition, f"u{i}", 0)
            await queue.flush()
            assert len(queue._written) <= 10
        assert await exposures_of(platform, made["id"]) == {f"u{i}": 3 for i in range(25)}

    async def test_two_replicas_that_flush_the_same_units_at_once_do_not_deadlock(self, ada, platform):
        made = await a_test(ada)
        plan = platform.apps["ab-testing"].edge.state.snapshot.find(ada.project, "model_v2_test")
        queues = [ExposureQueue(platform.runtime.database, platform.runtime.clock) for _ in range(4)]
        for n, queue in enumerate(queues):
            units = [f"u{i}" for i in range(500)]
            for unit in units if n % 2 else reversed(units):
                queue.add(plan.definition, unit, 0)
        await asyncio.gather(*(queue.flush() for queue in queues))
        assert len(await exposures_of(platform, made["id"])) == 500


async def exposures_of(platform, test_id):
    async with platform.runtime.database.read() as session:
        rows = await session.all(
            text("SELECT unit_id, exposures FROM ab_testing.exposures WHERE test_id = CAST(:t AS uuid)"), {"t": test_id}
        )
    return {row.unit_id: row.exposures for row in rows}

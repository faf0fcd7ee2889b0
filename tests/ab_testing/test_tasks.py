import asyncio

import pytest
from sqlalchemy import text
from tests.conftest import Caller, Platform
from tests.factories.ab_testing import a_test, route

from mlops_platform.ab_testing.service.routing import Routing
from mlops_platform.ab_testing.tasks import keep_fresh, running


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("ab-testing")


async def units_of(platform, test_id):
    async with platform.runtime.database.read() as session:
        rows = await session.all(
            text("SELECT unit_id FROM ab_testing.exposures WHERE test_id = CAST(:t AS uuid)"), {"t": test_id}
        )
    return {row.unit_id for row in rows}


async def eventually(platform, condition):
    """Wait until an awaited condition holds."""
    async with asyncio.timeout(10):
        while not await condition():
            await platform.runtime.signals.wait("nothing sends this", 0.02)


async def test_exposures_are_written_without_being_asked(ada, platform):
    made = await a_test(ada)
    await route(ada, "u")
    await eventually(platform, lambda: units_of(platform, made["id"]))


async def test_a_stopping_process_writes_what_is_queued(ada, platform):
    made = await a_test(ada)
    async with running(platform.runtime) as routing:
        routing.answer(await routing.plan(ada.project, "model_v2_test"), "last")
    assert await units_of(platform, made["id"]) == {"last"}


async def test_another_replica_hears_of_a_change_within_seconds(ada, platform):
    await a_test(ada)
    async with running(platform.runtime) as routing:
        await routing.plan(ada.project, "model_v2_test")
        await ada.http.post("/api/experiments/model_v2_test/pause")

        async def is_paused():
            plan = routing.snapshot.find(ada.project, "model_v2_test")
            return plan is not None and plan.route("u")[0] is None

        await eventually(platform, is_paused)


async def test_a_failing_refresh_does_not_end_the_loop(ada, platform):
    routing = Routing(platform.runtime.database, platform.runtime.clock)
    calls: asyncio.Queue[None] = asyncio.Queue()

    async def broken():
        calls.put_nowait(None)
        raise RuntimeError("unforeseen")

    routing.snapshot.refresh = broken  # type: ignore[method-assign]  # a fault that no input produces
    task = asyncio.create_task(keep_fresh(routing))
    await calls.get()
    routing.wake()
    await asyncio.wait_for(calls.get(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

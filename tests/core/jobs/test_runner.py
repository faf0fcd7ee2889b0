import asyncio
import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from mlops_platform.core.audit import chain
from mlops_platform.core.audit.record import AuditEntry, record
from mlops_platform.core.clock import FixedClock
from mlops_platform.core.events.outbox import Event, append, new_event_id
from mlops_platform.core.identity import new_id
from mlops_platform.core.jobs import runner as module
from mlops_platform.core.jobs.runner import Runner
from mlops_platform.core.jobs.tables import duties
from mlops_platform.core.work.duties import EventHandler, Periodic
from tests.factories.waiting import until


@pytest.fixture
async def running(fresh_runtime):
    runners = []

    def start(*declared, runtime=fresh_runtime):
        runner = Runner(runtime, [(duty, None) for duty in declared])
        runner.start()
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        await runner.stop()


async def idle(runtime, state):
    """Nothing."""


async def row_of(runtime, name):
    async with runtime.database.read() as session:
        return await session.first(select(duties).where(duties.c.name == name))


class TestPeriodic:
    async def test_one_of_many_replicas_runs_it_at_a_time(self, running, fresh_runtime):
        under_way = most = runs = 0

        async def run(runtime, state):
            nonlocal under_way, most, runs
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.02)
            under_way -= 1
            runs += 1

        duty = Periodic(f"duty.{new_id()}", 0.01, run)
        for _ in range(4):
            running(duty)
        await until(lambda: runs >= 5)
        assert most == 1

    async def test_one_that_fails_is_tried_again(self, running, fresh_runtime):
        tries = 0

        async def run(runtime, state):
            nonlocal tries
            tries += 1
            if tries == 1:
                raise ValueError("once")

        running(Periodic(f"duty.{new_id()}", 0.01, run))
        await until(lambda: tries >= 2)

    async def test_the_claim_of_a_dead_replica_runs_out(self, running, fresh_runtime):
        ran = asyncio.Event()

        async def run(runtime, state):
            ran.set()

        duty = Periodic(f"duty.{new_id()}", 0.01, run)
        clock = FixedClock(fresh_runtime.clock.now())
        dead = Runner(fresh_runtime, [])
        assert await dead._claim(duty)
        other = Runner(dataclasses.replace(fresh_runtime, clock=clock), [])
        assert not await other._claim(duty)
        clock.moment += timedelta(seconds=61)
        assert await other._claim(duty)

    async def test_a_long_turn_keeps_its_claim(self, fresh_runtime, monkeypatch):
        monkeypatch.setattr(module, "_CLAIM_SECONDS", 0.2)
        runner, duty = Runner(fresh_runtime, []), Periodic(f"duty.{new_id()}", 0.01, idle)
        assert await runner._claim(duty)
        first = (await row_of(fresh_runtime, duty.name)).claimed_until

        async def long():
            async def renewed():
                return (await row_of(fresh_runtime, duty.name)).claimed_until > first

            await until(renewed)

        await runner._hold_while(duty, long())
        await runner._done(duty)
        assert (await row_of(fresh_runtime, duty.name)).claimed_until is None


class TestOwnDuties:
    async def test_events_are_placed_and_handled_and_the_audit_is_sealed_without_anybody_asking(
        self, running, fresh_runtime
    ):
        handled: list[int] = []
        family = f"t{new_id()}"

        async def handle(work, event):
            handled.append(event.data["n"])
            await work.audit("event.handled", event.subject)

        running(EventHandler(f"consumer.{family}", (f"{family}.*",), handle))
        async with fresh_runtime.database.write() as session:
            await append(
                session, [Event(new_event_id(), f"{family}.made", "s", new_id(), {"n": 1}, fresh_runtime.clock.now())]
            )
            await record(session, AuditEntry(None, "thing.made", "thing:1", fresh_runtime.clock.now()))
        await until(lambda: handled == [1])

        async def sealed():
            async with fresh_runtime.database.read() as session:
                found = await chain.verify(session, fresh_runtime.auth_keys.audit)
            return found.sealed >= 2 and not found.unsealed and found.problems == ()

        await until(sealed)
        await until(fresh_runtime.kept_anchor)

    async def test_an_outage_ends_no_duty(self, running, fresh_runtime):
        runs = 0

        async def run(runtime, state):
            nonlocal runs
            runs += 1

        duty = Periodic(f"duty.{new_id()}", 0.01, run)
        running(duty)
        await until(lambda: runs >= 1)
        await fresh_runtime.database.close()  # every pooled connection is gone
        before = runs
        async with fresh_runtime.database.write() as session:
            await session.execute(update(duties).where(duties.c.name == duty.name).values(due_at=fresh_runtime.clock.now()))
        await until(lambda: runs > before)

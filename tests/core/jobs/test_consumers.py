import asyncio
import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from mlops_platform.core.clock import FixedClock
from mlops_platform.core.db.database import Database
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.events.outbox import Event, append, new_event_id, place
from mlops_platform.core.events.tables import event_cursors, event_dead_letters, events
from mlops_platform.core.identity import new_id
from mlops_platform.core.jobs import consumers as module
from mlops_platform.core.jobs.consumers import deliver
from mlops_platform.core.work.duties import EventHandler


class Consumer:
    """A handler with a cursor and an event family of its own; `fails` says which events it cannot take."""

    def __init__(self, runtime):
        self.clock = FixedClock(runtime.clock.now())
        self.runtime = dataclasses.replace(runtime, clock=self.clock)
        self.family = f"t{new_id()}"
        self.calls: list[int] = []
        self.fails: dict[int, Exception] = {}
        self.handler = EventHandler(f"consumer.{self.family}", (f"{self.family}.*",), self.handle)

    async def handle(self, work, event):
        self.calls.append(event.data["n"])
        await work.emit(f"kept{self.family}.made", event.subject, event.data)
        if error := self.fails.get(event.data["n"]):
            raise error

    async def write(self, *numbers, family=None):
        async with self.runtime.database.write() as session:
            await append(session, [self.event(number, family or self.family) for number in numbers])
        async with self.runtime.database.write() as session:
            while await place(session):
                pass

    def event(self, number, family):
        return Event(new_event_id(), f"{family}.made", "s", new_id(), {"n": number}, self.clock.now())

    async def deliver(self):
        return await deliver(self.runtime, self.handler)

    async def deliver_all(self, minutes=60):
        """As the loop does, through all waiting times."""
        for _ in range(minutes):
            while await self.deliver():
                pass
            self.clock.moment += timedelta(minutes=1)

    async def kept(self):
        """What the handler's own transactions left behind."""
        async with self.runtime.database.read() as session:
            rows = await session.all(
                select(events.c.data).where(events.c.type == f"kept{self.family}.made").order_by(events.c.sequence)
            )
        return [row.data["n"] for row in rows]

    async def dead(self):
        mine = event_dead_letters.c.consumer == self.handler.consumer
        async with self.runtime.database.read() as session:
            return await session.all(select(event_dead_letters).where(mine))

    async def deliver_when_free(self):
        while not await self.deliver():  # noqa: ASYNC110  # a lock of the database has no event
            await asyncio.sleep(0.005)

    async def cursor_row(self):
        async with self.runtime.database.read() as session:
            return await session.first(select(event_cursors).where(event_cursors.c.consumer == self.handler.consumer))

    async def cursor(self):
        async with self.runtime.database.read() as session:
            return await session.scalar(
                select(event_cursors.c.position).where(event_cursors.c.consumer == self.handler.consumer)
            )


@pytest.fixture
def consumer(runtime):
    return Consumer(runtime)


class TestDelivery:
    async def test_events_come_in_order_once_while_nothing_fails(self, consumer):
        await consumer.write(*range(250))
        await consumer.deliver_all(1)
        await consumer.write(250)
        await consumer.deliver_all(1)
        assert consumer.calls == list(range(251))
        assert await consumer.kept() == list(range(251))

    async def test_the_cursor_passes_over_events_of_other_types(self, consumer):
        await consumer.write(*range(5), family=f"other{consumer.family}")
        assert not await consumer.deliver()
        async with consumer.runtime.database.read() as session:
            newest = await session.scalar(text("SELECT max(position) FROM core.events"))
        assert await consumer.cursor() >= newest - 5
        assert consumer.calls == []

    async def test_a_crash_repeats_the_batch_and_what_it_did_is_undone(self, consumer, monkeypatch):
        await consumer.write(1, 2, 3)
        consumer.fails[3] = SystemExit()
        with pytest.raises(SystemExit):
            await consumer.deliver()
        assert await consumer.kept() == []
        consumer.fails.clear()
        await consumer.deliver_all(1)
        assert await consumer.kept() == [1, 2, 3]
        assert consumer.calls == [1, 2, 3, 1, 2, 3]

    async def test_only_one_replica_at_a_time_has_the_cursor(self, consumer):
        await consumer.write(1)
        async with consumer.runtime.database.write() as session:
            await session.execute(
                text("INSERT INTO core.event_cursors (consumer, position) VALUES (:c, 0)"), {"c": consumer.handler.consumer}
            )
        async with consumer.runtime.database.write() as session:
            await session.execute(
                select(event_cursors).where(event_cursors.c.consumer == consumer.handler.consumer).with_for_update()
            )
            assert not await consumer.deliver()
        assert await consumer.deliver()


class TestPoison:
    async def test_after_five_times_it_is_set_aside_and_the_others_pass(self, consumer):
        consumer.fails[3] = ValueError("cannot take three")
        await consumer.write(*range(6))
        await consumer.deliver_all()
        assert await consumer.kept() == [0, 1, 2, 4, 5]
        (dead,) = await consumer.dead()
        assert "cannot take three" in dead.error

    async def test_the_very_first_event_of_a_consumer_may_be_poisonous(self, consumer):
        consumer.fails[0] = ValueError()
        await consumer.write(0, 1)
        assert await consumer.deliver()
        assert not await consumer.deliver()  # it waits before it tries again
        await consumer.deliver_all()
        assert await consumer.kept() == [1]
        assert len(await consumer.dead()) == 1

    async def test_replicas_that_fail_at_once_count_as_one_attempt(self, consumer, monkeypatch):
        """The cursor is free between the failure and its counting: the next replica runs into the same event."""
        consumer.fails[1] = ValueError()
        await consumer.write(1)
        replicas = asyncio.Barrier(5)
        count = module._count_failure

        async def count_together(*arguments):
            await replicas.wait()
            await count(*arguments)

        monkeypatch.setattr(module, "_count_failure", count_together)
        await asyncio.gather(*(consumer.deliver_when_free() for _ in range(5)))
        assert await consumer.dead() == []
        assert (await consumer.cursor_row()).failures == 1

    async def test_a_failure_that_is_counted_late_takes_nothing_back(self, consumer, monkeypatch):
        consumer.fails[1] = ValueError()
        await consumer.write(1, 2, 3)
        late: list[tuple] = []
        count = module._count_failure

        async def keep(*arguments):
            late.append(arguments)

        monkeypatch.setattr(module, "_count_failure", keep)
        await consumer.deliver()
        monkeypatch.undo()
        consumer.fails.clear()
        await consumer.deliver_all(1)
        reached = await consumer.cursor()
        await count(*late[0])
        assert await consumer.cursor() == reached
        assert (await consumer.cursor_row()).retry_at is None

    async def test_it_holds_up_what_comes_after_it_until_then(self, consumer):
        consumer.fails[1] = ValueError()
        await consumer.write(0, 1, 2)
        while await consumer.deliver():
            pass
        assert await consumer.kept() == [0]
        assert await consumer.dead() == []

    async def test_the_good_ones_before_it_are_not_repeated_for_each_of_them(self, consumer):
        consumer.fails[90] = ValueError()
        await consumer.write(*range(100))
        await consumer.deliver_all()
        assert len(consumer.calls) < 300
        assert await consumer.kept() == [*range(90), *range(91, 100)]

    async def test_one_that_recovers_is_not_set_aside(self, consumer):
        consumer.fails[0] = ValueError()
        await consumer.write(0)
        for _ in range(4):
            await consumer.deliver()
            consumer.clock.moment += timedelta(minutes=1)
        consumer.fails.clear()
        await consumer.deliver_all(2)
        assert await consumer.kept() == [0]
        assert await consumer.dead() == []

    async def test_an_outage_is_never_held_against_an_event(self, consumer):
        consumer.fails[0] = DependencyUnavailable("database")
        await consumer.write(0)
        for _ in range(10):
            with pytest.raises(DependencyUnavailable):
                await consumer.deliver()
        assert await consumer.dead() == []

    async def test_a_connection_that_breaks_within_a_handler_is_an_outage(self, consumer):
        async def break_off(work, event):
            await work.session.scalar(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        await consumer.write(0)
        broken = dataclasses.replace(consumer.handler, handle=break_off)
        assert isinstance(consumer.runtime.database, Database)
        for _ in range(6):
            with pytest.raises(DependencyUnavailable):
                await deliver(consumer.runtime, broken)
        assert await consumer.dead() == []
        await consumer.deliver_all(1)
        assert await consumer.kept() == [0]

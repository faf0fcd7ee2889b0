"""A reader that remembers "I am at N" misses nothing, whatever the order of commits."""

import asyncio
import random

from sqlalchemy import text

from mlops_platform.core.events.outbox import Event, append, new_event_id, place, read_after
from mlops_platform.core.identity import new_id


class Stream:
    """Events of a fresh project."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.project = new_id()

    def event(self, subject="s", kind="toy.made", **data):
        return Event(new_event_id(), kind, subject, self.project, data, self.runtime.clock.now())

    async def write(self, *events):
        async with self.runtime.database.write() as session:
            await append(session, list(events))

    async def place(self):
        """All that waits: other tests of this database may have left more than are placed at once."""
        placed = 1
        while placed:
            async with self.runtime.database.write() as session:
                placed = await place(session)

    async def read(self, position=0, *, limit=1000, types=()):
        async with self.runtime.database.read() as session:
            return await read_after(session, position, limit=limit, project_id=self.project, types=types)


class TestPlacing:
    async def test_an_event_is_invisible_until_it_is_placed_and_keeps_its_place(self, runtime):
        stream = Stream(runtime)
        await stream.write(stream.event(n=1))
        assert await stream.read() == []
        await stream.place()
        (first,) = await stream.read()
        await stream.write(stream.event(n=2))
        await stream.place()
        events = await stream.read()
        assert [event.data["n"] for event in events] == [1, 2]
        assert events[0].position == first.position
        assert events[1].position > events[0].position

    async def test_what_is_rolled_back_leaves_no_event(self, runtime):
        stream = Stream(runtime)

        async def change():
            async with runtime.database.write() as session:
                await append(session, [stream.event()])
                raise ZeroDivisionError

        assert isinstance((await asyncio.gather(change(), return_exceptions=True))[0], ZeroDivisionError)
        await stream.place()
        assert await stream.read() == []

    async def test_a_reader_misses_nothing_and_sees_each_subject_in_order_under_concurrent_writers(self, runtime):  # noqa: C901  # three loops
        """Twenty writers hold their transactions open for random times while two sequencers and a reader run."""
        stream, chance, per_writer = Stream(runtime), random.Random(7), 8
        done = asyncio.Event()
        seen: list[Event] = []

        async def writer(number):
            for turn in range(per_writer):
                async with runtime.database.write() as session:
                    await append(session, [stream.event(f"s{number}", n=turn)])
                    await asyncio.sleep(chance.random() * 0.02)

        async def sequencer():
            while not done.is_set():
                await stream.place()
                await asyncio.sleep(0.001)

        async def reader():
            while not done.is_set():
                seen.extend(await stream.read(seen[-1].position if seen else 0, limit=7))
                await asyncio.sleep(0.001)

        others = [asyncio.create_task(work()) for work in (sequencer, sequencer, reader)]
        await asyncio.gather(*(writer(number) for number in range(20)))
        done.set()
        await asyncio.gather(*others)
        await stream.place()
        while batch := await stream.read(seen[-1].position, limit=7):
            seen += batch
        assert len({event.id for event in seen}) == len(seen) == 20 * per_writer
        for number in range(20):
            assert [event.data["n"] for event in seen if event.subject == f"s{number}"] == list(range(per_writer))

    async def test_a_change_that_waits_for_another_comes_after_it(self, runtime):
        stream = Stream(runtime)
        held, go = asyncio.Event(), asyncio.Event()

        async def change(name, *, first):
            async with runtime.database.write() as session:
                await session.execute(text("SELECT pg_advisory_xact_lock(hashtext(:p))"), {"p": stream.project})
                if first:
                    held.set()
                    await go.wait()
                await append(session, [stream.event(name=name)])

        one = asyncio.create_task(change("one", first=True))
        await held.wait()
        two = asyncio.create_task(change("two", first=False))
        go.set()
        await asyncio.gather(one, two)
        await stream.place()
        assert [event.data["name"] for event in await stream.read()] == ["one", "two"]


class TestReading:
    async def test_types_are_exact_or_families(self, runtime):
        stream = Stream(runtime)
        kinds = ["toy.made", "toy.broken", "toy_box.made", "toyXmade", "model.made"]
        await stream.write(*(stream.event(kind=kind) for kind in kinds))
        await stream.place()

        async def found(*types):
            return [event.type for event in await stream.read(types=types)]

        assert await found() == kinds
        assert await found("toy.made") == ["toy.made"]
        assert await found("toy.*") == ["toy.made", "toy.broken"]
        assert await found("toy_box.*", "model.made") == ["toy_box.made", "model.made"]
        assert await found("*") == []
        assert await found("%.*") == []

    async def test_another_projects_events_are_not_among_them(self, runtime):
        mine, other = Stream(runtime), Stream(runtime)
        await mine.write(mine.event())
        await other.write(other.event())
        await mine.place()
        assert [event.project_id for event in await mine.read()] == [mine.project]

    def test_the_envelope_is_a_cloud_event(self, runtime):
        stream = Stream(runtime)
        envelope = stream.event(n=1).envelope()
        assert {"specversion", "id", "source", "type", "subject", "time", "data"} <= set(envelope)
        assert envelope["specversion"] == "1.0"
        assert envelope["time"].endswith("Z")

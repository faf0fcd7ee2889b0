"""What happens in the background, and what must not be lost when a process dies in between."""

import random
from dataclasses import replace

import pyarrow as pa
import pytest
from sqlalchemy import func, select

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.core.storage.tables import blob_references
from mlops_platform.features.app import make_state
from mlops_platform.features.backends.online import EmbeddedOnlineStore
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.repository.online import OnlineValues
from mlops_platform.features.service import compaction
from mlops_platform.features.service.author import Author
from mlops_platform.features.service.compaction import compact
from mlops_platform.features.service.definitions import Snapshot
from mlops_platform.features.service.state import FeatureState
from mlops_platform.features.service.stored_rows import StoredRows
from mlops_platform.features.tables import online_pending, recent_rows, segments
from tests.conftest import Caller, Platform
from tests.factories.features import PARQUET, a_feature_set, a_row, at, data_of, ingest, parquet, serve, training_set

LATER_US = 4_000_000_000_000_000


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


@pytest.fixture
def state(apps) -> FeatureState:
    return apps["feature-store"].edge.state


async def count(platform: Platform, table, caller: Caller) -> int:
    async with platform.runtime.database.read() as session:
        return await session.scalar(select(func.count()).select_from(table).where(table.c.project_id == caller.project))


async def compact_all(platform: Platform, state: FeatureState, *, ingests: int, rows: int, size: int = 10**9) -> None:
    """Until nothing is left to do: other tests' feature sets are in the same database."""
    while await compact(platform.runtime.database, state.files, ingests=ingests, rows=rows, size=size):
        pass


class AwayStore(EmbeddedOnlineStore):
    """A store that does not answer while it is told so."""

    is_away = True

    async def put_many(self, rows):
        if self.is_away:
            raise DependencyUnavailable("online store")
        await super().put_many(rows)

    async def check(self):
        if self.is_away:
            raise DependencyUnavailable("online store")


class TestRepair:
    async def test_an_ingest_while_the_store_is_away_is_kept_and_comes_online_later(self, ada, platform, state):
        await a_feature_set(ada)
        store = AwayStore(OnlineValues(platform.runtime.database))
        broken = make_state(platform.runtime, store)
        author = Author(platform_principal(ada.project))
        body = b'{"rows":[{"entity_id":"u","event_timestamp":"2026-01-01T00:00:00Z","age":7}]}'
        result = await broken.ingest.json_rows(author, "user_features", body)
        assert result.online == "pending"
        assert await count(platform, online_pending, ada) == 1
        store.is_away = False
        await broken.online.repair(now_us=LATER_US)
        assert await count(platform, online_pending, ada) == 0
        assert b'"age":7' in await broken.serving.serve_query(author.principal, b"entities=u&features=age")

    async def test_while_the_store_is_away_no_rows_are_brought_together_in_vain(self, ada, platform, monkeypatch):
        await a_feature_set(ada)
        store = AwayStore(OnlineValues(platform.runtime.database))
        broken = make_state(platform.runtime, store)
        author = Author(platform_principal(ada.project))
        body = b'{"rows":[{"entity_id":"u","event_timestamp":"2026-01-01T00:00:00Z","age":7}]}'
        await broken.ingest.json_rows(author, "user_features", body)
        monkeypatch.setattr(StoredRows, "source", None)  # whoever reads rows fails in another way
        with pytest.raises(DependencyUnavailable):
            await broken.online.repair(now_us=LATER_US)
        assert await count(platform, online_pending, ada) == 1
        monkeypatch.undo()
        store.is_away = False
        await broken.online.repair(now_us=LATER_US)
        assert await count(platform, online_pending, ada) == 0

    async def test_a_finished_ingest_leaves_nothing_to_repair(self, ada, platform):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        assert await count(platform, online_pending, ada) == 0

    async def test_a_repair_forgets_sets_that_went_offline_meanwhile(self, ada, platform, state):
        await a_feature_set(ada)
        store = AwayStore(OnlineValues(platform.runtime.database))
        broken = make_state(platform.runtime, store)
        author = Author(platform_principal(ada.project))
        body = b'{"rows":[{"entity_id":"u","event_timestamp":"2026-01-01T00:00:00Z","age":7}]}'
        await broken.ingest.json_rows(author, "user_features", body)
        await ada.http.patch("/api/feature-sets/user_features", json={"online": False})
        await broken.online.repair(now_us=LATER_US)
        assert await count(platform, online_pending, ada) == 0


class TestSwitchingOnline:
    async def test_a_set_that_is_switched_off_serves_nothing_old(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        await ada.http.patch("/api/feature-sets/user_features", json={"online": False})
        [vector] = await serve(ada, "user_123", "age")
        assert (vector["values"]["age"], vector["statuses"]["age"]) == (None, "missing")

    async def test_what_was_ingested_while_it_was_off_comes_online_when_it_is_on_again(self, ada, state):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        await ada.http.patch("/api/feature-sets/user_features", json={"online": False})
        assert (await ingest(ada, a_row(hours=1, age=2)))["online"] == "off"
        await ada.http.patch("/api/feature-sets/user_features", json={"online": True})
        await state.online.repair(now_us=LATER_US)
        assert (await serve(ada, "user_123", "age"))[0]["values"]["age"] == 2

    async def test_any_other_change_brings_nothing_online_anew(self, ada, platform):
        await a_feature_set(ada)
        await ada.http.patch("/api/feature-sets/user_features", json={"online": True, "tags": ["x"]})
        assert await count(platform, online_pending, ada) == 0


class TestCompaction:
    async def feed(self, caller: Caller, ingests: int) -> None:
        for n in range(ingests):
            await ingest(caller, a_row(f"u{n % 3}", n, age=n), a_row("v", n, avg_session_duration="NaN"))

    async def rows_of(self, caller: Caller) -> list:
        labels = [a_row(f"u{n}", h) for n in range(3) for h in range(9)]
        return [row["age"] for row in await data_of(caller, (await training_set(caller, labels, ["age"]))["id"])]

    async def test_many_small_ingests_become_one_and_read_the_same(self, ada, platform, state):
        await a_feature_set(ada)
        await self.feed(ada, 8)
        before = await self.rows_of(ada)
        await compact_all(platform, state, ingests=8, rows=10**9)
        assert (await count(platform, recent_rows, ada), await count(platform, segments, ada)) == (1, 0)
        assert await self.rows_of(ada) == before

    async def test_merged_rows_become_a_segment_and_read_the_same(self, ada, platform, state):
        await a_feature_set(ada)
        await self.feed(ada, 4)
        await compact_all(platform, state, ingests=4, rows=10**9)
        await self.feed(ada, 9)
        before = await self.rows_of(ada)
        await compact_all(platform, state, ingests=10**9, rows=26)
        assert (await count(platform, recent_rows, ada), await count(platform, segments, ada)) == (0, 1)
        assert await self.rows_of(ada) == before

    async def test_few_rows_of_many_bytes_become_segments_too_a_bounded_part_at_a_time(
        self, ada, platform, state, monkeypatch
    ):
        await a_feature_set(ada)
        await self.feed(ada, 4)
        before = await self.rows_of(ada)
        monkeypatch.setattr(compaction, "_MOST_BYTES", 1)
        await compact_all(platform, state, ingests=10**9, rows=10**9, size=1)
        assert (await count(platform, recent_rows, ada), await count(platform, segments, ada)) == (0, 4)
        assert await self.rows_of(ada) == before

    async def test_a_correction_after_compaction_still_wins_and_the_time_of_ingest_is_kept(self, ada, platform, state):
        await a_feature_set(ada)
        first = await ingest(ada, a_row(age=1))
        await compact_all(platform, state, ingests=1, rows=1)
        await ingest(ada, a_row(age=2))
        labels = [a_row(hours=1)]
        assert (await data_of(ada, (await training_set(ada, labels, ["age"]))["id"]))[0]["age"] == 2
        old = await training_set(ada, labels, ["age"], known_until=first["created_at"])
        assert (await data_of(ada, old["id"]))[0]["age"] == 1

    async def test_features_added_between_the_ingests_survive(self, ada, platform, state):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        features = [{"name": "age", "type": "int"}, {"name": "avg_session_duration", "type": "float"}]
        change = {"features": [*features, {"name": "city", "type": "string"}]}
        await ada.http.patch("/api/feature-sets/user_features", json=change)
        await ingest(ada, a_row(hours=1, city="Zürich"))
        await compact_all(platform, state, ingests=2, rows=2)
        made = await training_set(ada, [a_row(hours=0), a_row(hours=1)], ["age", "city"])
        assert [(r["age"], r["city"]) for r in await data_of(ada, made["id"])] == [(1, None), (None, "Zürich")]


@pytest.mark.parametrize("seed", range(3))
async def test_online_and_offline_agree_with_a_plain_model_whatever_happened_in_between(ada, platform, state, seed):
    """Random ingests in random order, compacted at random moments: the last ingest of each event counts everywhere."""
    chance = random.Random(seed)
    await a_feature_set(ada)
    model: dict[tuple[str, int], int | None] = {}
    for step in range(25):
        rows = [
            (chance.choice("abc"), chance.randrange(12), chance.choice([step, None])) for _ in range(chance.randrange(1, 5))
        ]
        await ingest(ada, *(a_row(entity, hour, age=value) for entity, hour, value in rows))
        model |= {(entity, hour): value for entity, hour, value in rows}
        if chance.random() < 0.2:
            await compact_all(platform, state, ingests=3, rows=chance.choice([10, 10**9]))
    moments = [(entity, hour) for entity in "abcd" for hour in range(-1, 13)]
    made = await training_set(ada, [a_row(entity, hour) for entity, hour in moments], ["age"])
    found = [row["age"] for row in await data_of(ada, made["id"])]
    assert found == [newest_at(model, entity, hour) for entity, hour in moments]
    online = [vector["values"]["age"] for vector in await serve(ada, "a,b,c,d", "age")]
    assert online == [newest_at(model, entity, 99) for entity in "abcd"]


def newest_at(model: dict[tuple[str, int], int | None], entity: str, hour: int) -> int | None:
    known = [at_hour for owner, at_hour in model if owner == entity and at_hour <= hour]
    return model[entity, max(known)] if known else None


class TestSegments:
    async def upload(self, caller: Caller) -> None:
        moments = pa.array([1_767_225_600_000_000] * 10_000, pa.timestamp("us", tz="UTC"))
        table = pa.table({"entity_id": [f"u{n}" for n in range(10_000)], "event_timestamp": moments, "age": range(10_000)})
        path = "/api/feature-sets/user_features/rows"
        response = await caller.http.post(path, content=parquet(table), headers={"content-type": PARQUET})
        assert response.status_code == 201, response.text

    async def test_a_large_upload_is_one_sealed_file_and_no_database_rows(self, ada, platform, state, settings):
        await a_feature_set(ada)
        await self.upload(ada)
        assert (await count(platform, recent_rows, ada), await count(platform, segments, ada)) == (0, 1)
        stored = [path for path in (settings.home / "blobs").rglob("*") if path.is_file() and ada.project in str(path)]
        assert stored
        assert await count(platform, blob_references, ada) == 1
        assert all(b"PAR1" not in path.read_bytes() for path in stored)

    async def test_the_same_upload_twice_changes_nothing_and_is_stored_once(self, ada, platform):
        await a_feature_set(ada)
        labels = [a_row("u0"), a_row("u9999", 5), a_row("u1", -1)]
        await self.upload(ada)
        first = await training_set(ada, labels, ["age"])
        await self.upload(ada)
        again = await training_set(ada, labels, ["age"])
        assert [row["age"] for row in await data_of(ada, first["id"])] == [0, 9999, None]
        assert again["digest"] == first["digest"]
        async with platform.runtime.database.read() as session:
            mine = select(segments.c.blob_id).where(segments.c.project_id == ada.project)
            assert len({row.blob_id for row in await session.all(mine)}) == 1

    async def test_a_failed_commit_leaves_no_file_that_anything_holds(self, ada, platform, state, monkeypatch):
        await a_feature_set(ada)
        await ada.http.patch("/api/feature-sets/user_features", json={"tags": ["x"]})
        view = (await state.definitions.load(platform_principal(ada.project))).views["user_features"]
        stale = replace(view, schema=replace(view.schema, version=99))
        monkeypatch.setattr(state.definitions, "of", _always(stale))
        monkeypatch.setattr(state.definitions, "load", _always(stale))
        moments = pa.array([0] * 10_000, pa.timestamp("us"))
        table = pa.table({"entity_id": [f"u{n}" for n in range(10_000)], "event_timestamp": moments})
        path = "/api/feature-sets/user_features/rows"
        response = await ada.http.post(path, content=parquet(table), headers={"content-type": PARQUET})
        assert response.status_code == 503
        assert await count(platform, segments, ada) == 0
        assert await count(platform, blob_references, ada) == 0

    async def test_online_values_are_rebuilt_from_files_and_recent_rows_together(self, ada, state):
        made = await a_feature_set(ada)
        await self.upload(ada)
        await ingest(ada, a_row("u1", 1, age=-1))
        await state.store.drop(ada.project, made["id"])
        answer = await ada.http.post("/api/feature-sets/user_features/materialize", json={"start": at(-1)})
        assert answer.json()["entities"] == 10_000
        assert [v["values"]["age"] for v in await serve(ada, "u0,u1,u9999", "age")] == [0, -1, 9999]


def _always(view: FeatureView):
    async def answer(principal):
        return Snapshot({view.name: view}, 0)

    return answer

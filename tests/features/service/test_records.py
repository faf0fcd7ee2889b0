"""Each change leaves its audit entry, its event and its lineage; a refused one leaves none."""

import pytest
from sqlalchemy import select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.events.tables import events
from tests.conftest import Caller, Platform
from tests.factories.features import a_feature_set, a_row, data_of, ingest, serve, training_set


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


async def actions(platform: Platform, caller: Caller) -> list[str]:
    async with platform.runtime.database.read() as session:
        mine = select(audit_entries).where(audit_entries.c.project_id == caller.project)
        return sorted(row.action for row in await session.all(mine))


async def emitted(platform: Platform, caller: Caller) -> list:
    async with platform.runtime.database.read() as session:
        mine = select(events).where(events.c.project_id == caller.project).order_by(events.c.id)
        return list(await session.all(mine))


async def test_every_change_is_audited_and_told_and_no_hot_read_is(ada, platform):
    await a_feature_set(ada)
    await ada.http.patch("/api/feature-sets/user_features", json={"tags": ["x"]})
    await ingest(ada, a_row(age=1), a_row("b", age=2))
    await serve(ada, "user_123", "age")
    made = await training_set(ada, [a_row(hours=1)], ["age"])
    await data_of(ada, made["id"])
    await ada.http.post("/api/feature-sets/user_features/materialize", json={})
    await ada.http.delete("/api/feature-sets/user_features")
    await ada.http.post("/api/feature-sets/user_features/restore")
    changes = [
        "feature_rows.ingested",
        "feature_set.created",
        "feature_set.deleted",
        "feature_set.materialized",
        "feature_set.restored",
        "feature_set.updated",
        "training_set.created",
    ]
    assert await actions(platform, ada) == sorted([*changes, "training_set.downloaded"])
    told = [event.type for event in await emitted(platform, ada) if event.type != "lineage.stated"]
    assert sorted(told) == changes


async def test_a_refused_change_leaves_nothing(ada, platform):
    await a_feature_set(ada)
    before = await actions(platform, ada), len(await emitted(platform, ada))
    await ada.http.post("/api/feature-sets/user_features/rows", json={"rows": [a_row(age="x")]})
    await ada.http.patch("/api/feature-sets/user_features", json={"features": [{"name": "x", "type": "int"}]})
    await ada.http.post("/api/training-sets", json={"rows": [a_row()], "features": ["nothing"]})
    assert (await actions(platform, ada), len(await emitted(platform, ada))) == before


async def test_the_ingest_event_sums_up_the_batch(ada, platform):
    await a_feature_set(ada)
    result = await ingest(ada, a_row("a", 1, age=1), a_row("a", 2, age=2), a_row("b", age=2))
    [event] = [event for event in await emitted(platform, ada) if event.type == "feature_rows.ingested"]
    assert event.data == {
        "batch_id": result["batch_id"],
        "version": 1,
        "rows": 3,
        "entities": 2,
        "first_event": "2026-01-01T00:00:00+00:00",
        "last_event": "2026-01-01T02:00:00+00:00",
    }


async def test_a_training_set_states_from_which_versions_it_came(ada, platform):
    await a_feature_set(ada)
    made = await training_set(ada, [a_row()], ["age"])
    edges = [event.data for event in await emitted(platform, ada) if event.type == "lineage.stated"]
    urn = f"urn:mlops:{ada.project}"
    version = f"{urn}:feature-set:user_features/1"
    assert {"subject": version, "relation": "version_of", "object": f"{urn}:feature-set:user_features"} in edges
    assert {"subject": f"{urn}:training-set:{made['id']}", "relation": "derived_from", "object": version} in edges

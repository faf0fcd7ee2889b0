"""Definitions stay in memory, and no change made elsewhere is overlooked for long."""

import asyncio

import pytest

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.features.app import make_state
from mlops_platform.features.errors import UnknownFeature
from mlops_platform.features.service import definitions
from mlops_platform.features.service.definitions import Definitions
from mlops_platform.features.service.state import FeatureState
from tests.conftest import Caller, Platform
from tests.factories.features import a_feature_set, a_row, ingest

QUERY = b"entities=user_123&features=age"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


@pytest.fixture
async def replica(platform: Platform, apps):
    """The service once more, as another process has it."""
    state: FeatureState = apps["feature-store"].edge.state
    other = make_state(platform.runtime, state.store)
    yield other
    await other.definitions.close()


class NoDatabase:
    def read(self):
        raise DependencyUnavailable("database")


async def test_serving_touches_no_database_once_it_is_warm(ada, replica, monkeypatch):
    await a_feature_set(ada)
    await ingest(ada, a_row(age=1))
    principal = platform_principal(ada.project)
    await replica.serving.serve_query(principal, QUERY)
    monkeypatch.setattr(replica.definitions, "_database", NoDatabase())
    monkeypatch.setattr(replica.store._table, "_database", NoDatabase())
    assert b'"age":1' in await replica.serving.serve_query(principal, QUERY)


async def test_a_change_elsewhere_is_seen_by_the_request_after_the_renewal(ada, replica, monkeypatch):
    principal = platform_principal(ada.project)
    assert not (await replica.definitions.of(principal)).views
    await a_feature_set(ada)
    monkeypatch.setattr(definitions, "FRESH_SECONDS", 0)
    assert not (await replica.definitions.of(principal)).views
    await asyncio.gather(*replica.definitions._renewals.values())
    assert set((await replica.definitions.of(principal)).views) == {"user_features"}


async def test_definitions_that_are_too_old_are_never_used(ada, replica, monkeypatch):
    principal = platform_principal(ada.project)
    await a_feature_set(ada)
    await ingest(ada, a_row(age=1))
    await replica.serving.serve_query(principal, QUERY)
    await ada.http.delete("/api/feature-sets/user_features")
    monkeypatch.setattr(definitions, "FRESH_SECONDS", 0)
    monkeypatch.setattr(definitions, "OLDEST_SECONDS", 0)
    with pytest.raises(UnknownFeature):
        await replica.serving.serve_query(principal, QUERY)


async def test_a_reading_that_a_change_overtook_is_not_kept(ada, platform):
    principal = platform_principal(ada.project)
    known = Definitions(platform.runtime.database)
    loading = asyncio.create_task(known.load(principal))
    await asyncio.sleep(0)
    known.forget()
    await loading
    assert principal.project not in known._snapshots


async def test_plans_survive_a_renewal_that_found_nothing_new(ada, replica):
    principal = platform_principal(ada.project)
    await a_feature_set(ada)
    await replica.serving.serve_query(principal, QUERY)
    before = (await replica.definitions.of(principal)).plans
    assert (await replica.definitions.load(principal)).plans is before


async def test_the_number_of_plans_is_bounded(ada, replica, monkeypatch):
    monkeypatch.setattr(definitions, "MAX_PLANS", 3)
    await a_feature_set(ada)
    principal = platform_principal(ada.project)
    for n in range(10):
        await replica.serving.serve_query(principal, QUERY + b",age" * n)
    assert len((await replica.definitions.of(principal)).plans) <= 3

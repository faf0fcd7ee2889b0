"""The Feature Store, as `server/` knows it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.http.service import Service
from mlops_platform.core.storage.opening import open_blob_store
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.features import tasks
from mlops_platform.features.backends.offline import OfflineFiles
from mlops_platform.features.backends.online import EmbeddedOnlineStore, OnlineStore
from mlops_platform.features.backends.online_redis import RedisOnlineStore
from mlops_platform.features.endpoints import rows, serve, sets, training
from mlops_platform.features.repository.online import OnlineValues
from mlops_platform.features.service.definitions import Definitions
from mlops_platform.features.service.ingest import Ingest
from mlops_platform.features.service.online_writes import OnlineWriter
from mlops_platform.features.service.serving import Serving
from mlops_platform.features.service.state import FeatureState
from mlops_platform.features.service.stored_rows import StoredRows
from mlops_platform.features.service.training import TrainingSets


@asynccontextmanager
async def open_state(runtime: Runtime) -> AsyncIterator[FeatureState]:
    """The collaborators of this service, alive until the block ends."""
    key = runtime.settings.storage_key
    ring = None if key is None else KeyRing.from_hex(key.get_secret_value())
    state = make_state(runtime, open_online_store(runtime), OfflineFiles(open_blob_store(runtime.settings, ring)))
    try:
        yield state
    finally:
        await state.definitions.close()
        await state.store.close()


def open_online_store(runtime: Runtime) -> OnlineStore:
    """Redis where its URL is set, else the embedded store."""
    url = runtime.settings.redis_url
    return EmbeddedOnlineStore(OnlineValues(runtime.database)) if url is None else RedisOnlineStore(url)


def make_state(runtime: Runtime, store: OnlineStore, files: OfflineFiles) -> FeatureState:
    """The use cases over these stores."""
    definitions = Definitions(runtime.database)
    stored = StoredRows(runtime.database, files)
    online = OnlineWriter(runtime, store, stored)
    return FeatureState(
        definitions=definitions,
        store=store,
        files=files,
        online=online,
        ingest=Ingest(runtime, definitions, files, online),
        serving=Serving(definitions, store, runtime.clock),
        training=TrainingSets(runtime.database, stored, files),
    )


SERVICE = Service(
    name="feature-store",
    title="Feature Store",
    description="Features defined once: ingested with event timestamps, served online, joined point-in-time.",
    routers=(sets.router, rows.router, serve.router, training.router),
    hot_routes=serve.HOT_ROUTES,
    duties=tasks.DUTIES,
    state=open_state,
)

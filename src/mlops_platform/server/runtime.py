"""Putting a process together: from settings to the collaborators that everything else is given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mlops_platform.core.auth import authenticator
from mlops_platform.core.auth.authenticator import Authenticator, AuthKeys
from mlops_platform.core.clock import Clock, SystemClock
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.db.database import open_database
from mlops_platform.core.db.notify import Listener
from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.events import outbox
from mlops_platform.core.settings import Settings
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.storage.opening import open_blob_store
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.server.tracing import open_tracer

_DUTY_CONNECTIONS = 3


@asynccontextmanager
async def open_runtime(
    settings: Settings, dsn: str, *, clock: Clock | None = None, pool_size: int | None = None
) -> AsyncIterator[Runtime]:
    """The collaborators of a process, alive until the block ends."""
    if settings.api_secret_key is None:
        raise ConfigurationError("API_SECRET_KEY is not set. Make one with: openssl rand -hex 32")
    clock = clock or SystemClock()
    database = open_database(settings, dsn, pool_size=pool_size)
    duties_database = open_database(settings, dsn, pool_size=_DUTY_CONNECTIONS)
    keys = AuthKeys.from_secret(settings.api_secret_key.get_secret_value())
    listener = Listener(dsn)
    tracer = open_tracer(settings)
    runtime = Runtime(
        settings=settings,
        database=database,
        clock=clock,
        auth_keys=keys,
        authenticator=Authenticator(database, keys, clock),
        listener=listener,
        duties_database=duties_database,
        blobs=BlobLedger(database, open_blob_store(settings, _key_ring(settings)), clock),
        tracer=tracer,
    )
    listener.on(authenticator.CHANNEL, runtime.authenticator.forget)
    listener.on(outbox.CHANNEL, lambda: runtime.signals.send("placed"))
    listener.start()
    database.start()
    duties_database.start()
    try:
        yield runtime
    finally:
        await listener.stop()
        await duties_database.close()
        await database.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


def _key_ring(settings: Settings) -> KeyRing | None:
    return KeyRing.from_hex(settings.storage_key.get_secret_value()) if settings.storage_key else None

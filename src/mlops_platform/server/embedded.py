"""`mlops up`: PostgreSQL, the five services in one process, and a worker. This process owns all of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_platform.core.auth.directory import bootstrap
from mlops_platform.core.db import migrate
from mlops_platform.core.db.embedded.lock import HomeLock
from mlops_platform.core.db.embedded.places import prepare_home
from mlops_platform.core.db.embedded.server import EmbeddedPostgres
from mlops_platform.core.settings import Settings
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.server.catalog import CATALOG
from mlops_platform.server.keeper import beside
from mlops_platform.server.listening import bind_all
from mlops_platform.server.loop import stop_signals
from mlops_platform.server.runtime import open_runtime
from mlops_platform.server.secrets import Places, first_key, with_generated_secrets
from mlops_platform.server.serving import serving

CLIENT_FILE = "client.json"


@dataclass(frozen=True, slots=True)
class Up:
    """What came up: for the message on the terminal."""

    urls: dict[str, str]
    key_file: Path
    home: Path


async def up(settings: Settings, on_ready: Callable[[Up], None]) -> None:
    """Start everything, say so, and run until Ctrl-C or SIGTERM; then end in order: services, worker, PostgreSQL."""
    stopping = asyncio.Event()
    with stop_signals(stopping.set):
        prepare_home(settings.home)
        with HomeLock(settings.home):
            settings = with_generated_secrets(settings)
            settings.check_production()
            bound = bind_all(settings)
            async with _database(settings) as (app_dsn, owner_dsn):
                if await migrate.current_revision(owner_dsn) != migrate.head_revision():
                    await migrate.upgrade(owner_dsn)
                async with open_runtime(settings, app_dsn) as runtime:
                    await _first_admin(runtime)
                    async with beside(runtime, app_dsn), serving(runtime, bound):
                        on_ready(_announce(settings))
                        await stopping.wait()


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """The application's and the owner's way in: our own server, or the given one."""
    if settings.database_url is not None:
        yield settings.database_dsn(), settings.database_dsn(owner=True)
        return
    # The pool of the services; workers, duties and listeners open few beside it.
    server = EmbeddedPostgres(settings.home, max_connections=max(100, 2 * settings.database_pool_size + 50))
    address = await asyncio.to_thread(server.start)
    try:
        yield address.app_dsn(), address.owner_dsn()
    finally:
        await asyncio.to_thread(server.stop)


async def _first_admin(runtime: Runtime) -> None:
    async with runtime.database.write() as session:
        await bootstrap(session, runtime.auth_keys, runtime.clock.now(), first_key(runtime.settings))


def _announce(settings: Settings) -> Up:
    """Write where the services are, for the SDK and the CLI, and tell."""
    urls = {entry.key: entry.url(settings) for entry in CATALOG}
    path = settings.home / CLIENT_FILE
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"urls": urls, "project": "default"}, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
    return Up(urls, Places(settings.home).first_key, settings.home)

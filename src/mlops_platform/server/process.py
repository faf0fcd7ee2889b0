"""`mlops serve`: one service as a process of its own, any number of replicas, no local state."""

import asyncio
from collections.abc import Callable

from mlops_platform.core.db import migrate
from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.settings import Settings
from mlops_platform.server.catalog import BY_NAME, Entry
from mlops_platform.server.listening import bind_all
from mlops_platform.server.loop import stop_signals
from mlops_platform.server.runtime import open_runtime
from mlops_platform.server.serving import serving


async def serve(settings: Settings, name: str, on_ready: Callable[[str], None]) -> None:
    """Serve one service until Ctrl-C or SIGTERM, against a database that is migrated already."""
    entry = find(name)
    settings.check_production()
    stopping = asyncio.Event()
    with stop_signals(stopping.set):
        dsn = settings.database_dsn()
        await migrate.check_revision(dsn)
        bound = bind_all(settings, [entry])
        async with open_runtime(settings, dsn) as runtime, serving(runtime, bound):
            on_ready(entry.url(settings))
            await stopping.wait()


def find(name: str) -> Entry:
    """The service of this name, or one line that lists them."""
    if name not in BY_NAME:
        raise ConfigurationError(f"There is no service {name!r}. The services are: {', '.join(BY_NAME)}.")
    return BY_NAME[name]

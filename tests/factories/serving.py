"""The running apps behind real sockets, for clients that cannot be called in process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from mlops_platform.server.catalog import BY_NAME


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process is pytest's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(apps: Mapping[str, Any]) -> AsyncIterator[dict[str, str]]:
    """Each app on a free port of this machine; the addresses by the short names that clients use."""
    servers = {
        name: Server(uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False))
        for name, app in apps.items()
    }
    tasks = [asyncio.create_task(server.serve()) for server in servers.values()]
    try:
        while not all(server.started for server in servers.values()):  # noqa: ASYNC110  # uvicorn has a flag, no event
            await asyncio.sleep(0.01)
        yield {BY_NAME[name].key: _address(server) for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.should_exit = True
            server.force_exit = True
        await asyncio.gather(*tasks)


def _address(server: uvicorn.Server) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"

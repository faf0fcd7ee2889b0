"""Serving one or more apps in one event loop, and ending all of them together."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import structlog
import uvicorn

from mlops_platform.core.http import idempotency
from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.jobs.runner import Runner
from mlops_platform.core.work.duties import Duty
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.server.catalog import Entry
from mlops_platform.server.protocol import BoundedHttp

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.005
_COLLECT_AFTER = 10_000


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals alone: with five in one loop, nothing after `serve` would ever run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(runtime: Runtime, bound: Sequence[tuple[Entry, socket.socket]]) -> AsyncIterator[list[ServiceApp]]:
    """Apps that answer, with their background duties, until the block ends; then they drain."""
    async with AsyncExitStack() as stack:
        apps = [ServiceApp(entry.service, runtime) for entry, _ in bound]
        duties: list[tuple[Duty, Any]] = [(idempotency.SWEEP, None)]
        for app in apps:
            state = await stack.enter_async_context(app.running())
            duties += [(duty, state) for duty in app.service.duties]
        runner = Runner(replace(runtime, database=runtime.duties_database), duties)
        runner.start()
        stack.push_async_callback(runner.stop)
        servers = [_server(app, runtime) for app in apps]
        running = [
            asyncio.create_task(server.serve(sockets=[sock]), name=f"serve-{entry.service.name}")
            for server, (entry, sock) in zip(servers, bound, strict=True)
        ]
        try:
            await _all_started(servers, running)
            _settle_memory()
            yield apps
        finally:
            gc.unfreeze()  # or native modules report at exit that what was frozen leaked
            runtime.signals.stop()
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*running, return_exceptions=True)
            await asyncio.gather(*(app.edge.drain(runtime.settings.drain_seconds) for app in apps))


def _settle_memory() -> None:
    """What was made at start stays: the collector need not walk it again and again, and runs less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)


def _server(app: ServiceApp, runtime: Runtime) -> _Server:
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        # Nothing here depends on the client's address or scheme.
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, int(runtime.settings.drain_seconds)),
    )
    return _Server(config)


async def _all_started(servers: Sequence[_Server], running: Sequence[asyncio.Task[None]]) -> None:
    while not all(server.started for server in servers):
        for task in running:
            if task.done():
                await task
        await asyncio.sleep(_POLL_SECONDS)

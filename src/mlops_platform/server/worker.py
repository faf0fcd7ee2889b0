"""What `mlops worker` runs. It knows no service but the one whose tasks it takes: an idle worker is small."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mlops_platform.core.settings import Settings
from mlops_platform.pipelines.tasks.worker import WorkerOptions, run_worker
from mlops_platform.server.loop import stop_signals
from mlops_platform.server.runtime import open_runtime

_POOL_SIZE = 4


@dataclass(frozen=True, slots=True)
class Offer:
    """What this worker offers, beyond its slots: code, permissions, environment, user, GPUs."""

    paths: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()
    pass_on: tuple[str, ...] = ()
    run_as: str | None = None
    gpus: int = 0


async def work(settings: Settings, offer: Offer, *, with_parent: bool) -> None:
    """What `mlops worker` does: take tasks until Ctrl-C, SIGTERM or, `with_parent`, the end of standard input."""
    stopping = asyncio.Event()
    options = WorkerOptions(
        slots=settings.worker_slots,
        paths=offer.paths,
        allow=offer.allow,
        pass_on=offer.pass_on,
        run_as=offer.run_as,
        gpus=offer.gpus,
        environment=dict(os.environ),
        drain_seconds=settings.drain_seconds,
    )
    with stop_signals(stopping.set):
        if with_parent:
            await _stop_at_end_of_input(stopping)
        async with open_runtime(settings, settings.database_dsn(), pool_size=_POOL_SIZE) as runtime:
            await run_worker(runtime, options, stopping)


async def _stop_at_end_of_input(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    class Closed(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            stopping.set()

        def eof_received(self) -> None:
            stopping.set()

    await loop.connect_read_pipe(Closed, sys.stdin)

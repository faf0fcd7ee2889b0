"""Keeping a worker running beside the services of `mlops up`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from mlops_platform.core.settings import Settings
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.server.catalog import CATALOG

log = structlog.get_logger(__name__)

_STOP_SECONDS = 20.0
_RESTART_SECONDS = 1.0


@asynccontextmanager
async def beside(runtime: Runtime, app_dsn: str) -> AsyncIterator[None]:
    """Keep a worker running until the block ends. One that dies is started again."""
    if runtime.settings.worker_slots == 0:
        yield
        return
    stopping = asyncio.Event()
    keeper = asyncio.create_task(_keep(_environment(runtime.settings, app_dsn), stopping), name="worker-keeper")
    try:
        yield
    finally:
        stopping.set()
        await keeper


async def _keep(environment: Mapping[str, str], stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            process = await _start(environment)
        except OSError as error:  # short of memory or of processes: perhaps not for long
            log.warning("worker.not_started", error=str(error), retry_in_seconds=_RESTART_SECONDS)
            await asyncio.sleep(_RESTART_SECONDS)
            continue
        ended = asyncio.create_task(process.wait())
        asked = asyncio.create_task(stopping.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if stopping.is_set():
            await _end(process)
            return
        log.error("worker.died", exit_code=process.returncode, restart_in_seconds=_RESTART_SECONDS)
        await asyncio.sleep(_RESTART_SECONDS)


async def _start(environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mlops_platform.cli", "worker", "--with-parent"),
        env=environment,
        # Closes with us, however we end: the worker never outlives the platform.
        stdin=asyncio.subprocess.PIPE,
        # Ctrl-C on the terminal must reach it through us, after the services have drained.
        start_new_session=True,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _environment(settings: Settings, app_dsn: str) -> dict[str, str]:
    """What the worker must know goes through its environment: arguments can be read by every user of the machine."""
    secrets = {"API_SECRET_KEY": settings.api_secret_key, "MLOPS_STORAGE_KEY": settings.storage_key}
    return {
        **os.environ,
        **{entry.url_variable: entry.url(settings) for entry in CATALOG},
        **{name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None},
        "MLOPS_HOME": str(settings.home),
        "MLOPS_DATABASE_URL": app_dsn,
    }

"""What runs beside the requests in every process that routes: keeping the snapshot fresh, writing exposures."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from time import monotonic

import structlog

from mlops_platform.ab_testing.repository.definitions import CHANNEL
from mlops_platform.ab_testing.service.routing import ExposureQueue, Routing
from mlops_platform.core.errors import DependencyUnavailable, StorageFull
from mlops_platform.core.work.runtime import Runtime

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.25
REPEATS_SECONDS = 5.0
RETRY_SECONDS = 1.0
REFRESH_SECONDS = 1.0
CLOSING_SECONDS = 5.0


@contextlib.asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[Routing]:
    """Routing for the life of the process. Exposures that are still queued at the end are written."""
    routing = Routing(runtime.database, runtime.clock)
    runtime.listener.on(CHANNEL, routing.wake)
    tasks = [
        asyncio.create_task(keep_fresh(routing), name="ab-tests-snapshot"),
        asyncio.create_task(keep_flushing(routing.exposures), name="ab-tests-exposures"),
    ]
    try:
        yield routing
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _close(routing.exposures)


async def keep_fresh(routing: Routing) -> None:
    """Refresh the snapshot at each wake-up, and every second without one."""
    while True:
        try:
            await routing.snapshot.refresh()
        except DependencyUnavailable as error:
            log.warning("ab_tests.snapshot_not_refreshed", reason=error.detail)
        except Exception:  # the edge of a worker loop: it must not die
            log.exception("ab_tests.snapshot_refresh_failed")
        await routing.wait_until_stale(REFRESH_SECONDS)


async def keep_flushing(queue: ExposureQueue) -> None:
    """Write exposures often enough that little is ever at stake."""
    repeats_at = monotonic() + REPEATS_SECONDS
    while True:
        await queue.wait(FLUSH_SECONDS)
        is_time = monotonic() >= repeats_at
        try:
            await queue.flush(repeats=is_time)
            if is_time:
                repeats_at = monotonic() + REPEATS_SECONDS
        except (DependencyUnavailable, StorageFull) as error:
            log.warning("exposures.waiting", queued=len(queue), dropped=queue.dropped, reason=error.detail)
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:  # the edge of a worker loop: it must not die
            log.exception("exposures.refused", dropped=queue.dropped)


async def _close(queue: ExposureQueue) -> None:
    try:
        async with asyncio.timeout(CLOSING_SECONDS):
            await queue.flush()
    except (DependencyUnavailable, StorageFull, TimeoutError):
        log.warning("exposures.lost", queued=len(queue))

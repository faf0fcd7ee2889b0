"""What Experiment Tracking keeps in memory between requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.backends.sampler import Sampler
from mlops_platform.tracking.service.ingest import MetricIngest

_IDLE_SECONDS = 10.0


class Turns:
    """Who waits for the same thing waits here in a row, and not each with a database connection of its own."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """The turn of one who wants `name`."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            yield


@dataclass(frozen=True, slots=True)
class TrackingState:
    """One of each for this process."""

    ingest: MetricIngest
    sampler: Sampler
    importances: Sampler
    """Another process: who reads must not hold up those who ask for trials."""
    turns: Turns


@asynccontextmanager
async def tracking_state(runtime: Runtime) -> AsyncIterator[TrackingState]:
    """Made when the service starts; what is under way is finished when it ends."""
    async with (
        Sampler() as sampler,
        Sampler(idle_seconds=_IDLE_SECONDS) as importances,
        MetricIngest(runtime.database).running() as ingest,
    ):
        yield TrackingState(ingest, sampler, importances, Turns())

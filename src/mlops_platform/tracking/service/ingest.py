"""The hot path of metric points: whatever arrives while one commit is under way shares the next one.

There is no timer: an idle service stores a request at once, and a busy one coalesces by itself, the more the busier.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from mlops_platform.core.db.database import Database
from mlops_platform.core.errors import DependencyUnavailable, StorageFull, TooManyRequests
from mlops_platform.tracking.errors import RunDeleted, RunNotFound
from mlops_platform.tracking.repository.metrics import IngestItem, IngestOutcome, KeyIds, intern_keys, store
from mlops_platform.tracking.service.segments import SegmentBuilder

log = structlog.get_logger(__name__)

QUEUED_POINTS = 200_000
FLUSHED_POINTS = 10_000
CACHED_KEYS = 200_000


@dataclass(slots=True)
class _Waiting:
    item: IngestItem
    done: asyncio.Future[IngestOutcome]


class MetricIngest:
    """One per process. `add` returns when the points are durable."""

    def __init__(
        self, database: Database, *, queued_points: int = QUEUED_POINTS, flushed_points: int = FLUSHED_POINTS
    ) -> None:
        self._database = database
        self._queued_points = queued_points
        self._flushed_points = flushed_points
        self._queue: deque[_Waiting] = deque()
        self._points = 0
        self._wake = asyncio.Event()
        self._is_closing = False
        # Keys are never deleted, so what is remembered stays true.
        self._key_ids: KeyIds = {}
        self.segments = SegmentBuilder(database)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["MetricIngest"]:
        """Store what is added, until the block ends and all of it is stored."""
        task = asyncio.create_task(self._run(), name="metric-ingest")
        async with self.segments.running():
            try:
                yield self
            finally:
                self._is_closing = True
                self._wake.set()
                await task

    async def add(self, item: IngestItem) -> int:
        """Store the points of one request; how many of them were new."""
        if self._points + len(item.points) > self._queued_points or self._is_closing:
            raise TooManyRequests(
                f"{self._points} metric points are waiting to be stored, as many as are kept in memory; nothing of this "
                "request was stored."
            )
        waiting = _Waiting(item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._points += len(item.points)
        self._wake.set()
        outcome = await waiting.done
        if not outcome.found:
            raise RunNotFound.of(item.run_id, experiment_id=item.experiment_id)
        if not outcome.live:
            raise RunDeleted.of(item.run_id)
        return outcome.stored

    async def _run(self) -> None:
        while self._queue or not self._is_closing:
            if self._queue:
                await self._flush(self._next())
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next(self) -> list[_Waiting]:
        batch = [self._queue.popleft()]
        points = len(batch[0].item.points)
        while self._queue and points + len(self._queue[0].item.points) <= self._flushed_points:
            batch.append(self._queue.popleft())
            points += len(batch[-1].item.points)
        self._points -= points
        return batch

    async def _flush(self, batch: list[_Waiting]) -> None:
        """Store a batch. What the database refuses as a whole is tried one by one: nobody fails for another's points."""
        try:
            outcomes = await self._store([waiting.item for waiting in batch])
        except (DependencyUnavailable, StorageFull) as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001  # the edge of the worker: it must go on, and nobody may wait for ever
            if len(batch) == 1:
                log.warning("metric_ingest.failed", run_id=batch[0].item.run_id, error=repr(error))
                _fail(batch, error)
                return
            log.warning("metric_ingest.batch_refused", items=len(batch), error=repr(error))
            for waiting in batch:
                await self._flush([waiting])
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(outcome)

    async def _store(self, items: list[IngestItem]) -> list[IngestOutcome]:
        known = self._key_ids
        if all((item.project_id, key) in known for item in items for key in set(item.points.keys)):
            async with self._database.autocommit() as session:
                outcomes = await store(session, items, known)
            self._tell(items, outcomes)
            return outcomes
        async with self._database.write() as session:
            fresh = await intern_keys(session, items, known)
            outcomes = await store(session, items, known | fresh)
        if len(known) > CACHED_KEYS:
            known.clear()
        known.update(fresh)
        self._tell(items, outcomes)
        return outcomes

    def _tell(self, items: list[IngestItem], outcomes: list[IngestOutcome]) -> None:
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome.stored:
                counts = Counter(item.points.keys)
                ids = ((self._key_ids.get((item.project_id, key)), count) for key, count in counts.items())
                self.segments.stored(item.run_id, {key_id: count for key_id, count in ids if key_id is not None})


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)

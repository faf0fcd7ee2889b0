"""Building segments behind the ingest: one series after the other, each in short transactions."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from mlops_platform.core.db.database import Database
from mlops_platform.core.errors import PlatformError
from mlops_platform.tracking.domain.segments import POINTS
from mlops_platform.tracking.repository import segments

log = structlog.get_logger(__name__)

WORTHWHILE = 8 * POINTS
"""So many new points of a series are worth a transaction."""
REMEMBERED = 10_000
REBUILT_AFTER_GROWTH = 1.25

Series = tuple[str, int]
"""A run and the number of a key."""


class SegmentBuilder:
    """One per process. What it misses, because it was busy or stopped, the next reader of the series asks for again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: OrderedDict[Series, None] = OrderedDict()
        self._grown: OrderedDict[Series, int] = OrderedDict()
        self._rebuilt: OrderedDict[Series, int] = OrderedDict()
        self._wake = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SegmentBuilder"]:
        """Build what is wanted until the block ends."""
        task = asyncio.create_task(self._run(), name="metric-segments")
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def stored(self, run_id: str, points: Mapping[int, int]) -> None:
        """So many points of each key were stored."""
        for key_id, count in points.items():
            series = run_id, key_id
            grown = self._grown.pop(series, 0) + count
            if grown >= WORTHWHILE:
                self.want([series])
            else:
                _remember(self._grown, series, grown)

    def want(self, series: Iterable[Series]) -> None:
        """Build these when there is time."""
        for each in series:
            _remember(self._wanted, each, None)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                series, _ = self._wanted.popitem(last=False)
                try:
                    await self._build(series)
                except PlatformError as error:
                    # Away or busy: the reader who needs it asks again, and is served from the points until then.
                    log.info("metric_segments.put_off", run_id=series[0], error=str(error))
                except Exception as error:  # noqa: BLE001  # the edge of the worker: it must go on
                    log.warning("metric_segments.failed", run_id=series[0], error=repr(error))

    async def _build(self, series: Series) -> None:
        async with self._database.read() as session:
            points, are_true = await segments.counted(session, *series)
        if not are_true:
            if points < REBUILT_AFTER_GROWTH * self._rebuilt.get(series, 0):
                return
            await self._begin_anew(series)
        added = 1
        while added:
            async with self._database.write() as session:
                project_id = await segments.hold(session, *series)
                added = 0 if project_id is None else await segments.extend(session, project_id, *series)

    async def _begin_anew(self, series: Series) -> None:
        async with self._database.write() as session:
            # Alone: a segment that another builder adds at this moment would outlive those before it.
            project_id = await segments.hold(session, *series, alone=True)
            points, are_true = await segments.counted(session, *series)
            if project_id is not None and not are_true:
                _remember(self._rebuilt, series, points)
                await segments.forget(session, project_id, *series)


def _remember(known: OrderedDict[Series, Any], series: Series, value: Any) -> None:
    known[series] = value
    if len(known) > REMEMBERED:
        known.popitem(last=False)

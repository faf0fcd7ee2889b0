"""Routing: which model version a unit gets, and the record that it got it.

An exposure is queued in memory and written in batches, so it is the one kind of data here that can be lost: at most what
was queued since the last flush, when a process is killed or its queue is full because the database has been away. The
loss does not depend on the variant, so it makes a test smaller and not wrong; the unit's next request records it again.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from itertools import islice

from mlops_platform.ab_testing.domain.definition import Definition
from mlops_platform.ab_testing.errors import ABTestNotFound
from mlops_platform.ab_testing.repository import records
from mlops_platform.ab_testing.repository.records import ExposureRow
from mlops_platform.ab_testing.service.snapshot import Plan, Snapshot
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.database import Database
from mlops_platform.core.errors import DependencyUnavailable, StorageFull

FLUSH_ROWS = 2_000
MAX_QUEUED = 50_000
REMEMBERED = 20_000

_Identity = tuple[str, str, int]
_Rows = dict[_Identity, ExposureRow]


class ExposureQueue:
    """Exposures on their way to the database, one entry for each unit and variant however often they meet.

    That a unit has met a variant is what a test's result stands on, and is written soon. That it has met it again only
    counts, and waits: a busy unit must not cost a write in every flush.
    """

    def __init__(self, database: Database, clock: Clock, *, limit: int = MAX_QUEUED) -> None:
        self._database = database
        self._clock = clock
        self._limit = limit
        self._queued: _Rows = {}
        self._again: _Rows = {}
        self._written: set[_Identity] = set()
        self._flushing = asyncio.Lock()
        self._full = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._queued) + len(self._again)

    def add(self, test: Definition, unit_id: str, variant: int) -> None:
        """Queue one exposure, now. Never waits and never fails; a full queue drops and counts."""
        now = self._clock.now()
        identity = test.id, unit_id, variant
        rows = self._again if identity in self._written else self._queued
        row = rows.get(identity)
        if row is not None:
            row.last_exposed_at = now
            row.exposures += 1
            return
        if len(self) >= self._limit:
            self.dropped += 1
            return
        rows[identity] = ExposureRow(test.project_id, test.id, unit_id, variant, test.allocation_version, now, now)
        if len(self._queued) >= FLUSH_ROWS:
            self._full.set()

    async def flush(self, *, repeats: bool = True) -> None:
        """Write what is queued, with or without what only counts. What could not be written stays queued."""
        async with self._flushing:
            if repeats:
                self._queue_repeats()
            while self._queued:
                taken, self._queued = self._queued, {}
                try:
                    await self._write(list(taken.values()))
                except (DependencyUnavailable, StorageFull, asyncio.CancelledError):
                    self._take_back(taken)
                    raise
                except Exception:
                    # Rows that the database will never take must not block all others for ever.
                    self.dropped += sum(row.exposures for row in taken.values())
                    raise
                self._remember(taken)

    async def wait(self, seconds: float) -> None:
        """Until enough is queued to be worth writing, at most this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._full.wait()
        self._full.clear()

    async def _write(self, rows: Sequence[ExposureRow]) -> None:
        ordered = records.merged(rows)
        for start in range(0, len(ordered), FLUSH_ROWS):
            async with self._database.write() as session:
                await records.put_exposures(session, ordered[start : start + FLUSH_ROWS])

    def _queue_repeats(self) -> None:
        again, self._again = self._again, {}
        for identity, row in again.items():
            known = self._queued.setdefault(identity, row)
            if known is not row:
                known.absorb(row)

    def _remember(self, rows: _Rows) -> None:
        if len(self._written) + len(rows) > REMEMBERED:
            self._written.clear()  # forgetting costs a write and loses nothing
        self._written.update(islice(rows, REMEMBERED))

    def _take_back(self, rows: _Rows) -> None:
        """Put rows back beneath what came in meanwhile. Writing a row again is harmless."""
        newer, self._queued = self._queued, rows
        for identity, row in newer.items():
            known = rows.get(identity)
            if known is not None:
                known.absorb(row)
            elif len(rows) < self._limit:
                rows[identity] = row
            else:
                self.dropped += row.exposures


class Routing:
    """What routing keeps in memory: the snapshot of tests and the queue of exposures."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.snapshot = Snapshot(database)
        self.exposures = ExposureQueue(database, clock)
        self._stale = asyncio.Event()

    def wake(self) -> None:
        """Some replica has changed a test."""
        self._stale.set()

    async def plan(self, project_id: str, name: str) -> Plan:
        """The plan of a test, or `ABTestNotFound`. Only a name that is not in memory costs a query."""
        plan = self.snapshot.find(project_id, name) or await self.snapshot.look_up(project_id, name)
        if plan is None:
            raise ABTestNotFound.named(name)
        return plan

    def answer(self, plan: Plan, unit_id: str) -> bytes:
        """Route a unit and note its exposure."""
        variant, body = plan.route(unit_id)
        if variant is not None:
            self.exposures.add(plan.definition, unit_id, variant)
        return body

    async def wait_until_stale(self, seconds: float) -> None:
        """Until a replica has said that it changed something, at most this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stale.wait()
        self._stale.clear()

"""Rows on their way into the online store: at once after an ingest, later when that failed, or for a window on demand."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import structlog

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import Principal
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.features.backends.columns import to_batch, to_stamped
from mlops_platform.features.backends.joins import newest_rows
from mlops_platform.features.backends.offline import private_folder
from mlops_platform.features.backends.online import OnlineStore
from mlops_platform.features.domain.rows import RowBatch, StampedBatch, stamp
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.serving import online_rows
from mlops_platform.features.domain.times import MAX_US, MIN_US, wire_time
from mlops_platform.features.errors import FeatureSetNotFound, FeatureSetOffline
from mlops_platform.features.repository.rows import RowRepository, overdue_online
from mlops_platform.features.repository.sets import FeatureSetReader, to_view
from mlops_platform.features.service.author import Author
from mlops_platform.features.service.stored_rows import StoredRows

log = structlog.get_logger(__name__)

# An ingest that is not online by then was interrupted, or the store was away.
OVERDUE_SECONDS = 10
_AT_ONCE = 5000
_REPAIRED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Written:
    """What an ingest has committed: the newest row of each of its entities, and their common stamp."""

    newest: RowBatch | pa.Table
    created_us: int
    batch_id: str


class OnlineWriter:
    """Keeps the online store in step with the offline rows."""

    def __init__(self, runtime: Runtime, store: OnlineStore, rows: StoredRows) -> None:
        self._runtime = runtime
        self._store = store
        self._rows = rows

    async def after_ingest(self, principal: Principal, view: FeatureView, written: Written) -> bool:
        """Write the newest rows of an ingest that has been committed; False when that is left to the repair."""
        try:
            await self._put_newest(view, written)
        except DependencyUnavailable as error:
            log.warning("features.online_delayed", feature_set=view.name, batch_id=written.batch_id, error=error.detail)
            return False
        async with self._runtime.database.write() as session:
            await RowRepository(session, principal).written_online([written.batch_id])
        return True

    async def _put_newest(self, view: FeatureView, written: Written) -> None:
        """In parts: making Python values of a large table holds up every other request while it lasts."""
        newest, size = written.newest, len(written.newest)
        for start in range(0, size, _AT_ONCE):
            if isinstance(newest, pa.Table):
                batch = await asyncio.to_thread(to_batch, newest.slice(start, _AT_ONCE), view.schema.features)
            else:
                batch = newest if size <= _AT_ONCE else newest.take(range(start, min(start + _AT_ONCE, size)))
            await self.put(view, stamp(batch, created_us=written.created_us, batch_id=written.batch_id))

    async def put(self, view: FeatureView, stamped: StampedBatch) -> None:
        """Write rows, newer ones only."""
        rows = await asyncio.to_thread(online_rows, view, stamped)
        for start in range(0, len(rows), _AT_ONCE):
            await self._store.put_many(rows[start : start + _AT_ONCE])

    async def materialize_named(self, author: Author, name: str, *, start_us: int, end_us: int) -> int:
        """`materialize`, as a user asks for it."""
        async with self._runtime.database.read() as session:
            row = await FeatureSetReader(session, author.principal).feature_set(name)
        if row is None:
            raise FeatureSetNotFound(name)
        view = to_view(row)
        if not view.is_online:
            raise FeatureSetOffline(name)
        entities = await self.materialize(author.principal, view, start_us=start_us, end_us=end_us)
        async with self._runtime.database.write() as session:
            work = author.work(session, self._runtime.clock)
            window = {"start": wire_time(start_us), "end": wire_time(end_us), "entities": entities}
            await work.audit("feature_set.materialized", work.urn("feature-set", name), after=window)
            await work.emit("feature_set.materialized", work.urn("feature-set", name), window)
            session.after_commit(lambda: self._runtime.signals.send("events"))
        return entities

    async def materialize(
        self, principal: Principal, view: FeatureView, *, start_us: int = MIN_US, end_us: int = MAX_US
    ) -> int:
        """Write the newest row of each entity whose event lies in the window; how many entities that are."""
        features = view.schema.features
        async with self._rows.turn(), private_folder() as folder:
            source = await self._rows.source(principal, view, folder, first_us=start_us, last_us=end_us)
            newest = await asyncio.to_thread(
                newest_rows, source, features, start_us=start_us, end_us=end_us, work_folder=folder
            )
            for batch in newest.to_batches(max_chunksize=_AT_ONCE):
                await self.put(view, await asyncio.to_thread(to_stamped, newest.from_batches([batch]), features))
        return newest.num_rows

    async def repair(self, *, now_us: int) -> None:
        """Catch up on ingests whose online write was interrupted. Idempotent; any replica may do it."""
        async with self._runtime.database.read() as session:
            overdue = await overdue_online(session, before_us=now_us - OVERDUE_SECONDS * 1_000_000, limit=_REPAIRED_AT_ONCE)
        by_set: dict[tuple[str, str], list[str]] = {}
        for row in overdue:
            by_set.setdefault((row.project_id, row.feature_set_id), []).append(row.batch_id)
        for (project_id, feature_set_id), batch_ids in by_set.items():
            await self._repair_set(platform_principal(project_id), feature_set_id, batch_ids)

    async def _repair_set(self, principal: Principal, feature_set_id: str, batch_ids: Sequence[str]) -> None:
        async with self._runtime.database.read() as session:
            view = await FeatureSetReader(session, principal).view_by_id(feature_set_id)
        if view is not None and view.is_online:
            await self._store.check()  # before a whole feature set is read for a store that cannot take it
            await self.materialize(principal, view)
        async with self._runtime.database.write() as session:
            await RowRepository(session, principal).written_online(batch_ids)
        log.info("features.online_repaired", feature_set_id=feature_set_id, ingests=len(batch_ids))

"""Rows in: checked, committed with their audit entry and event, then online. All rows of a request, or none."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlops_platform.contracts.features import IngestResult, OnlineState
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.features.backends.columns import to_batch
from mlops_platform.features.backends.offline import OfflineFiles
from mlops_platform.features.backends.uploads import UploadFormat, conform_upload, event_span, newest_of, read_table
from mlops_platform.features.domain.rows import RowBatch, check_latest, check_times, newest, pack, read_json_rows
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.times import from_us, to_us
from mlops_platform.features.errors import FeatureSetNotFound
from mlops_platform.features.repository.rows import RowRepository
from mlops_platform.features.repository.sets import FeatureSetRepository, to_view
from mlops_platform.features.service.author import Author
from mlops_platform.features.service.definitions import Definitions
from mlops_platform.features.service.online_writes import OnlineWriter, Written
from mlops_platform.features.service.stored_rows import segment_holder, segment_values

# What is smaller waits in the database until a background duty makes a file of it.
SEGMENT_ROWS = 10_000
RECENT_BYTES = 4 * 1024 * 1024
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked rows: as a payload for the database or as a table for a file, and the newest of each entity."""

    row_count: int
    first_event_us: int
    last_event_us: int
    newest: RowBatch | pa.Table
    payload: bytes | None = None
    table: pa.Table | None = None


class FeaturesChanged(Exception):
    """The feature set is no longer what the rows were checked against; nothing was kept."""


Prepare = Callable[[FeatureView], Prepared]


class Ingest:
    """The use case, over the collaborators of the process."""

    def __init__(self, runtime: Runtime, definitions: Definitions, files: OfflineFiles, online: OnlineWriter) -> None:
        self._runtime = runtime
        self._definitions = definitions
        self._files = files
        self._online = online

    async def json_rows(self, author: Author, name: str, body: bytes) -> IngestResult:
        """Rows of a JSON body."""
        now_us = to_us(self._runtime.clock.now())
        return await self._ingest(author, name, lambda view: _prepare_json(body, view, now_us))

    async def upload(self, author: Author, name: str, path: Path, form: UploadFormat) -> IngestResult:
        """Rows of a columnar file."""
        now_us = to_us(self._runtime.clock.now())
        table = await asyncio.to_thread(read_table, path, form)
        return await self._ingest(author, name, lambda view: _prepare_table(table, view, now_us))

    async def _ingest(self, author: Author, name: str, prepare: Prepare) -> IngestResult:
        view = (await self._definitions.of(author.principal)).views.get(name)
        for _ in range(_ATTEMPTS):
            view = view or (await self._definitions.load(author.principal)).views.get(name)
            if view is None:
                raise FeatureSetNotFound(name)
            prepared = await asyncio.to_thread(prepare, view)
            try:
                return await self._store(author, view, prepared)
            except FeaturesChanged:
                view = None  # Read the rows again, as what they are now.
        raise DependencyUnavailable("feature set", f"The feature set {name!r} is changing; nothing was kept.")

    async def _store(self, author: Author, view: FeatureView, prepared: Prepared) -> IngestResult:
        """Commit the rows, then write them online."""
        batch_id = new_id()
        blob = None
        if prepared.table is not None:
            blob = await self._files.write(author.principal.project, prepared.table)
        created_us = await self._commit(author, view, prepared, batch_id=batch_id, blob=blob)
        online = OnlineState.OFF
        if view.is_online:
            written = Written(prepared.newest, created_us, batch_id)
            is_written = await self._online.after_ingest(author.principal, view, written)
            online = OnlineState.WRITTEN if is_written else OnlineState.PENDING
        return IngestResult(
            feature_set=view.name,
            version=view.schema.version,
            batch_id=batch_id,
            rows=prepared.row_count,
            created_at=from_us(created_us),
            online=online,
        )

    async def _commit(
        self, author: Author, view: FeatureView, prepared: Prepared, *, batch_id: str, blob: StoredBlob | None
    ) -> int:
        async with self._runtime.database.write() as session:
            work = author.work(session, self._runtime.clock)
            held = await FeatureSetRepository(session, author.principal).hold(view.name)
            if held is None:
                raise FeatureSetNotFound(view.name)
            if to_view(held) != view:
                raise FeaturesChanged
            rows = RowRepository(session, author.principal)
            created_us = await rows.clock_us()
            ids = {"feature_set_id": view.id, "batch_id": batch_id, "created_us": created_us}
            if blob is None:
                await rows.add_recent({**ids, "row_count": prepared.row_count, "payload": prepared.payload})
            else:
                events = (prepared.first_event_us, prepared.last_event_us)
                segment_id = new_id()
                kept = await self._files.blobs.hold(session, blob, segment_holder(segment_id))
                stamp_of_all = {"batch_id": batch_id, "created_us": created_us, "created_at": from_us(created_us)}
                values = segment_values(view, kept, events, id=segment_id, row_count=prepared.row_count, **stamp_of_all)
                await rows.add_segment(values)
            if view.is_online:
                await rows.add_pending(ids)
            await _record(work, view, prepared, batch_id)
            session.after_commit(lambda: self._runtime.signals.send("events"))
        return created_us


async def _record(work: UnitOfWork, view: FeatureView, prepared: Prepared, batch_id: str) -> None:
    """One entry and one event for the whole batch."""
    resource = work.urn("feature-set", view.name)
    summary = {
        "batch_id": batch_id,
        "version": view.schema.version,
        "rows": prepared.row_count,
        "entities": len(prepared.newest),
        "first_event": from_us(prepared.first_event_us).isoformat(),
        "last_event": from_us(prepared.last_event_us).isoformat(),
    }
    await work.audit("feature_rows.ingested", resource, after=summary)
    await work.emit("feature_rows.ingested", resource, summary)


def _prepare_json(body: bytes, view: FeatureView, now_us: int) -> Prepared:
    batch = read_json_rows(body, view)
    check_times(batch.event_us, now_us)
    return _of_batch(batch)


def _of_batch(batch: RowBatch) -> Prepared:
    return Prepared(len(batch), min(batch.event_us), max(batch.event_us), newest(batch), payload=pack(batch))


def _prepare_table(table: pa.Table, view: FeatureView, now_us: int) -> Prepared:
    rows = conform_upload(table, view)
    first_us, last_us = event_span(rows)
    check_latest(last_us, now_us)
    if rows.num_rows < SEGMENT_ROWS and rows.nbytes < RECENT_BYTES:
        return _of_batch(to_batch(rows, view.schema.features))
    return Prepared(rows.num_rows, first_us, last_us, newest_of(rows), table=rows)

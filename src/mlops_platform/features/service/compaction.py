"""Many small ingests become few files: first merged within the database, then, once they are many rows, a segment."""

import asyncio
from collections.abc import Sequence

import structlog

from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import Record, WriteSession
from mlops_platform.core.identity import Principal, new_id
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.features.backends.columns import to_table
from mlops_platform.features.backends.offline import OfflineFiles
from mlops_platform.features.domain.rows import StampedBatch, pack_stamped
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.times import from_us
from mlops_platform.features.repository.rows import RowRepository, crowded_sets
from mlops_platform.features.repository.sets import FeatureSetReader
from mlops_platform.features.service.stored_rows import segment_holder, segment_values, unpack_all

log = structlog.get_logger(__name__)

MERGE_INGESTS = 256
SEGMENT_ROWS = 20_000
# Every read of a feature set brings its recent rows into memory, where lists of floats take four times their stored size.
SEGMENT_BYTES = 32 * 1024**2
_MOST_INGESTS = 4096
_MOST_BYTES = 2 * SEGMENT_BYTES
_SETS_AT_ONCE = 100


async def compact(
    database: Database,
    files: OfflineFiles,
    *,
    ingests: int = MERGE_INGESTS,
    rows: int = SEGMENT_ROWS,
    size: int = SEGMENT_BYTES,
) -> int:
    """One pass over all projects; how many feature sets were worked on. Several replicas may do it at the same time."""
    async with database.read() as session:
        crowded = await crowded_sets(session, ingests=ingests, rows=rows, size=size, limit=_SETS_AT_ONCE)
    for row in crowded:
        await _compact_set(database, files, row, makes_segment=row.rows >= rows or row.size >= size)
    return len(crowded)


async def _compact_set(database: Database, files: OfflineFiles, crowded: Record, *, makes_segment: bool) -> None:
    principal = platform_principal(crowded.project_id)
    async with database.write() as session:
        rows = RowRepository(session, principal)
        taken = await rows.take_recent(
            crowded.feature_set_id, only_single=not makes_segment, most=_MOST_INGESTS, most_bytes=_MOST_BYTES
        )
        # After the claim: what was ingested by then was ingested with these features, or fewer.
        view = await FeatureSetReader(session, principal).view_by_id(crowded.feature_set_id)
        if not taken or view is None:
            return
        merged = await asyncio.to_thread(unpack_all, taken)
        if makes_segment:
            await _to_segment(session, files, principal, view, merged)
        await rows.remove_recent([row.batch_id for row in taken])
        if not makes_segment:
            await _to_one(rows, view, taken, merged)
    log.info("features.compacted", feature_set=view.name, ingests=len(taken), rows=len(merged.batch), segment=makes_segment)


async def _to_segment(
    session: WriteSession, files: OfflineFiles, principal: Principal, view: FeatureView, merged: StampedBatch
) -> None:
    table = await asyncio.to_thread(to_table, merged, view.schema.features)
    blob = await files.write(principal.project, table)
    segment_id = new_id()
    kept = await files.blobs.hold(session, blob, segment_holder(segment_id))
    events = (min(merged.batch.event_us), max(merged.batch.event_us))
    values = segment_values(view, kept, events, id=segment_id, row_count=len(merged.batch))
    await RowRepository(session, principal).add_segment({**values, "created_at": from_us(max(merged.created_us))})


async def _to_one(rows: RowRepository, view: FeatureView, taken: Sequence[Record], merged: StampedBatch) -> None:
    payload = await asyncio.to_thread(pack_stamped, merged)
    await rows.add_recent(
        {
            "batch_id": taken[-1].batch_id,
            "feature_set_id": view.id,
            "row_count": len(merged.batch),
            "created_us": taken[-1].created_us,
            "is_merged": True,
            "payload": payload,
        }
    )

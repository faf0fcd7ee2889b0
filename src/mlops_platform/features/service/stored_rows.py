"""The offline rows of a feature set, brought together for one read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mlops_platform.core.crypto.blob_format import BlobId
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import Principal, ProjectId, new_id
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.features.backends.columns import to_table
from mlops_platform.features.backends.joins import SegmentFile, Source
from mlops_platform.features.backends.offline import OfflineFiles
from mlops_platform.features.domain.rows import StampedBatch, concat, unpack
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.times import MAX_US, MIN_US
from mlops_platform.features.repository.rows import RowReader

# Each read of offline rows may take the engine's whole memory limit.
MAX_READS = 2


class StoredRows:
    """Reads of offline rows; a bounded number at a time."""

    def __init__(self, database: Database, files: OfflineFiles) -> None:
        self._database = database
        self._files = files
        self._turns = asyncio.Semaphore(MAX_READS)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until fewer than `MAX_READS` are under way."""
        async with self._turns:
            yield

    async def source(
        self, principal: Principal, view: FeatureView, folder: Path, *, first_us: int = MIN_US, last_us: int = MAX_US
    ) -> Source:
        """All rows with an event between the two moments, and perhaps more."""
        async with self._database.read() as session:
            listed = await list_rows(RowReader(session, principal), view, first_us=first_us, last_us=last_us)
        return await self.bring(listed, view, folder)

    async def bring(self, listed: "Listed", view: FeatureView, folder: Path) -> Source:
        """Fetch the files of what was listed."""
        files = []
        for row in listed.segments:
            [place] = await self._files.fetch([segment_blob(row)], folder)
            files.append(SegmentFile(place.path, row.created_us, row.batch_id))
        recent = await asyncio.to_thread(unpack_all, listed.recent)
        return Source(files, await asyncio.to_thread(to_table, recent, view.schema.features))


@dataclass(frozen=True, slots=True)
class Listed:
    """What the database says of a feature set's rows at one moment."""

    recent: Sequence[Record]
    segments: Sequence[Record]


async def list_rows(reader: RowReader, view: FeatureView, *, first_us: int, last_us: int) -> Listed:
    """Recent rows first: what moves into a segment meanwhile is seen twice, which changes nothing, and never missed."""
    recent = await reader.recent(view.id)
    return Listed(recent, await reader.segments(view.id, first_us=first_us, last_us=last_us))


def unpack_all(recent: Sequence[Record]) -> StampedBatch:
    """The rows of several ingests."""
    return concat([unpack(row.payload, created_us=row.created_us, batch_id=row.batch_id) for row in recent])


def segment_blob(row: Record) -> StoredBlob:
    """Where a segment is."""
    return StoredBlob(ProjectId(row.project_id), BlobId(row.blob_id), row.sha256, row.size, row.is_encrypted)


def segment_values(view: FeatureView, blob: StoredBlob, events: tuple[int, int], **values: object) -> dict[str, object]:
    """A segment for the manifest."""
    return {
        "id": new_id(),
        "feature_set_id": view.id,
        "blob_id": blob.blob_id,
        "sha256": blob.sha256,
        "size": blob.size,
        "is_encrypted": blob.is_encrypted,
        "first_event_us": events[0],
        "last_event_us": events[1],
        **values,
    }

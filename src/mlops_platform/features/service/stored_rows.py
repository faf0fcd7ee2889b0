"""The offline rows of a feature set, brought together for one read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from mlops_platform.core.crypto.blob_format import BlobId
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.identity import Principal, ProjectId
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
    async def using(self, turns: int) -> AsyncIterator[None]:
        """Wait for a turn."""
        del turns
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

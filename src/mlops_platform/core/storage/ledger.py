"""The account of blobs: every byte in the object store is either held by something, or about to be swept.

A blob is written down before its first byte is stored and completed after its last, so a crash at any moment leaves a
row that says what to remove. Content is shared within a project, never across: who uploads what another project has
must not be able to tell.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import Row, Text, any_, cast, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.clock import Clock
from mlops_platform.core.crypto.blob_format import BlobAddress, BlobId
from mlops_platform.core.crypto.errors import BlobCorrupt, BlobKeyUnavailable
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.blob_store import BlobStore, StoredBlob
from mlops_platform.core.storage.errors import BlobExpired, BlobMissing
from mlops_platform.core.storage.tables import blob_references, blobs

log = structlog.get_logger(__name__)

_UNFINISHED_AFTER = timedelta(hours=24)
_UNHELD_AFTER = timedelta(hours=1)
_SWEPT_AT_ONCE = 200


class BlobState(StrEnum):
    """`uploading` -> `stored` -> `doomed` -> gone."""

    UPLOADING = "uploading"
    STORED = "stored"
    DOOMED = "doomed"


class BlobLedger:
    """Blobs with their account. Bytes go through it; holding and releasing happens in the caller's transaction."""

    def __init__(self, database: Database, store: BlobStore, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.store = store

    async def write(
        self, project_id: ProjectId, chunks: AsyncIterator[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> StoredBlob:
        """Store a stream, which must have this SHA-256 if one is given. Unheld, the sweeper may take it after an hour."""
        blob_id = BlobId(new_id())
        row = {"id": blob_id, "project_id": project_id, "state": BlobState.UPLOADING, "created_at": self._clock.now()}
        async with self._database.write() as session:
            await session.execute(insert(blobs).values(row))
        blob = await self.store.write(project_id, chunks, max_bytes=max_bytes, blob_id=blob_id, sha256=sha256)
        async with self._database.write() as session:
            completed = await session.execute(
                update(blobs)
                .where(blobs.c.id == blob_id, blobs.c.state == BlobState.UPLOADING)
                .values(
                    state=BlobState.STORED,
                    sha256=blob.sha256,
                    size=blob.size,
                    is_encrypted=blob.is_encrypted,
                    created_at=self._clock.now(),
                )
            )
        if completed.rowcount == 0:
            await self.store.delete(blob.address)
            raise BlobExpired("The upload took so long that it was given up and removed.", hint="Send it again.")
        await self._mend_older(blob)
        return blob

    async def _mend_older(self, blob: StoredBlob) -> None:
        """Look whether the copy that `hold` will share is whole, and make it so out of the new one if it is not.

        Mended in its place, since services remember blobs by id. Reading it costs about what storing the new one did.
        """
        same = (blobs.c.project_id == blob.project_id) & (blobs.c.sha256 == blob.sha256)
        older = select(blobs).where(same, blobs.c.state == BlobState.STORED, blobs.c.id < blob.blob_id)
        async with self._database.read() as session:
            row = await session.first(older.order_by(blobs.c.id).limit(1))
        if row is None or row.is_encrypted != blob.is_encrypted or await self.is_whole(_stored(row)):
            return
        log.warning("storage.mended", blob_id=row.id, project_id=row.project_id)
        content = await self.store.read(blob)
        await self.store.write(blob.project_id, content, max_bytes=blob.size, blob_id=BlobId(row.id))
        async with self._database.read() as session:
            is_known = await session.first(older.where(blobs.c.id == row.id)) is not None
        if not is_known:  # swept meanwhile: what has no row is never removed again
            await self.store.delete(_stored(row).address)

    async def is_whole(self, blob: StoredBlob) -> bool:
        """Whether every byte of it can still be read; true as well when the store is away."""
        try:
            async with aclosing(await self.store.read(blob)) as content:
                async for _ in content:
                    pass
        except (BlobCorrupt, BlobMissing, BlobKeyUnavailable):
            return False
        except DependencyUnavailable:
            return True  # nobody knows, and the upload is not to blame
        return True

    async def hold(self, session: WriteSession, blob: StoredBlob, holder: str) -> StoredBlob:
        """Hold a blob, or the one of the same content that the project has already; the one that is held."""
        rows = await session.all(
            select(blobs)
            .where(
                blobs.c.project_id == blob.project_id,
                blobs.c.sha256 == blob.sha256,
                blobs.c.state == BlobState.STORED,
            )
            .order_by(blobs.c.id)
            .with_for_update(key_share=True, read=True)
        )
        if not rows:
            raise BlobExpired("The uploaded content waited too long to be used and was removed.", hint="Send it again.")
        kept = _stored(rows[0])
        statement = upsert(blob_references).values(project_id=kept.project_id, holder=holder, blob_id=kept.blob_id)
        await session.execute(
            statement.on_conflict_do_update(
                index_elements=["project_id", "holder"], set_={"blob_id": statement.excluded.blob_id}
            )
        )
        return kept

    async def release(self, session: WriteSession, project_id: ProjectId, holders: Sequence[str]) -> None:
        """Let go of what these hold; blobs that nothing holds any more are swept."""
        # One array and not one parameter each: a run may have more artifacts than a statement has parameters.
        these = any_(cast(list(holders), ARRAY(Text)))
        await session.execute(
            delete(blob_references).where(blob_references.c.project_id == project_id, blob_references.c.holder == these)
        )

    async def share(self, session: WriteSession, project_id: ProjectId, holders: Mapping[str, str]) -> None:
        """Let new holders hold what others hold. The caller sees to it that none of the others lets go meanwhile."""
        pairs = func.unnest(cast(list(holders), ARRAY(Text)), cast(list(holders.values()), ARRAY(Text)))
        pair = pairs.table_valued("old", "new").render_derived("pair")
        shared = (
            select(blob_references.c.project_id, cast(pair.c.new, Text), blob_references.c.blob_id)
            .join(pair, blob_references.c.holder == pair.c.old)
            .where(blob_references.c.project_id == project_id)
        )
        await session.execute(insert(blob_references).from_select(["project_id", "holder", "blob_id"], shared))

    async def release_all(self, session: WriteSession, project_id: ProjectId, beginnings: Sequence[str]) -> None:
        """Let go of all that is held under names with these beginnings."""
        named = or_(*(blob_references.c.holder.startswith(each, autoescape=True) for each in beginnings))
        await session.execute(delete(blob_references).where(blob_references.c.project_id == project_id, named))

    async def held(self, session: ReadSession, project_id: ProjectId, holder: str) -> StoredBlob | None:
        """The blob that this one holds."""
        row = await session.first(
            select(blobs)
            .join(blob_references, blob_references.c.blob_id == blobs.c.id)
            .where(blob_references.c.project_id == project_id, blob_references.c.holder == holder)
        )
        return _stored(row) if row else None

    async def held_by(self, session: ReadSession, project_id: ProjectId, holders: Sequence[str]) -> dict[str, StoredBlob]:
        """The blobs that these hold, by holder."""
        these = any_(cast(list(holders), ARRAY(Text)))
        rows = await session.all(
            select(blobs, blob_references.c.holder)
            .join(blob_references, blob_references.c.blob_id == blobs.c.id)
            .where(blob_references.c.project_id == project_id, blob_references.c.holder == these)
        )
        return {row.holder: _stored(row) for row in rows}

    async def sweep_all(self) -> int:
        """`sweep`, until nothing is left to remove."""
        swept = latest = await self.sweep()
        while latest == _SWEPT_AT_ONCE:
            latest = await self.sweep()
            swept += latest
        return swept

    async def sweep(self) -> int:
        """Remove what nothing holds and what died while uploading; how many blobs went."""
        now = self._clock.now()
        await self.store.sweep(now - _UNFINISHED_AFTER)
        doomed = await self._doom(now)
        for row in doomed:
            await self.store.delete(BlobAddress(ProjectId(row.project_id), BlobId(row.id)))
        async with self._database.write() as session:
            await session.execute(
                delete(blobs).where(blobs.c.id.in_([row.id for row in doomed]), blobs.c.state == BlobState.DOOMED)
            )
        return len(doomed)

    async def _doom(self, now: datetime) -> Sequence[Row[Any]]:
        """Decide in one transaction, remove after it: from here on nothing can hold them any more."""
        is_held = exists().where(blob_references.c.blob_id == blobs.c.id)
        is_dead = or_(
            blobs.c.state == BlobState.DOOMED,
            (blobs.c.state == BlobState.UPLOADING) & (blobs.c.created_at < now - _UNFINISHED_AFTER),
            (blobs.c.state == BlobState.STORED) & (blobs.c.created_at < now - _UNHELD_AFTER) & ~is_held,
        )
        async with self._database.write() as session:
            locked = await session.all(
                select(blobs.c.id).where(is_dead).limit(_SWEPT_AT_ONCE).with_for_update(skip_locked=True)
            )
            # Asked again under the lock: whoever held one meanwhile has committed, and is seen now.
            chosen = await session.all(select(blobs).where(blobs.c.id.in_([row.id for row in locked]), is_dead))
            await session.execute(
                update(blobs).where(blobs.c.id.in_([row.id for row in chosen])).values(state=BlobState.DOOMED)
            )
        return chosen


def _stored(row: Row[Any]) -> StoredBlob:
    return StoredBlob(ProjectId(row.project_id), BlobId(row.id), row.sha256, row.size, row.is_encrypted)

"""Statements on uploads in parts as the version before kept them; `core.storage.uploads` keeps them now."""

from datetime import timedelta

from sqlalchemy import delete, select

from mlops_platform.core.clock import Clock
from mlops_platform.core.db.database import Database
from mlops_platform.core.identity import ProjectId
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.storage.tables import uploads as taken_over
from mlops_platform.tracking.tables import uploads

_FORGOTTEN_AFTER = timedelta(hours=48)
_AT_ONCE = 100


async def forget_begun_before(database: Database, ledger: BlobLedger, clock: Clock) -> None:
    """End those of every project that replicas of the version before have begun, and nobody has ended.

    Parts of one that was taken over are its new row's to let go of: somebody may still go on with it.
    """
    async with database.write() as session:
        old = uploads.select().where(uploads.c.created_at < clock.now() - _FORGOTTEN_AFTER)
        rows = await session.all(old.limit(_AT_ONCE).with_for_update(skip_locked=True))
        ids = [row.id for row in rows]
        taken = {row.id for row in await session.all(select(taken_over.c.id).where(taken_over.c.id.in_(ids)))}
        for row in rows:
            if row.id in taken:
                continue
            holders = [f"upload/{row.id}/{number}" for number in range(1, row.parts + 1)]
            await ledger.release(session, ProjectId(row.project_id), holders)
        await session.execute(delete(uploads).where(uploads.c.id.in_(ids)))

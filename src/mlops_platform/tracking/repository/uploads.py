"""Statements on uploads in parts as the version before kept them; `core.storage.uploads` keeps them now."""

from datetime import timedelta

from sqlalchemy import delete

from mlops_platform.core.clock import Clock
from mlops_platform.core.db.database import Database
from mlops_platform.core.identity import ProjectId
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.tracking.tables import uploads

_FORGOTTEN_AFTER = timedelta(hours=48)
_AT_ONCE = 100


async def forget_begun_before(database: Database, ledger: BlobLedger, clock: Clock) -> None:
    """End those of every project that replicas of the version before have begun, and nobody has ended."""
    async with database.write() as session:
        old = uploads.select().where(uploads.c.created_at < clock.now() - _FORGOTTEN_AFTER)
        rows = await session.all(old.limit(_AT_ONCE).with_for_update(skip_locked=True))
        for row in rows:
            holders = [f"upload/{row.id}/{number}" for number in range(1, row.parts + 1)]
            await ledger.release(session, ProjectId(row.project_id), holders)
        await session.execute(delete(uploads).where(uploads.c.id.in_([row.id for row in rows])))

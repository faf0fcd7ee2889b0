"""Statements on uploads in parts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.tables import uploads


def part_holder(upload_id: str, number: int) -> str:
    """The name by which a part holds its blob."""
    return f"upload/{upload_id}/{number}"


class UploadRepository:
    """Reads and writes within the principal's project."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def add(self, values: Mapping[str, Any]) -> None:
        """Begin an upload."""
        await self._session.execute(insert(uploads).values({**values, "project_id": self._principal.project}))

    async def upload(self, upload_id: str) -> Record | None:
        """One that was begun and has not ended; its end waits until this transaction's."""
        statement = visible_to(self._principal, uploads).where(uploads.c.id == upload_id)
        return await self._session.first(statement.with_for_update(read=True))

    async def remove(self, upload_id: str) -> None:
        """End an upload."""
        mine = in_project(self._principal, uploads)
        await self._session.execute(delete(uploads).where(mine, uploads.c.id == upload_id))


async def forget_begun_before(session: WriteSession, moment: datetime, *, limit: int) -> Sequence[Record]:
    """End those of every project that nobody has ended; what they were."""
    old = uploads.select().where(uploads.c.created_at < moment).limit(limit).with_for_update(skip_locked=True)
    rows = await session.all(old)
    await session.execute(delete(uploads).where(uploads.c.id.in_([row.id for row in rows])))
    return rows

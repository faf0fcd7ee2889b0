"""Ingested rows: recent ones, segments, and what is still to be written online."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import Row, delete, extract, func, insert, select

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.features.tables import online_pending, recent_rows, segments

# Known without reading the value.
_SIZE = func.octet_length(recent_rows.c.payload)


class RowReader:
    """What is stored of one feature set."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def recent(self, feature_set_id: str) -> Sequence[Row[Any]]:
        """Ingests that are not in a segment yet, oldest first."""
        return await self._session.all(
            visible_to(self._principal, recent_rows)
            .where(recent_rows.c.feature_set_id == feature_set_id)
            .order_by(recent_rows.c.created_us)
        )

    async def segments(self, feature_set_id: str, *, first_us: int, last_us: int) -> Sequence[Row[Any]]:
        """The segments with an event between the two moments."""
        return await self._session.all(
            visible_to(self._principal, segments)
            .where(
                segments.c.feature_set_id == feature_set_id,
                segments.c.first_event_us <= last_us,
                segments.c.last_event_us >= first_us,
            )
            .order_by(segments.c.id)
        )


class RowRepository(RowReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def clock_us(self) -> int:
        """The database's clock in microseconds: one clock for all replicas, so that ingests have one order."""
        moment = await self._session.scalar(select(extract("epoch", func.clock_timestamp()) * 1_000_000))
        return int(moment)

    async def add_recent(self, values: Mapping[str, Any]) -> None:
        """Keep one ingest."""
        await self._session.execute(insert(recent_rows).values({**values, "project_id": self._principal.project}))

    async def add_segment(self, values: Mapping[str, Any]) -> None:
        """List a file."""
        await self._session.execute(insert(segments).values({**values, "project_id": self._principal.project}))

    async def add_pending(self, values: Mapping[str, Any]) -> None:
        """Remember that an ingest is to be written online."""
        await self._session.execute(insert(online_pending).values({**values, "project_id": self._principal.project}))

    async def written_online(self, batch_ids: Sequence[str]) -> None:
        """Forget it again."""
        await self._session.execute(
            delete(online_pending).where(
                in_project(self._principal, online_pending), online_pending.c.batch_id.in_(batch_ids)
            )
        )

    async def take_recent(
        self, feature_set_id: str, *, only_single: bool, most: int, most_bytes: int
    ) -> Sequence[Row[Any]]:
        """Claim ingests for merging, oldest first; what another process merges is passed over."""
        statement = visible_to(self._principal, recent_rows).where(recent_rows.c.feature_set_id == feature_set_id)
        if only_single:
            statement = statement.where(recent_rows.c.is_merged.is_(False))
        sizes = statement.with_only_columns(recent_rows.c.batch_id, _SIZE.label("size"))
        claimed = await self._session.all(
            sizes.order_by(recent_rows.c.created_us).limit(most).with_for_update(skip_locked=True)
        )
        room = accumulate(row.size for row in claimed[1:])  # One there is always room for.
        chosen = [row.batch_id for row, total in zip(claimed, (0, *room), strict=False) if total <= most_bytes]
        return await self._session.all(
            statement.where(recent_rows.c.batch_id.in_(chosen)).order_by(recent_rows.c.created_us)
        )

    async def remove_recent(self, batch_ids: Sequence[str]) -> None:
        """Take away ingests that now stand elsewhere."""
        await self._session.execute(
            delete(recent_rows).where(in_project(self._principal, recent_rows), recent_rows.c.batch_id.in_(batch_ids))
        )


async def overdue_online(session: ReadSession, *, before_us: int, limit: int) -> Sequence[Row[Any]]:
    """Ingests of any project that should have been online by then. A background duty acts for all projects."""
    return await session.all(
        select(online_pending)
        .where(online_pending.c.created_us < before_us)
        .order_by(online_pending.c.created_us)
        .limit(limit)
    )


async def crowded_sets(session: ReadSession, *, ingests: int, rows: int, size: int, limit: int) -> Sequence[Row[Any]]:
    """Feature sets of any project with many recent ingests, or many rows or bytes in them: work for a background duty."""
    single = func.count().filter(recent_rows.c.is_merged.is_(False))
    total = func.sum(recent_rows.c.row_count)
    held = func.sum(_SIZE)
    return await session.all(
        select(
            recent_rows.c.project_id,
            recent_rows.c.feature_set_id,
            single.label("ingests"),
            total.label("rows"),
            held.label("size"),
        )
        .group_by(recent_rows.c.project_id, recent_rows.c.feature_set_id)
        .having((single >= ingests) | (total >= rows) | (held >= size))
        .order_by(held.desc())
        .limit(limit)
    )

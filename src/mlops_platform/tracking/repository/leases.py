"""Statements on who writes a run, and on the runs whose writer fell silent."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.leases import Lease, due
from mlops_platform.tracking.tables import run_leases, runs


class LeaseReader:
    """Reads."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def lease(self, run_id: str) -> Lease | None:
        """Who writes a run."""
        row = await self._session.first(visible_to(self._principal, run_leases).where(run_leases.c.run_id == run_id))
        return to_lease(row) if row else None


class LeaseRepository(LeaseReader):
    """Writes."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def take(self, run_id: str, writer: str, heartbeat_seconds: int | None, now: datetime) -> None:
        """Give the run to a writer, whoever had it."""
        values = {
            "writer": writer,
            "taken_at": now,
            "beat_at": now,
            "heartbeat_seconds": heartbeat_seconds,
            "due_at": due(now, heartbeat_seconds),
        }
        statement = upsert(run_leases).values(project_id=self._principal.project, run_id=run_id, **values)
        await self._session.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_=values))

    async def beat(self, run_id: str, heartbeat_seconds: int | None, now: datetime) -> bool:
        """Note a sign of life; False when nobody has the run."""
        values = {"beat_at": now, "heartbeat_seconds": heartbeat_seconds, "due_at": due(now, heartbeat_seconds)}
        mine = in_project(self._principal, run_leases)
        done = await self._session.execute(update(run_leases).where(mine, run_leases.c.run_id == run_id).values(values))
        return bool(done.rowcount)

    async def hold(self, run_id: str) -> Lease | None:
        """The lease, held until the commit."""
        statement = visible_to(self._principal, run_leases).where(run_leases.c.run_id == run_id)
        row = await self._session.first(statement.with_for_update())
        return to_lease(row) if row else None

    async def end(self, run_id: str) -> None:
        """Nobody writes it any more."""
        mine = in_project(self._principal, run_leases)
        await self._session.execute(delete(run_leases).where(mine, run_leases.c.run_id == run_id))


async def claim_silent(session: WriteSession, now: datetime, limit: int) -> Sequence[Record]:
    """Running runs whose heartbeat is overdue, of every project, held; those that another replica holds are passed over."""
    statement = (
        select(runs, *(column.label(f"lease_{column.name}") for column in run_leases.c))
        .join(run_leases, run_leases.c.run_id == runs.c.id)
        .where(run_leases.c.due_at < now, runs.c.status == "RUNNING")
        .order_by(run_leases.c.due_at)
        .limit(limit)
        .with_for_update(of=[runs, run_leases], skip_locked=True)
    )
    return await session.all(statement)


def to_lease(row: Record, prefix: str = "") -> Lease:
    """A stored lease; `prefix` where its columns stand beside those of the run."""
    names = ("writer", "taken_at", "beat_at", "heartbeat_seconds", "due_at")
    return Lease(*(getattr(row, f"{prefix}{name}") for name in names))

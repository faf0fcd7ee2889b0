"""Claiming tasks and keeping the claim. The clock is the database's: no worker's clock decides who owns a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.contracts.pipelines import AttemptState, TaskRunState
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.pipelines.domain.states import CLAIMABLE_TASKS
from mlops_platform.pipelines.tables import (
    attempts,
    in_states,
    pipeline_runs,
    pipeline_tasks,
    run_tokens,
    task_runs,
)

_NOW = func.statement_timestamp()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker has room for, and which modules it runs (patterns; none is any)."""

    worker_id: str
    worker: str
    slots: int
    cpus: float
    memory_mb: int
    gpus: int
    allow: Sequence[str] = ()


async def limit_idling(session: WriteSession, limit: timedelta) -> None:
    """End this transaction when its process falls silent within it: a frozen worker must not hold a run for long."""
    milliseconds = str(int(limit.total_seconds() * 1000))
    await session.execute(select(func.set_config("idle_in_transaction_session_timeout", milliseconds, True)))  # noqa: FBT003  # SQL


async def claim(session: WriteSession, offer: Offer, lease: timedelta) -> Sequence[Row[Any]]:
    """Take ready tasks that fit, oldest first, and open an attempt of each.

    Rows that another worker is claiming are skipped, not waited for. Among those locked, only the first that fit
    together are taken; the others are free again when the transaction ends.
    """
    candidates = (
        select(task_runs.c.id, task_runs.c.not_before, task_runs.c.cpus, task_runs.c.memory_mb, task_runs.c.gpus)
        .where(
            in_states(task_runs.c.state, CLAIMABLE_TASKS),
            task_runs.c.not_before <= _NOW,
            task_runs.c.cpus <= offer.cpus,
            task_runs.c.memory_mb <= offer.memory_mb,
            task_runs.c.gpus <= offer.gpus,
            *_allowed(offer.allow),
        )
        .order_by(task_runs.c.not_before, task_runs.c.id)
        .limit(offer.slots)
        .with_for_update(skip_locked=True)
        .cte("candidates")
    )
    place = (candidates.c.not_before, candidates.c.id)
    sums = select(
        candidates.c.id,
        func.sum(candidates.c.cpus).over(order_by=place).label("cpus"),
        func.sum(candidates.c.memory_mb).over(order_by=place).label("memory_mb"),
        func.sum(candidates.c.gpus).over(order_by=place).label("gpus"),
    ).cte("sums")
    fitting = select(sums.c.id).where(
        sums.c.cpus <= offer.cpus, sums.c.memory_mb <= offer.memory_mb, sums.c.gpus <= offer.gpus
    )
    claimed = await session.execute(
        update(task_runs)
        .where(task_runs.c.id.in_(fitting))
        .values(
            state=TaskRunState.RUNNING.value,
            attempt=task_runs.c.attempt + 1,
            worker_id=offer.worker_id,
            worker=offer.worker,
            lease_until=_NOW + lease,
            not_before=None,
            started_at=func.coalesce(task_runs.c.started_at, _NOW),
        )
        .returning(task_runs.c.id, task_runs.c.project_id, task_runs.c.attempt)
    )
    taken = claimed.all()
    if not taken:
        return ()
    await session.execute(
        insert(attempts).values(started_at=_NOW),
        [
            {
                "project_id": row.project_id,
                "task_run_id": row.id,
                "number": row.attempt,
                "state": AttemptState.RUNNING.value,
                "worker_id": offer.worker_id,
                "worker": offer.worker,
            }
            for row in taken
        ],
    )
    return await _with_specs(session, [row.id for row in taken])


def _allowed(patterns: Sequence[str]) -> list[ColumnElement[bool]]:
    if not patterns:
        return []
    likes = (pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") for pattern in patterns)
    clauses = [task_runs.c.module.like(like.replace("*", "%").replace("?", "_"), escape="\\") for like in likes]
    return [or_(*clauses)]


async def _with_specs(session: WriteSession, task_run_ids: Sequence[str]) -> Sequence[Row[Any]]:
    return await session.all(
        select(
            task_runs.c.id,
            task_runs.c.project_id,
            task_runs.c.run_id,
            task_runs.c.task,
            task_runs.c.item,
            task_runs.c.item_value,
            task_runs.c.attempt,
            pipeline_tasks.c.spec,
            pipeline_runs.c.parameters,
            pipeline_runs.c.scheduled_for,
            pipeline_runs.c.principal_id,
            pipeline_runs.c.principal_name,
            pipeline_runs.c.scopes,
            pipeline_runs.c.trace_parent,
        )
        .join(pipeline_runs, pipeline_runs.c.id == task_runs.c.run_id)
        .join(
            pipeline_tasks,
            and_(
                pipeline_tasks.c.version_id == task_runs.c.version_id,
                pipeline_tasks.c.position == task_runs.c.position,
            ),
        )
        .where(task_runs.c.id.in_(task_run_ids))
        .order_by(task_runs.c.run_id, task_runs.c.position, task_runs.c.item)
    )


async def results_of(session: ReadSession, wanted: Sequence[tuple[str, str]]) -> Sequence[Row[Any]]:
    """The results of (run, task) pairs; a fan-out gives one row for each item beside its own."""
    if not wanted:
        return ()
    return await session.all(
        select(task_runs.c.run_id, task_runs.c.task, task_runs.c.item, task_runs.c.result)
        .where(tuple_(task_runs.c.run_id, task_runs.c.task).in_(wanted))
        .order_by(task_runs.c.run_id, task_runs.c.position, task_runs.c.item)
    )


async def renew(
    session: WriteSession, worker_id: str, held: Sequence[tuple[str, int]], lease: timedelta
) -> Mapping[tuple[str, int], str]:
    """Extend the leases of attempts that are still this worker's; the state of the run of each that is.

    An attempt that is missing from the answer belongs to somebody else by now, or to nobody.
    """
    rows = await session.execute(
        update(task_runs)
        .where(
            tuple_(task_runs.c.id, task_runs.c.attempt).in_(held),
            task_runs.c.worker_id == worker_id,
            task_runs.c.state == TaskRunState.RUNNING.value,
            pipeline_runs.c.id == task_runs.c.run_id,
        )
        .values(lease_until=_NOW + lease)
        .returning(task_runs.c.id, task_runs.c.attempt, pipeline_runs.c.state)
    )
    return {(row.id, row.attempt): row.state for row in rows}


async def expired(session: ReadSession, limit: int) -> Sequence[Row[Any]]:
    """Attempts whose worker has not renewed in time."""
    return await session.all(
        select(task_runs.c.id, task_runs.c.attempt, task_runs.c.worker, task_runs.c.worker_id)
        .where(task_runs.c.lease_until < _NOW, task_runs.c.state == TaskRunState.RUNNING.value)
        .order_by(task_runs.c.lease_until)
        .limit(limit)
    )


async def keep_token(session: WriteSession, project_id: str, run_id: str, credential_id: str) -> None:
    """Remember a token that was issued for a run."""
    statement = upsert(run_tokens).values(project_id=project_id, run_id=run_id, credential_id=credential_id)
    await session.execute(statement.on_conflict_do_nothing())


async def take_tokens(session: WriteSession, run_ids: Sequence[str]) -> list[str]:
    """The tokens of runs that have ended, to revoke; they are forgotten here."""
    gone = await session.execute(
        run_tokens.delete().where(run_tokens.c.run_id.in_(run_ids)).returning(run_tokens.c.credential_id)
    )
    return [row.credential_id for row in gone]

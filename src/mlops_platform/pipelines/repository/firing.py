"""Schedules that are due and runs that wait for their turn, for every project."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, update

from mlops_platform.contracts.pipelines import PipelineRunState
from mlops_platform.core.db.session import WriteSession
from mlops_platform.pipelines.domain.states import OPEN_RUNS
from mlops_platform.pipelines.tables import in_states, pipeline_runs, pipeline_versions, pipelines, schedules

_QUEUED = PipelineRunState.QUEUED.value


async def claim_due(session: WriteSession, now: datetime, limit: int) -> Sequence[Row[Any]]:
    """Schedules whose instant has come, held; those that another scheduler holds are skipped."""
    return await session.all(
        select(
            schedules,
            pipelines.c.name.label("pipeline"),
            pipeline_versions.c.id.label("version_id"),
            pipeline_versions.c.version,
            pipeline_versions.c.task_count,
            pipeline_versions.c.parameters.label("declared"),
        )
        .join(pipelines, pipelines.c.id == schedules.c.pipeline_id)
        .join(
            pipeline_versions,
            (pipeline_versions.c.pipeline_id == pipelines.c.id)
            & (pipeline_versions.c.version == pipelines.c.current_version),
        )
        .where(schedules.c.next_at <= now, ~schedules.c.is_paused, pipelines.c.deleted_at.is_(None))
        .order_by(schedules.c.next_at)
        .limit(limit)
        .with_for_update(of=schedules, skip_locked=True)
    )


async def database_time(session: WriteSession) -> datetime:
    """Now, by the clock that all schedulers share."""
    now: datetime = await session.scalar(select(func.statement_timestamp()))
    return now


async def fired(session: WriteSession, schedule_id: str, *, next_at: datetime | None, last_at: datetime | None) -> None:
    """Move a schedule on."""
    values: dict[str, Any] = {"next_at": next_at} | ({"last_at": last_at} if last_at else {})
    await session.execute(update(schedules).where(schedules.c.id == schedule_id).values(values))


async def count_open_runs(session: WriteSession, schedule_id: str) -> int:
    """How many runs of a schedule have not ended."""
    statement = select(func.count()).where(
        pipeline_runs.c.schedule_id == schedule_id, in_states(pipeline_runs.c.state, OPEN_RUNS)
    )
    return int(await session.scalar(statement))


async def claim_queued(session: WriteSession, limit: int) -> Sequence[Row[Any]]:
    """The oldest queued run of each schedule that has nothing else open, held."""
    other = pipeline_runs.alias("other")
    # A run is in the way when it is under way, or queued for an earlier instant.
    in_the_way = (
        select(other.c.id)
        .where(
            other.c.schedule_id == pipeline_runs.c.schedule_id,
            in_states(other.c.state, OPEN_RUNS),
            (other.c.state != _QUEUED) | (other.c.scheduled_for < pipeline_runs.c.scheduled_for),
        )
        .exists()
    )
    return await session.all(
        select(pipeline_runs, pipelines.c.name.label("pipeline"))
        .join(pipelines, pipelines.c.id == pipeline_runs.c.pipeline_id)
        .where(in_states(pipeline_runs.c.state, frozenset({PipelineRunState.QUEUED})), ~in_the_way)
        .order_by(pipeline_runs.c.scheduled_for)
        .limit(limit)
        .with_for_update(of=pipeline_runs, skip_locked=True)
    )

"""Schedules that come due, and runs that wait for their turn."""

from datetime import datetime, timedelta
from typing import Any

from mlops_platform.contracts.pipelines import CatchUp, Overlap, RunTrigger
from mlops_platform.core.clock import Clock, to_wire
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.pipelines.domain.cron import Due, due
from mlops_platform.pipelines.domain.parameters import bind
from mlops_platform.pipelines.errors import ParametersInvalid, ScheduleInvalid
from mlops_platform.pipelines.repository import firing as sql
from mlops_platform.pipelines.service.runs import NewRun, acting_for, begin_run, declared_parameters, open_run

_BATCH = 50
_TRY_AGAIN = timedelta(minutes=5)
MAX_QUEUED = 100


class Firing:
    """One transaction's worth of firing. Schedules are claimed rows: any number of replicas may do this at once."""

    def __init__(self, session: WriteSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def fire_due(self) -> int:
        """Make the runs of every schedule whose instant has come; how many schedules that were."""
        now = await sql.database_time(self._session)
        schedules = await sql.claim_due(self._session, now, _BATCH)
        for schedule in schedules:
            try:
                found = _due(schedule, now)
            except ScheduleInvalid as error:
                # Set where its zone was known, and it is not here: the others go on, and it is looked at again.
                await self._tell_failure(schedule, error.detail)
                await sql.fired(self._session, schedule.id, next_at=now + _TRY_AGAIN, last_at=None)
                continue
            await self._fire(schedule, found)
            last_at = found.instants[-1] if found.instants else None
            await sql.fired(self._session, schedule.id, next_at=found.next_at, last_at=last_at)
        return len(schedules)

    async def start_queued(self) -> int:
        """Start queued runs whose predecessors have ended; how many that were."""
        rows = await sql.claim_queued(self._session, _BATCH)
        for row in rows:
            await begin_run(UnitOfWork(self._session, acting_for(row), self._clock), row.id, row.pipeline)
        return len(rows)

    async def _tell_failure(self, schedule: Any, reason: str) -> None:
        work = UnitOfWork(self._session, acting_for(schedule), self._clock)
        facts = {"pipeline": schedule.pipeline, "reason": reason}
        await work.emit("schedule.failed", work.urn("pipeline", schedule.pipeline), facts)

    async def _fire(self, schedule: Any, found: Due) -> None:
        work = UnitOfWork(self._session, acting_for(schedule), self._clock)
        overlap = Overlap(schedule.overlap)
        instants, skipped = found.instants, found.skipped
        if overlap is not Overlap.ALLOW and instants:
            is_open = await sql.count_open_runs(self._session, schedule.id)
            room = MAX_QUEUED - is_open if overlap is Overlap.QUEUE else int(is_open == 0)
            kept = instants[-room:] if room > 0 else ()
            skipped += len(instants) - len(kept)
            instants = kept
        subject = work.urn("pipeline", schedule.pipeline)
        if skipped:
            facts = {"pipeline": schedule.pipeline, "count": skipped, "overlap": overlap.value}
            await work.emit("schedule.skipped", subject, facts)
        try:
            parameters = bind(declared_parameters(schedule.declared), schedule.parameters)
        except ParametersInvalid as error:
            # A newer version asks for parameters that the schedule does not give: its owner is told, others go on.
            await self._tell_failure(schedule, error.detail)
            return
        for instant in instants:
            new = NewRun(
                pipeline_id=schedule.pipeline_id,
                pipeline=schedule.pipeline,
                version_id=schedule.version_id,
                version=schedule.version,
                task_count=schedule.task_count,
                parameters=parameters,
                trigger=RunTrigger.SCHEDULE,
                schedule_id=schedule.id,
                scheduled_for=instant,
                is_queued=overlap is Overlap.QUEUE,
            )
            await open_run(work, new)
        if instants:
            await work.emit(
                "schedule.fired", subject, {"pipeline": schedule.pipeline, "instants": [to_wire(at) for at in instants]}
            )


def _due(schedule: Any, now: datetime) -> Due:
    return due(
        schedule.cron,
        schedule.time_zone,
        next_at=schedule.next_at,
        now=now,
        catch_up=CatchUp(schedule.catch_up),
        catch_up_limit=schedule.catch_up_limit,
    )

"""Use cases on who writes a run: heartbeats, resuming, and what happens to a run whose writer fell silent."""

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.contracts.tracking_runs import Heartbeat, RunResume
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.session import Record, WriteSession
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import ProjectId
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain import leases
from mlops_platform.tracking.domain import runs as rules
from mlops_platform.tracking.domain.leases import Lease
from mlops_platform.tracking.errors import RunDeleted, RunFellSilent, RunNotFound, RunNotRunning
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.leases import LeaseRepository, claim_silent, to_lease
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.holding import hold_run, record_run

_AT_ONCE = 100


class RunLife:
    """The use cases of one caller."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._runs = RunRepository(work.session, work.principal)
        self._leases = LeaseRepository(work.session, work.principal)

    async def beat(self, run_id: str, beat: Heartbeat, *, experiment_id: str | None = None) -> Lease:
        """Note that the writer is alive. Only the lease is held, never the run: a beat waits for nothing."""
        now = self._work.clock.now()
        lease = await self._leases.hold(run_id)
        # Read after the lease is held: whoever fails a silent run holds both.
        run = await self._runs.run(run_id, experiment_id=experiment_id)
        if run is None:
            raise RunNotFound.of(run_id, experiment_id=experiment_id)
        self._check(run, lease, beat, run_id)
        seconds = beat.heartbeat_seconds or (lease.heartbeat_seconds if lease else None) or run.heartbeat_seconds
        if seconds is None:
            raise InvalidInput.of(
                "heartbeat_seconds", "the run was started without it: say how often a heartbeat will come"
            )
        if lease is None:
            await self._leases.take(run_id, beat.writer or f"{self._work.principal.name}/{run_id[-8:]}", seconds, now)
        else:
            await self._leases.beat(run_id, seconds, now)
        return await self._lease(run_id)

    def _check(self, run: Record, lease: Lease | None, beat: Heartbeat, run_id: str) -> None:
        self._work.principal.require(EXPERIMENTS_WRITE, run.experiment_name)
        if run.deleted_at is not None or run.experiment_deleted_at is not None:
            raise RunDeleted.of(run_id)
        if run.status != RunStatus.RUNNING:
            why = f": {run.status_reason}" if run.status_reason else "."
            fell_silent = run.status == RunStatus.FAILED and leases.is_silence(run.status_reason)
            raise (RunFellSilent if fell_silent else RunNotRunning)(
                f"The run {run_id!r} is {run.status}{why}", hint=f"POST /api/runs/{run_id}/resume sets it running again."
            )
        if beat.writer is not None:
            # Also when the other one is overdue: a run is taken by resuming it, never by a beat.
            leases.check_writer(run_id, lease, beat.writer)

    async def resume(self, run_id: str, resume: RunResume, *, experiment_id: str | None = None) -> None:
        """Set a run running for one writer. The run is held first, so of two who resume one, one is refused."""
        row = await hold_run(self._work, run_id, experiment_id=experiment_id)
        now = self._work.clock.now()
        lease = await self._leases.hold(run_id)
        # A beat that came while the run ended may have left a lease behind: it means nothing any more.
        if row.status == RunStatus.RUNNING and not resume.take_over:
            leases.check_writer(run_id, lease, resume.writer, now=now)
        before = rules.Life(RunStatus(row.status), row.start_time, row.end_time)
        life = rules.changed(before, now=now, status=RunStatus.RUNNING)
        seconds = resume.heartbeat_seconds or row.heartbeat_seconds
        values = {
            "status": life.status.value,
            "start_time": life.start_time,
            "end_time": None,
            "status_reason": None,
            "heartbeat_seconds": seconds,
        }
        await self._runs.change(run_id, {**values, "updated_at": now})
        await self._leases.take(run_id, resume.writer, seconds, now)
        if row.status != RunStatus.RUNNING:
            moves = {row.status: -1, RunStatus.RUNNING.value: 1}
            await ExperimentRepository(self._work.session, self._work.principal).count(row.experiment_id, run_id, moves)
        facts = {"experiment_id": row.experiment_id, "status": life.status.value, "writer": resume.writer}
        told = {"status": row.status, "writer": lease.writer if lease else None}
        detail = {"writer": resume.writer, "take_over": resume.take_over}
        await record_run(self._work, "run.resumed", run_id, facts, before=told, after=values, detail=detail)

    async def _lease(self, run_id: str) -> Lease:
        lease = await self._leases.lease(run_id)
        if lease is None:
            raise RunNotFound.of(run_id)
        return lease


async def fail_silent(session: WriteSession, clock: Clock) -> int:
    """Mark runs whose heartbeat is overdue as failed; how many. Any number of replicas may do this at once."""
    rows = await claim_silent(session, clock.now(), _AT_ONCE)
    for row in rows:
        work = UnitOfWork(session, platform_principal(ProjectId(row.project_id)), clock)
        await _fail(work, row, to_lease(row, "lease_"))
    return len(rows)


async def _fail(work: UnitOfWork, row: Record, lease: Lease) -> None:
    reason = leases.silence(lease)
    # It is known to have lived until its last beat, and not a moment longer.
    ended = max(lease.beat_at, row.start_time) if row.start_time else lease.beat_at
    values = {"status": RunStatus.FAILED.value, "end_time": ended, "status_reason": reason}
    await RunRepository(work.session, work.principal).change(row.id, {**values, "updated_at": work.clock.now()})
    await LeaseRepository(work.session, work.principal).end(row.id)
    if row.deleted_at is None:
        moves = {row.status: -1, RunStatus.FAILED.value: 1}
        await ExperimentRepository(work.session, work.principal).count(row.experiment_id, row.id, moves)
    facts = {"experiment_id": row.experiment_id, "status": RunStatus.FAILED.value, "reason": reason}
    await record_run(work, "run.finished", row.id, facts, before={"status": row.status}, after=values, detail=facts)

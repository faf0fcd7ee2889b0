"""Use cases that remove for ever: a run that was deleted, an experiment, and what has been deleted for long enough."""

from mlops_platform.contracts.tracking_experiments import ExperimentContents
from mlops_platform.contracts.tracking_runs import RunsPurged
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.session import Record, WriteSession
from mlops_platform.core.identity import Permission, ProjectId
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.unit import Change, UnitOfWork
from mlops_platform.tracking.errors import ExperimentNotFound, PurgeNotConfirmed
from mlops_platform.tracking.repository import removal as sql
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.removal import Removal
from mlops_platform.tracking.service.holding import hold_run

EXPERIMENTS_ADMIN = Permission("experiments:admin")
_RUNS_AT_ONCE = 200
_EXPERIMENTS_AT_ONCE = 20


async def purge_run(work: UnitOfWork, ledger: BlobLedger, run_id: str, *, experiment_id: str | None = None) -> RunsPurged:
    """Remove a deleted run for ever. Bytes that nothing else holds are swept later."""
    row = await hold_run(work, run_id, experiment_id=experiment_id, live=False)
    work.principal.require(EXPERIMENTS_ADMIN, row.experiment_name)
    if row.deleted_at is None and row.experiment_deleted_at is None:
        raise PurgeNotConfirmed(
            f"The run {run_id!r} is not deleted.", hint=f"DELETE /api/runs/{run_id} first; only then can it be purged."
        )
    return await _remove(work, ledger, [row])


async def preview(work: UnitOfWork, experiment_id: str) -> ExperimentContents:
    """What purging an experiment would remove."""
    row = await _held(work, experiment_id)
    return await _contents(work, row, is_preview=True)


async def purge_experiment(work: UnitOfWork, experiment_id: str, confirm: str | None) -> ExperimentContents:
    """Remove an experiment for ever: it is gone at once, and its runs follow in the background."""
    row = await _held(work, experiment_id)
    if confirm != row.name:
        raise PurgeNotConfirmed(
            f"To purge this experiment for ever, repeat its name: {row.name!r}; 'confirm' says {confirm!r}.",
            hint="With preview: true nothing is removed, and the answer says what would be.",
        )
    found = await _contents(work, row, is_preview=False)
    now = work.clock.now()
    await ExperimentRepository(work.session, work.principal).change(
        experiment_id, {"deleted_at": row.deleted_at or now, "purged_at": now}
    )
    facts = found.model_dump(mode="json", exclude={"is_preview"})
    resource = work.urn("experiment", experiment_id)
    await work.audit("experiment.purged", resource, before={"name": row.name}, detail=facts)
    await work.emit("experiment.purged", resource, facts)
    return found


async def remove_outlived(session: WriteSession, ledger: BlobLedger, clock: Clock) -> int:
    """Remove one portion of runs: deleted for longer than they are kept, or of a purged experiment."""
    rows = await sql.claim_outlived(session, clock.now(), _RUNS_AT_ONCE)
    for project in sorted({row.project_id for row in rows}):
        work = UnitOfWork(session, platform_principal(ProjectId(project)), clock)
        await _remove(work, ledger, [row for row in rows if row.project_id == project])
    return len(rows)


async def remove_emptied(session: WriteSession, ledger: BlobLedger) -> int:
    """Remove purged experiments whose runs are gone. That they go was audited when it was asked."""
    rows = await sql.claim_emptied(session, _EXPERIMENTS_AT_ONCE)
    for row in rows:
        principal = platform_principal(ProjectId(row.project_id))
        holders = await Removal(session, principal).experiment(row.id)
        if holders:
            await ledger.release(session, principal.project, holders)
    return len(rows)


async def settle(session: WriteSession, clock: Clock) -> int:
    """Do what earlier changes left for later; nothing when the rest can wait."""
    return int(await sql.settle(session, clock.now()))


async def _remove(work: UnitOfWork, ledger: BlobLedger, rows: list[Record]) -> RunsPurged:
    ids = [row.id for row in rows]
    holders, size, models = await Removal(work.session, work.principal).runs(ids, work.clock.now())
    if holders:
        await ledger.release(work.session, work.principal.project, holders)
    live = [row for row in rows if row.deleted_at is None]
    counts = ExperimentRepository(work.session, work.principal)
    await counts.count_each((row.experiment_id, row.id, row.status, -1) for row in live)
    urns = {row.id: work.urn("run", row.id) for row in rows}
    await work.audit_each("run.purged", [Change(urns[row.id], before={"run_name": row.name}) for row in rows])
    facts = [(urns[row.id], {"run_id": row.id, "experiment_id": row.experiment_id}) for row in rows]
    await work.emit_each("run.purged", facts)
    named = [(work.urn("logged-model", f"m-{row.id}"), row) for row in models]
    await work.audit_each("logged_model.purged", [Change(urn, before={"name": row.name}) for urn, row in named])
    went = [(urn, {"model_id": f"m-{row.id}", "experiment_id": row.experiment_id}) for urn, row in named]
    await work.emit_each("logged_model.purged", went)
    return RunsPurged(runs=len(rows), artifacts=len(holders), bytes=size)


async def _held(work: UnitOfWork, experiment_id: str) -> Record:
    row = await ExperimentRepository(work.session, work.principal).hold(experiment_id)
    if row is None:
        raise ExperimentNotFound.of(experiment_id)
    work.principal.require(EXPERIMENTS_ADMIN, row.name)
    return row


async def _contents(work: UnitOfWork, row: Record, *, is_preview: bool) -> ExperimentContents:
    found = await sql.contents(work.session, work.principal, row.id)
    if found is None:
        raise ExperimentNotFound.of(row.id)
    return ExperimentContents(
        experiment_id=row.id,
        name=row.name,
        runs=found.runs,
        deleted_runs=found.deleted_runs,
        artifacts=found.artifacts or 0,
        bytes=found.bytes or 0,
        metric_points=found.metric_points,
        is_preview=is_preview,
    )

"""Use cases that bring runs to another experiment: moving and copying."""

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.contracts.tracking_runs import RunCopy
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain.runs import FINAL
from mlops_platform.tracking.errors import (
    ExperimentArchived,
    ExperimentDeleted,
    ExperimentNotFound,
    RunStateConflict,
    RunTooLarge,
)
from mlops_platform.tracking.repository.artifacts import holder
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.repository.transfer import Transfer
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.holding import hold_run, record_run

MAX_COPIED_POINTS = 1_000_000


async def move_run(work: UnitOfWork, run_id: str, target: str, *, experiment_id: str | None = None) -> None:
    """Give a run to another experiment. Its id, its points and its artifacts stay where they are."""
    row = await hold_run(work, run_id, experiment_id=experiment_id)
    await receiving(work, target)
    if row.experiment_id == target:
        return
    await Transfer(work.session, work.principal).move([run_id], target, work.clock.now())
    counts = [(row.experiment_id, run_id, row.status, -1), (target, run_id, row.status, 1)]
    await ExperimentRepository(work.session, work.principal).count_each(counts)
    before, after = {"experiment_id": row.experiment_id}, {"experiment_id": target}
    facts = {"experiment_id": target, "from_experiment_id": row.experiment_id}
    await record_run(work, "run.moved", run_id, facts, before=before, after=after, detail=facts)


async def copy_run(
    work: UnitOfWork, ledger: BlobLedger, run_id: str, copy: RunCopy, *, experiment_id: str | None = None
) -> str:
    """Copy a run that has ended; the id of the copy. It holds the same bytes, which are stored once."""
    # Held until the end, so that none of its artifacts is let go while the copy takes hold of them.
    row = await hold_run(work, run_id, experiment_id=experiment_id, live=False)
    await receiving(work, copy.experiment_id)
    if RunStatus(row.status) not in FINAL:
        raise RunStateConflict(
            f"The run {run_id!r} is {row.status}; a copy of it would be neither the whole run nor one that goes on.",
            hint="Copy it when it has ended.",
        )
    transfer = Transfer(work.session, work.principal)
    points = await transfer.point_count(run_id) if copy.with_metrics else 0
    if points > MAX_COPIED_POINTS:
        raise RunTooLarge(
            f"The run {run_id!r} has {points} metric points; at most {MAX_COPIED_POINTS} are copied at once.",
            hint="Copy it with with_metrics: false, or move it.",
        )
    new = await _add_copy(work, row, copy)
    await transfer.copy(run_id, new, copy.experiment_id, with_metrics=copy.with_metrics)
    if copy.with_artifacts:
        paths = await transfer.copy_artifacts(run_id, new)
        holders = {holder(run_id, path): holder(new, path) for path in paths}
        await ledger.share(work.session, work.principal.project, holders)
    await work.link(work.urn("run", new), "copied_from", work.urn("run", run_id))
    facts = {"experiment_id": copy.experiment_id, "copied_from": run_id, "status": row.status}
    await record_run(work, "run.created", new, facts, after=facts, detail=facts)
    return new


async def receiving(work: UnitOfWork, experiment_id: str) -> Record:
    """The experiment that runs are brought to, held: it must be there, live, and the caller's to write."""
    row = await ExperimentRepository(work.session, work.principal).hold(experiment_id)
    if row is None:
        raise ExperimentNotFound.of(experiment_id)
    work.principal.require(EXPERIMENTS_WRITE, row.name)
    if row.deleted_at is not None:
        raise ExperimentDeleted.of(experiment_id)
    if row.archived_at is not None:
        raise ExperimentArchived.of(experiment_id)
    return row


async def _add_copy(work: UnitOfWork, row: Record, copy: RunCopy) -> str:
    now, new = work.clock.now(), new_id()
    same = ("status", "user_name", "start_time", "end_time", "notes", "group_name", "status_reason", "heartbeat_seconds")
    values = {
        **{name: getattr(row, name) for name in same},
        "id": new,
        "experiment_id": copy.experiment_id,
        "name": copy.run_name or row.name,
        "created_by": work.principal.name,
        "created_at": now,
        "updated_at": now,
    }
    await RunRepository(work.session, work.principal).add(values)
    await ExperimentRepository(work.session, work.principal).count(copy.experiment_id, new, {row.status: 1})
    return new

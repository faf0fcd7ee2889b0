"""What every use case on a run begins and ends with: the run, held; and its audit entry beside its event."""

from collections.abc import Mapping
from typing import Any

from mlops_platform.core.db.session import Record
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.errors import RunDeleted, RunNotFound
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE


async def hold_run(work: UnitOfWork, run_id: str, *, experiment_id: str | None = None, live: bool = True) -> Record:
    """The run, held until the commit, by somebody who may change it."""
    row = await RunRepository(work.session, work.principal).hold(run_id, experiment_id=experiment_id)
    if row is None:
        raise RunNotFound.of(run_id, experiment_id=experiment_id)
    work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
    if live and (row.deleted_at is not None or row.experiment_deleted_at is not None):
        raise RunDeleted.of(run_id)
    return row


async def record_run(
    work: UnitOfWork,
    action: str,
    run_id: str,
    facts: Mapping[str, Any],
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """The audit entry and the event of one change of a run."""
    resource = work.urn("run", run_id)
    await work.audit(action, resource, before=before, after=after, detail=detail)
    await work.emit(action, resource, {"run_id": run_id, **facts})

"""HTTP of runs."""

from fastapi import Response

from mlops_platform.contracts.tracking import Params, Run, RunCreate, RunUpdate, TagUpdate
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.tracking.endpoints.answers import to_run
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.endpoints.places import Place, on_run
from mlops_platform.tracking.errors import (
    ExperimentDeleted,
    ExperimentNotFound,
    ParamChanged,
    RunDeleted,
    RunIdTaken,
    RunNotFound,
    RunStateConflict,
)
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.runs import RunReader, data_of
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.runs import RunTracking

router = platform_router(tags=["runs"])


@router.post(
    "/api/experiments/{experiment_id}/runs",
    status_code=201,
    dependencies=[requires(EXPERIMENTS_WRITE)],
    responses=problems(ExperimentNotFound, ExperimentDeleted, RunIdTaken, RunDeleted),
)
async def create_run(experiment_id: ExperimentId, body: RunCreate, work: Work, response: Response) -> Run:
    """Start a run. Nested parameters are flattened with dots; each keeps its type and never changes.

    With an `id` of the caller's own the same request again is answered with the run that it made.
    """
    row = await RunTracking(work).create(experiment_id, body)
    response.headers["Location"] = f"/api/runs/{row.id}"
    return to_run(row, data_of(row))


@on_run(router, "GET", permission=EXPERIMENTS_READ)
async def get_run(place: Place, caller: Caller, session: Reading) -> Run:
    """One run with its parameters, tags and last metrics; a deleted one says when it was deleted."""
    row = await RunReader(session, caller).whole(place.run_id, experiment_id=place.experiment_id)
    if row is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)
    return to_run(row, data_of(row))


@on_run(router, "PATCH", permission=EXPERIMENTS_WRITE, errors=(RunDeleted, RunStateConflict))
async def update_run(place: Place, body: RunUpdate, work: Work) -> Run:
    """Finish, resume, rename, annotate or tag a run."""
    row = await RunTracking(work).update(place.run_id, body, experiment_id=place.experiment_id)
    return to_run(row, data_of(row))


@on_run(router, "DELETE", permission=EXPERIMENTS_WRITE, status_code=204)
async def delete_run(place: Place, work: Work) -> None:
    """Hide a run. It can be read and restored."""
    await RunTracking(work).delete(place.run_id, experiment_id=place.experiment_id)


@on_run(router, "POST", "/restore", permission=EXPERIMENTS_WRITE, errors=(ExperimentDeleted,))
async def restore_run(place: Place, work: Work) -> Run:
    """Bring a deleted run back."""
    row = await RunTracking(work).restore(place.run_id, experiment_id=place.experiment_id)
    return to_run(row, data_of(row))


@on_run(router, "POST", "/params", permission=EXPERIMENTS_WRITE, errors=(ParamChanged, RunDeleted))
async def add_params(place: Place, body: Params, work: Work) -> Run:
    """Add parameters, all or none. The same value again is fine; another value is a conflict."""
    row = await RunTracking(work).add_params(place.run_id, body.parameters, experiment_id=place.experiment_id)
    return to_run(row, data_of(row))


@on_run(router, "POST", "/tags", permission=EXPERIMENTS_WRITE, errors=(RunDeleted,))
async def change_tags(place: Place, body: TagUpdate, work: Work) -> Run:
    """Set tags; null removes one."""
    row = await RunTracking(work).change_tags(place.run_id, body.tags, experiment_id=place.experiment_id)
    return to_run(row, data_of(row))

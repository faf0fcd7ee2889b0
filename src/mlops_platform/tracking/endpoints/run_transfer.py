"""HTTP of what happens to whole runs: moving, copying, many at once, removing for ever."""

from fastapi import Response

from mlops_platform.contracts.tracking import Run
from mlops_platform.contracts.tracking_runs import BulkChange, BulkChanged, RunCopy, RunMove, RunsPurged
from mlops_platform.core.http.dependencies import RuntimeOf, Work
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.query.errors import QueryError
from mlops_platform.tracking.endpoints.places import Place, on_run
from mlops_platform.tracking.endpoints.run_life import read_run
from mlops_platform.tracking.errors import (
    ExperimentArchived,
    ExperimentDeleted,
    ExperimentNotFound,
    PurgeNotConfirmed,
    RunDeleted,
    RunNotFound,
    RunStateConflict,
    RunTooLarge,
    TooManyRuns,
)
from mlops_platform.tracking.service.bulk import BulkRuns
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.removal import EXPERIMENTS_ADMIN, purge_run
from mlops_platform.tracking.service.transfer import copy_run, move_run

router = platform_router(tags=["runs"])
_RECEIVING = (ExperimentNotFound, ExperimentDeleted, ExperimentArchived)


@router.post(
    "/api/runs/bulk",
    dependencies=[requires(EXPERIMENTS_WRITE)],
    responses=problems(RunNotFound, RunDeleted, QueryError, TooManyRuns, *_RECEIVING),
)
async def change_many_runs(body: BulkChange, work: Work) -> BulkChanged:
    """Delete, restore, tag or move up to 1,000 runs, named by id or found by a search: all of them or none."""
    return await BulkRuns(work).change(body)


@on_run(router, "POST", "/move", permission=EXPERIMENTS_WRITE, errors=(RunDeleted, *_RECEIVING))
async def move(place: Place, body: RunMove, work: Work) -> Run:
    """Give the run to another experiment. Its id stays."""
    await move_run(work, place.run_id, body.experiment_id, experiment_id=place.experiment_id)
    return await read_run(place.run_id, work.principal, work.session)


@on_run(
    router,
    "POST",
    "/copy",
    permission=EXPERIMENTS_WRITE,
    errors=(RunStateConflict, RunTooLarge, *_RECEIVING),
    status_code=201,
)
async def copy(place: Place, body: RunCopy, work: Work, runtime: RuntimeOf, response: Response) -> Run:
    """Copy a run that has ended. The copy holds the same artifacts, which are stored once, and points of its own."""
    new = await copy_run(work, runtime.blobs, place.run_id, body, experiment_id=place.experiment_id)
    response.headers["Location"] = f"/api/runs/{new}"
    return await read_run(new, work.principal, work.session)


@on_run(router, "POST", "/purge", permission=EXPERIMENTS_ADMIN, errors=(PurgeNotConfirmed,))
async def purge(place: Place, work: Work, runtime: RuntimeOf) -> RunsPurged:
    """Remove a deleted run for ever, with its points and artifacts."""
    return await purge_run(work, runtime.blobs, place.run_id, experiment_id=place.experiment_id)

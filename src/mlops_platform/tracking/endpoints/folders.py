"""HTTP of experiments beyond their fields: folders, archiving, the baseline, and removal for ever."""

from typing import Annotated

from fastapi import Query

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Experiment
from mlops_platform.contracts.tracking_experiments import (
    Baseline,
    ExperimentContents,
    ExperimentFolder,
    ExperimentPurge,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.tracking.endpoints.answers import to_experiment
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.errors import (
    ExperimentDeleted,
    ExperimentNotFound,
    PurgeNotConfirmed,
    RunDeleted,
    RunNotFound,
)
from mlops_platform.tracking.repository import folders
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.service.collaboration import set_baseline
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE, ExperimentTracking
from mlops_platform.tracking.service.removal import EXPERIMENTS_ADMIN, preview, purge_experiment

router = platform_router(tags=["experiments"])
_write = requires(EXPERIMENTS_WRITE)


@router.get("/api/experiments/folders", dependencies=[requires(EXPERIMENTS_READ)])
async def list_folder(
    caller: Caller,
    session: Reading,
    page: PageOf,
    path: Annotated[str, Query(max_length=500, description="The folder; empty for the top.")] = "",
) -> Page[ExperimentFolder]:
    """What lies directly in a folder, by name: experiments, and folders with the counts of all below them."""
    rows = await folders.level(session, caller, path, after=page.after[0] if page.after else None, limit=page.size + 1)
    return page.answer(rows, lambda row: _entry(row, path), lambda row: (row.name,))


@router.post(
    "/api/experiments/{experiment_id}/archive",
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentDeleted),
)
async def archive_experiment(experiment_id: ExperimentId, work: Work) -> Experiment:
    """Put an experiment away: not listed unless asked for, read as ever, no new runs. `restore` brings it back."""
    return to_experiment(await ExperimentTracking(work).archive(experiment_id))


@router.put(
    "/api/experiments/{experiment_id}/baseline",
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentDeleted, RunNotFound, RunDeleted),
)
async def pin_baseline(experiment_id: ExperimentId, body: Baseline, work: Work) -> Experiment:
    """Pin the run that others of the experiment are compared with."""
    return to_experiment(await set_baseline(work, experiment_id, body.run_id))


@router.delete(
    "/api/experiments/{experiment_id}/baseline",
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentDeleted),
)
async def unpin_baseline(experiment_id: ExperimentId, work: Work) -> Experiment:
    """Compare with no run in particular."""
    return to_experiment(await set_baseline(work, experiment_id, None))


@router.post(
    "/api/experiments/{experiment_id}/purge",
    dependencies=[requires(EXPERIMENTS_ADMIN)],
    responses=problems(ExperimentNotFound, PurgeNotConfirmed),
)
async def purge(experiment_id: ExperimentId, body: ExperimentPurge, work: Work) -> ExperimentContents:
    """Say what removing the experiment for ever would remove, or do it: `preview: false` with its name in `confirm`.

    It is gone at once; its runs, points and artifacts follow in the background.
    """
    if body.preview:
        return await preview(work, experiment_id)
    return await purge_experiment(work, experiment_id, body.confirm)


def _entry(row: Record, folder: str) -> ExperimentFolder:
    return ExperimentFolder(
        path=f"{folder}/{row.name}" if folder else row.name,
        name=row.name,
        is_folder=row.is_folder,
        experiment_id=row.experiment_id,
        experiments=row.experiments,
        runs=row.runs,
        updated_at=row.updated_at,
    )

"""HTTP of experiments."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Query, Response

from mlops_platform.contracts.common import ID_PATTERN, Page
from mlops_platform.contracts.tracking import DeletedFilter, Experiment, ExperimentCreate, ExperimentUpdate
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.tracking.endpoints.answers import to_experiment
from mlops_platform.tracking.errors import ExperimentDeleted, ExperimentNameTaken, ExperimentNotFound
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE, ExperimentTracking

router = platform_router(tags=["experiments"])

ExperimentId = Annotated[str, Path(pattern=ID_PATTERN, description="The experiment's id.")]
_read = requires(EXPERIMENTS_READ)
_write = requires(EXPERIMENTS_WRITE)


@dataclass(frozen=True, slots=True)
class Shown:
    """Whether a list holds what was put away."""

    deleted: DeletedFilter
    archived: DeletedFilter


async def _shown(
    deleted: Annotated[DeletedFilter, Query(description="Whether deleted ones are listed.")] = DeletedFilter.EXCLUDE,
    archived: Annotated[DeletedFilter, Query(description="Whether archived ones are listed.")] = DeletedFilter.EXCLUDE,
) -> Shown:
    return Shown(deleted, archived)


@router.post("/api/experiments", status_code=201, dependencies=[_write], responses=problems(ExperimentNameTaken))
async def create_experiment(body: ExperimentCreate, work: Work, response: Response) -> Experiment:
    """Make an experiment. Its name is unique among the live experiments of the project."""
    row = await ExperimentTracking(work).create(body)
    response.headers["Location"] = f"/api/experiments/{row.id}"
    return to_experiment(row)


@router.get("/api/experiments", dependencies=[_read])
async def list_experiments(
    caller: Caller,
    session: Reading,
    page: PageOf,
    shown: Annotated[Shown, Depends(_shown)],
    name: Annotated[str | None, Query(max_length=500, description="Exactly this name.")] = None,
    name_prefix: Annotated[str | None, Query(max_length=500, description="Names that begin so, such as a folder.")] = None,
    tag: Annotated[list[str], Query(max_length=20, description="`key` or `key:value`; all of them.")] = [],  # noqa: B006  # FastAPI copies it
    owner: Annotated[str | None, Query(max_length=250, description="Exactly this owner.")] = None,
) -> Page[Experiment]:
    """Experiments by name, with the counts of their runs."""
    rows = await ExperimentReader(session, caller).experiments(
        name=name,
        prefix=name_prefix,
        tags=tag,
        deleted=shown.deleted,
        archived=shown.archived,
        owner=owner,
        after=page.after,
        limit=page.size + 1,
    )
    return page.answer(rows, to_experiment, lambda row: (row.name, row.id))


@router.get("/api/experiments/{experiment_id}", dependencies=[_read], responses=problems(ExperimentNotFound))
async def get_experiment(experiment_id: ExperimentId, caller: Caller, session: Reading) -> Experiment:
    """One experiment; a deleted one says when it was deleted."""
    row = await ExperimentReader(session, caller).experiment(experiment_id)
    if row is None:
        raise ExperimentNotFound.of(experiment_id)
    return to_experiment(row)


@router.patch(
    "/api/experiments/{experiment_id}",
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentNameTaken, ExperimentDeleted),
)
async def update_experiment(experiment_id: ExperimentId, body: ExperimentUpdate, work: Work) -> Experiment:
    """Rename, describe or tag an experiment. Its id stays."""
    return to_experiment(await ExperimentTracking(work).update(experiment_id, body))


@router.delete(
    "/api/experiments/{experiment_id}", status_code=204, dependencies=[_write], responses=problems(ExperimentNotFound)
)
async def delete_experiment(experiment_id: ExperimentId, work: Work) -> None:
    """Hide an experiment and its runs. It can be read and restored; its name is free."""
    await ExperimentTracking(work).delete(experiment_id)


@router.post(
    "/api/experiments/{experiment_id}/restore",
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentNameTaken),
)
async def restore_experiment(experiment_id: ExperimentId, work: Work) -> Experiment:
    """Bring a deleted or archived experiment back."""
    return to_experiment(await ExperimentTracking(work).restore(experiment_id))

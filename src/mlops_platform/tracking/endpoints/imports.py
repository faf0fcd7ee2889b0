"""HTTP of experiments that come in whole. Every request may be sent again, and overwrites nothing."""

import asyncio

from mlops_platform.contracts.tracking import MetricsAccepted
from mlops_platform.contracts.tracking_archives import (
    ExperimentImport,
    ExperimentImported,
    ImportAnswer,
    ImportFinish,
    ImportFinished,
    ModelsImport,
    PointColumns,
    RunsImport,
)
from mlops_platform.core.errors import ContentTooLarge, InvalidInput, TooManyRequests
from mlops_platform.core.http.dependencies import Caller, RuntimeOf, StateOf, Work
from mlops_platform.core.http.routing import platform_router, problems, requires, takes_large_bodies
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.keys import make_key, read_context
from mlops_platform.tracking.domain.points import Points
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.errors import (
    ExperimentArchived,
    ExperimentDeleted,
    ExperimentNameTaken,
    ExperimentNotFound,
    ImportIdTaken,
    ImportIncomplete,
    RunDeleted,
    RunNotFound,
)
from mlops_platform.tracking.repository.experiments import ExperimentReader
from mlops_platform.tracking.repository.metrics import IngestItem
from mlops_platform.tracking.service.archives import moment
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.import_runs import RunImports
from mlops_platform.tracking.service.imports import Imports
from mlops_platform.tracking.service.ingest import MetricIngest

router = platform_router(tags=["archives"])

LARGE = takes_large_bodies(times=20)
_write = requires(EXPERIMENTS_WRITE)
_into = (ExperimentNotFound, ExperimentDeleted, ExperimentArchived, ContentTooLarge)


@router.post(
    "/api/experiments/import",
    dependencies=[_write, LARGE],
    responses=problems(ExperimentNotFound, ExperimentNameTaken, ImportIdTaken, ContentTooLarge),
)
async def import_experiment(body: ExperimentImport, work: Work) -> ExperimentImported:
    """Make the experiment of an archive, or find it. Its id is kept when it is free; runs are brought into the answer's id.

    An experiment that was deleted or archived becomes so when the import is finished.
    """
    return await Imports(work).experiment(body)


@router.post(
    "/api/experiments/{experiment_id}/import/runs",
    dependencies=[_write, LARGE],
    responses=problems(*_into, ImportIdTaken),
)
async def import_runs(experiment_id: ExperimentId, body: RunsImport, work: Work) -> ImportAnswer:
    """Bring up to 100 runs in, ids and times kept, all of the request or nothing of it. Points and files follow."""
    return await RunImports(work, experiment_id).bring(body)


@router.post("/api/experiments/{experiment_id}/import/models", dependencies=[_write, LARGE], responses=problems(*_into))
async def import_models(experiment_id: ExperimentId, body: ModelsImport, work: Work) -> ImportAnswer:
    """Bring logged models in, before the runs that name them. Their files follow."""
    return await Imports(work).models(experiment_id, body)


@router.post(
    "/api/experiments/{experiment_id}/import/points",
    dependencies=[_write, LARGE],
    responses=problems(*_into, RunNotFound, RunDeleted, TooManyRequests),
)
async def import_points(
    experiment_id: ExperimentId, body: PointColumns, caller: Caller, runtime: RuntimeOf, state: StateOf
) -> MetricsAccepted:
    """Store up to 10,000 exact points of runs of the experiment. A point that is there is a duplicate."""
    await _check(experiment_id, caller, runtime)
    parts = await asyncio.to_thread(_points, body)
    stored = await _stored(parts, caller, experiment_id, state.ingest)
    total = len(body.run)
    return MetricsAccepted(accepted=total, stored=stored, duplicates=total - stored)


@router.post(
    "/api/experiments/{experiment_id}/import/finish",
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentNameTaken, ImportIncomplete),
)
async def finish_import(experiment_id: ExperimentId, body: ImportFinish, work: Work) -> ImportFinished:
    """Say that runs, logged models or the whole have come; what was announced and has not come is a conflict."""
    return await Imports(work).finish(experiment_id, body)


async def _check(experiment_id: str, caller: Principal, runtime: Runtime) -> None:
    async with runtime.database.read() as session:
        row = await ExperimentReader(session, caller).experiment(experiment_id)
    if row is None:
        raise ExperimentNotFound.of(experiment_id)
    caller.require(EXPERIMENTS_WRITE, row.name)


async def _stored(parts: dict[str, Points], caller: Principal, experiment_id: str, ingest: MetricIngest) -> int:
    items = [IngestItem(caller.project, run_id, experiment_id, points) for run_id, points in parts.items()]
    # All at once: the ingest makes one statement of them.
    counts = await asyncio.gather(*(ingest.add(item) for item in items), return_exceptions=True)
    for count in counts:
        if isinstance(count, BaseException):
            raise count
    return sum(count for count in counts if isinstance(count, int))


def _points(body: PointColumns) -> dict[str, Points]:
    """The points of each run."""
    lengths = {len(column) for column in (body.run, body.key, body.step, body.time_us, body.value, body.arrived)}
    if len(lengths) > 1:
        raise InvalidInput.of("run", "and the other columns must have one length", sorted(lengths))
    for name, places, most in (("run", body.run, len(body.run_ids)), ("key", body.key, len(body.keys))):
        beyond = next((at for at, place in enumerate(places) if place >= most), None)
        if beyond is not None:
            raise InvalidInput.of(f"{name}.{beyond}", f"is a place beyond the {most} that there are", places[beyond])
    keys = [
        make_key(key.name, read_context(key.context, f"keys[{number}].context")) for number, key in enumerate(body.keys)
    ]
    parts: dict[str, Points] = {}
    columns = (body.run, body.key, body.step, body.time_us, body.value, body.arrived)
    for run, key, step, time_us, value, arrived in zip(*columns, strict=True):
        points = parts.setdefault(body.run_ids[run], Points())
        points.keys.append(keys[key])
        points.steps.append(step)
        points.timestamps.append(moment(time_us))
        points.values.append(value)
        points.arrived.append(arrived)
    return parts

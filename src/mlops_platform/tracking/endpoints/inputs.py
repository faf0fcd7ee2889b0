"""HTTP of what runs read and made: datasets and logged models."""

from mlops_platform.contracts.tracking import DatasetInput, LineageStated, ModelDirection, RunModel
from mlops_platform.contracts.tracking_inputs import DatasetUsed, ModelLogged, RunInputs
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.artifacts import ARTIFACT_PATH
from mlops_platform.tracking.endpoints.places import Place, RunPlace, on_run
from mlops_platform.tracking.errors import RunDeleted, RunNotFound
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.inputs import InputReader
from mlops_platform.tracking.repository.models import LoggedModelReader
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.inputs import Dataset, DatasetUse, RunInputTracking
from mlops_platform.tracking.service.runs import RunTracking

router = platform_router(tags=["runs"])


@on_run(router, "POST", "/inputs", permission=EXPERIMENTS_WRITE, errors=(RunDeleted,), status_code=201)
async def state_inputs(place: Place, body: RunInputs, work: Work) -> LineageStated:
    """State what the run read: datasets, which are then listed with it, and other things by URN."""
    read = RunInputTracking(work)
    datasets = [_use(given) for given in body.datasets]
    objects = list(dict.fromkeys(body.inputs))
    if objects:
        await RunTracking(work).state_inputs(place.run_id, objects, experiment_id=place.experiment_id)
    if datasets:
        await read.read(place.run_id, datasets, experiment_id=place.experiment_id)
        objects += dict.fromkeys(read.urn(use.dataset) for use in datasets)
    return LineageStated(subject=work.urn("run", place.run_id), relation="used", objects=objects)


@on_run(router, "GET", "/inputs", permission=EXPERIMENTS_READ)
async def list_inputs(place: Place, caller: Caller, session: Reading) -> list[DatasetInput]:
    """The datasets that the run read, in the order they were logged."""
    await _check_run(place, caller, session)
    return [
        DatasetInput(
            name=row.name,
            digest=row.digest,
            source_type=row.source_type,
            source=row.source,
            columns=row.schema,
            profile=row.profile,
            context=row.context,
            tags=row.tags,
            logged_at=row.created_at,
        )
        for row in await InputReader(session, caller).of_runs([place.run_id])
    ]


@on_run(router, "GET", "/models", permission=EXPERIMENTS_READ)
async def list_models(place: Place, caller: Caller, session: Reading) -> list[RunModel]:
    """The logged models that the run read or made."""
    await _check_run(place, caller, session)
    ties = await InputReader(session, caller).models_of_runs([place.run_id])
    models = await LoggedModelReader(session, caller).models([tie.model_id for tie in ties])
    return [
        _model(row, ModelDirection(tie.direction), step=tie.step)
        for tie in ties
        if (row := models.get(tie.model_id)) is not None
    ]


@on_run(router, "POST", "/models", permission=EXPERIMENTS_WRITE, errors=(RunDeleted,), status_code=201)
async def log_model(place: Place, body: ModelLogged, work: Work) -> RunModel:
    """Say that the run made a model, whose files are among its artifacts. MLflow's clients see it as a logged model."""
    row = await RunInputTracking(work).make(place.run_id, body, experiment_id=place.experiment_id)
    return _model(row, ModelDirection.OUTPUT, step=body.step)


def _model(row: Record, direction: ModelDirection, *, step: int) -> RunModel:
    return RunModel(
        id=f"m-{row.id}",
        direction=direction,
        step=step,
        name=row.name,
        status=row.status,
        model_type=row.model_type,
        path=row.tags.get(ARTIFACT_PATH),
        params=row.params,
        tags=row.tags,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
    )


def _use(given: DatasetUsed) -> DatasetUse:
    dataset = Dataset(
        name=given.name,
        digest=given.digest,
        source_type=given.source_type,
        source=given.source,
        schema=given.columns,
        profile=given.profile,
    )
    return DatasetUse(dataset, given.context, given.tags)


async def _check_run(place: RunPlace, caller: Principal, session: ReadSession) -> None:
    if await RunReader(session, caller).run(place.run_id, experiment_id=place.experiment_id) is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)

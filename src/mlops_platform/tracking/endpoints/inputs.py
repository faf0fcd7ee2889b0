"""HTTP of what runs read and made: datasets and logged models."""

from mlops_platform.contracts.tracking import DatasetInput, ModelDirection, RunModel
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.http.dependencies import Caller, Reading
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.endpoints.places import Place, RunPlace, on_run
from mlops_platform.tracking.errors import RunNotFound
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.inputs import InputReader
from mlops_platform.tracking.repository.models import LoggedModelReader
from mlops_platform.tracking.repository.runs import RunReader

router = platform_router(tags=["runs"])


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
        RunModel(
            id=f"m-{tie.model_id}",
            direction=ModelDirection(tie.direction),
            step=tie.step,
            name=row.name,
            status=row.status,
            model_type=row.model_type,
            params=row.params,
            tags=row.tags,
            created_at=row.created_at,
            updated_at=row.updated_at,
            deleted_at=row.deleted_at,
        )
        for tie in ties
        if (row := models.get(tie.model_id)) is not None
    ]


async def _check_run(place: RunPlace, caller: Principal, session: ReadSession) -> None:
    if await RunReader(session, caller).run(place.run_id, experiment_id=place.experiment_id) is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)

"""Routes that bring rows in and online."""

from fastapi import Request

from mlops_platform.contracts.features import IngestResult, MaterializeRequest, MaterializeResult, RowsCreate
from mlops_platform.core.errors import ContentTooLarge, MalformedRequest, UnsupportedMediaType
from mlops_platform.core.http.routing import platform_router, problems
from mlops_platform.features.domain.times import MAX_US, MIN_US, to_us
from mlops_platform.features.endpoints.access import AuthorOf, FeatureSetName, StateOf, writes_named
from mlops_platform.features.endpoints.bodies import documented_body, spooled, upload_format
from mlops_platform.features.errors import FeatureSetNotFound, FeatureSetOffline

router = platform_router(tags=["feature rows"])


@router.post(
    "/api/feature-sets/{name}/rows",
    status_code=201,
    dependencies=[writes_named],
    responses=problems(FeatureSetNotFound, MalformedRequest, ContentTooLarge, UnsupportedMediaType),
    openapi_extra=documented_body(RowsCreate),
)
async def ingest_rows(name: FeatureSetName, request: Request, author: AuthorOf, state: StateOf) -> IngestResult:
    """Bring rows in: all, or none. Of rows with one entity and event timestamp the last counts: sending again is safe."""
    form = upload_format(request)
    if form is None:
        return await state.ingest.json_rows(author, name, await request.body())
    async with spooled(request) as path:
        return await state.ingest.upload(author, name, path, form)


@router.post(
    "/api/feature-sets/{name}/materialize",
    dependencies=[writes_named],
    responses=problems(FeatureSetNotFound, FeatureSetOffline),
)
async def materialize(
    name: FeatureSetName, body: MaterializeRequest, author: AuthorOf, state: StateOf
) -> MaterializeResult:
    """Write the newest row of each entity online again, from the offline rows of a window of event timestamps."""
    start_us = MIN_US if body.start is None else to_us(body.start)
    end_us = MAX_US if body.end is None else to_us(body.end)
    entities = await state.online.materialize_named(author, name, start_us=start_us, end_us=end_us)
    return MaterializeResult(feature_set=name, entities=entities)

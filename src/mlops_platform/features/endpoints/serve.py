"""The hot path: online reads. The GET is dispatched before FastAPI, which documents it."""

from fastapi import Request, Response

from mlops_platform.contracts.features import ServeRequest, ServeResult
from mlops_platform.core.http.dependencies import Caller
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.http.service import HotRequest, HotResponse, HotRoute
from mlops_platform.features.endpoints.access import FEATURES_READ, StateOf
from mlops_platform.features.errors import AmbiguousFeature, EntityMismatch, UnknownFeature

PATH = "/api/features/serve"
JSON = "application/json"

router = platform_router(tags=["online features"])

_reads = [requires(FEATURES_READ)]
_refusals = problems(UnknownFeature, AmbiguousFeature, EntityMismatch)


async def serve_hot(request: HotRequest) -> HotResponse:
    """One online read."""
    return HotResponse(await request.state.serving.serve_query(request.principal, request.query))


HOT_ROUTES = (HotRoute("GET", PATH, FEATURES_READ, serve_hot),)


_parameters = [
    {
        "name": "entities",
        "in": "query",
        "required": True,
        "description": "Entity keys, comma-separated.",
        "schema": {"type": "string", "minLength": 1},
        "example": "user_123",
    },
    {
        "name": "features",
        "in": "query",
        "required": True,
        "description": "Comma-separated: `feature`, or `feature_set:feature` where a name stands in several sets.",
        "schema": {"type": "string", "minLength": 1},
        "example": "age,avg_session_duration",
    },
]


@router.get(
    PATH,
    dependencies=_reads,
    responses=_refusals,
    response_model=ServeResult,
    openapi_extra={"parameters": _parameters},
)
async def serve_features(request: Request, caller: Caller, state: StateOf) -> Response:
    """The newest values of some entities, each with what stands behind it: present, null, missing or expired."""
    return Response(await state.serving.serve_query(caller, request.scope["query_string"]), media_type=JSON)


@router.post(PATH, dependencies=_reads, responses=_refusals, response_model=ServeResult)
async def serve_many(body: ServeRequest, caller: Caller, state: StateOf) -> Response:
    """The same for more entities than fit in a URL."""
    return Response(await state.serving.serve(caller, body), media_type=JSON)

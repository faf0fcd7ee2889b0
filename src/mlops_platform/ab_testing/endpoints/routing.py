"""`GET /api/route`: dispatched before FastAPI, which only documents it."""

import re
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Query
from starlette.responses import Response

from mlops_platform.ab_testing.errors import ABTestNotFound
from mlops_platform.ab_testing.repository.definitions import AB_TESTS_READ
from mlops_platform.ab_testing.service.routing import Routing
from mlops_platform.contracts.ab_testing import Route
from mlops_platform.contracts.common import NAME_PATTERN
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http.dependencies import Caller, StateOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.http.service import HotRequest, HotResponse, HotRoute
from mlops_platform.core.identity import Principal

router = platform_router(tags=["routing"])
MAX_UNIT_LENGTH = 256
_NAME = re.compile(NAME_PATTERN)
_KNOWN = {b"user_id", b"experiment"}


async def route_unit(request: HotRequest) -> HotResponse:
    """Route one unit from memory."""
    unit_id, name = read_query(request.query)
    return HotResponse(await _answer(request.principal, request.state, name=name, unit_id=unit_id))


@router.get(
    "/api/route",
    dependencies=[requires(AB_TESTS_READ)],
    response_model=Route,
    responses=problems(ABTestNotFound, InvalidInput),
)
async def document_route(
    caller: Caller,
    state: StateOf,
    user_id: Annotated[str, Query(min_length=1, max_length=MAX_UNIT_LENGTH, description="The unit that is routed.")],
    experiment: Annotated[str, Query(pattern=NAME_PATTERN, description="The name of the A/B test.")],
) -> Response:
    """Which model version a unit gets. The same unit gets the same variant while weights stay; its exposure is recorded."""
    body = await _answer(caller, state, name=_name(experiment), unit_id=_unit(user_id))
    return Response(body, media_type="application/json")


HOT_ROUTE = HotRoute("GET", "/api/route", AB_TESTS_READ, route_unit)


async def _answer(principal: Principal, routing: Routing, *, name: str, unit_id: str) -> bytes:
    # Only grants that are limited to name patterns can refuse what the route's permission allowed.
    if any(grant.pattern != "*" for grant in principal.grants):
        principal.require(AB_TESTS_READ, name)
    plan = routing.snapshot.find(principal.project, name) or await routing.plan(principal.project, name)
    return routing.answer(plan, unit_id)


def read_query(query: bytes) -> tuple[str, str]:
    """The unit and the test out of a raw query string; `InvalidInput` names the parameter that is wrong."""
    values: dict[bytes, str] = {}
    for part in query.split(b"&") if query else ():
        key, _, value = part.partition(b"=")
        if key not in _KNOWN:
            raise InvalidInput.of(_shown(key), "is not a parameter of this route", hint="Send user_id and experiment.")
        if key in values:
            raise InvalidInput.of(_shown(key), "must be given once")
        values[key] = _decoded(key, value)
    for key in (b"user_id", b"experiment"):
        if key not in values:
            raise InvalidInput.of(_shown(key), "is needed", hint="Send user_id and experiment.")
    return _unit(values[b"user_id"]), _name(values[b"experiment"])


def _decoded(key: bytes, value: bytes) -> str:
    if b"%" in value or b"+" in value:
        value = unquote_to_bytes(value.replace(b"+", b" "))
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput.of(_shown(key), "is not UTF-8", repr(value[:40])) from None


def _unit(value: str) -> str:
    if not 0 < len(value) <= MAX_UNIT_LENGTH:
        raise InvalidInput.of("user_id", f"must have 1 to {MAX_UNIT_LENGTH} characters", value[:40])
    if "\x00" in value:
        raise InvalidInput.of("user_id", "must not contain the NUL character", value[:40])
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise InvalidInput.of("experiment", f"must match {NAME_PATTERN}", value[:160])
    return value


def _shown(key: bytes) -> str:
    return key.decode(errors="backslashreplace")[:40]

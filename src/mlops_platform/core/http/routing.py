"""Routers whose routes must say who may call them, and read their bodies within limits."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.params import Depends as DependsMarker
from fastapi.routing import APIRoute
from starlette.responses import Response

from mlops_platform.contracts.common import Problem
from mlops_platform.core.errors import (
    ContentTooLarge,
    DependencyUnavailable,
    InvalidInput,
    MalformedRequest,
    PermissionDenied,
    PlatformError,
    RequestTimedOut,
    Unauthenticated,
    UnsupportedMediaType,
)
from mlops_platform.core.http import idempotency
from mlops_platform.core.http.repeated import repeated_key
from mlops_platform.core.identity import Permission, Principal

JSON_SUFFIX = "+json"
# Below this, reading takes less time than a request; a megabyte of the worst kind takes hundreds of milliseconds.
_WORTH_A_THREAD = 128 * 1024


class Requires:
    """The permission that a route declares; as a dependency it enforces it.

    `resource` names the path parameter that holds the resource's name, for grants that are limited to name patterns.
    """

    def __init__(self, permission: Permission, resource: str | None, *, everywhere: bool = False) -> None:
        self.permission = permission
        self.resource = resource
        self.everywhere = everywhere

    async def __call__(self, request: Request) -> None:
        principal: Principal = request.scope["state"]["principal"]
        if self.everywhere:
            principal.require_everywhere(self.permission)
            return
        principal.require(self.permission, request.path_params.get(self.resource) if self.resource else None)


def requires(permission: Permission, *, resource: str | None = None, everywhere: bool = False) -> DependsMarker:
    """Declare what the caller of a route must be allowed to do: at all, to the named resource, or to all names."""
    return Depends(Requires(permission, resource, everywhere=everywhere))  # type: ignore[no-any-return]


class LargeBody:
    """Declares a route whose documents may be larger than other bodies, in multiples of `MLOPS_MAX_BODY_BYTES`."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def __call__(self) -> None:
        """Nothing at the time of a request: `PlatformRoute` has read it."""


def takes_large_bodies(*, times: int) -> DependsMarker:
    """Declare it, among the dependencies of a route."""
    return Depends(LargeBody(times))  # type: ignore[no-any-return]


class TakesItsTime:
    """Declares a route whose work grows with stored content: `MLOPS_REQUEST_TIMEOUT_SECONDS` is not for it."""

    async def __call__(self) -> None:
        """Nothing at the time of a request: `PlatformRoute` has read it."""


def takes_its_time() -> DependsMarker:
    """Declare it, among the dependencies of a route."""
    return Depends(TakesItsTime())  # type: ignore[no-any-return]


class PlatformRequest(Request):
    """A request whose body is bounded, and whose JSON is strict: no NaN, no bad UTF-8, no bottomless nesting."""

    body_times = 1

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            limit = self.app.state.runtime.settings.max_body_bytes * self.body_times
            self._body = b"".join([chunk async for chunk in limited(self.stream(), limit)])
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body, depth = await self.body(), self.app.state.runtime.settings.max_json_depth
            is_long = len(body) > _WORTH_A_THREAD
            self._json = await asyncio.to_thread(read_json, body, depth) if is_long else read_json(body, depth)
        return self._json


class PlatformRoute(APIRoute):
    """Checks the content type, reads within limits, and answers a repeated `Idempotency-Key` with its first answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()
        reads_json = self.body_field is not None
        markers = [marker.dependency for marker in self.dependencies]
        body_times = max((marker.times for marker in markers if isinstance(marker, LargeBody)), default=1)
        is_timed = not any(isinstance(marker, TakesItsTime) for marker in markers)

        async def answer(request: PlatformRequest) -> Response:
            _refuse_nul(request)
            if reads_json:
                await _read_body(request)
            try:
                response = await original(request)
            except idempotency.Replay as replay:
                return replay.response()
            await idempotency.remember(request, response)
            return response

        async def handle(request: Request) -> Response:
            request = PlatformRequest(request.scope, request.receive)
            request.body_times = body_times
            if not (is_timed and (reads_json or _is_bodiless(request))):
                return await answer(request)  # an upload takes as long as it takes
            seconds = request.app.state.runtime.settings.request_timeout_seconds
            try:
                async with asyncio.timeout(seconds) as limit:
                    return await answer(request)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise RequestTimedOut(f"The request took longer than {seconds:g} s and was undone.") from error

        return handle


def platform_router(*, tags: list[str]) -> APIRouter:
    """A router whose routes are `PlatformRoute`s and document the errors that any of them can answer."""
    common = problems(Unauthenticated, PermissionDenied, DependencyUnavailable)
    return APIRouter(route_class=PlatformRoute, tags=list(tags), responses=common)


def problems(*errors: type[PlatformError]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: what can go wrong, for the API's documentation."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        known = by_status.get(error.status)
        description = f"{known['description']}; {error.code}" if known else f"{error.title}: {error.code}"
        by_status[error.status] = {"model": Problem, "description": description}
    return by_status


def declared_permission(route: APIRoute) -> Permission | None:
    """What a route declares with `requires`; None when it declares nothing."""
    for marker in route.dependencies:
        if isinstance(marker.dependency, Requires):
            return marker.dependency.permission
    return None


def undeclared_routes(routes: Iterable[Any], public: frozenset[str]) -> list[str]:
    """The routes that nobody guards and that are not on the public list. The app refuses to start with any."""
    return [
        f"{','.join(sorted(getattr(route, 'methods', None) or ['?']))} {getattr(route, 'path', route)}"
        for route in routes
        if getattr(route, "path", None) not in public and not (isinstance(route, APIRoute) and _is_guarded(route))
    ]


def _is_guarded(route: APIRoute) -> bool:
    """A declared permission whose resource, if it names one, is a parameter of the path: a typo would check nothing."""
    found = [marker.dependency for marker in route.dependencies if isinstance(marker.dependency, Requires)]
    return bool(found) and all(it.resource is None or it.resource in route.param_convertors for it in found)


def _refuse_nul(request: Request) -> None:
    """No column holds NUL, and the database cannot say which parameter had it."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if "\0" in name or "\0" in str(value):
            raise InvalidInput.of(name[:100], "must not contain the NUL character", value)


async def _read_body(request: PlatformRequest) -> None:
    """Read and parse ahead of the framework, which would hide our reasons behind one of its own."""
    if not await request.body():
        return
    if not is_json(request.headers.get("content-type")):
        given = request.headers.get("content-type", "nothing")
        raise UnsupportedMediaType(
            f"This route reads JSON, and the content type is {given[:100]!r}.",
            hint="Send the header 'Content-Type: application/json'.",
        )
    await request.json()


def _is_bodiless(request: Request) -> bool:
    return request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers


def is_json(content_type: str | None) -> bool:
    """Whether a content type says JSON."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith(JSON_SUFFIX))


async def limited(chunks: Any, limit: int) -> Any:
    """Pass chunks on until they exceed `limit` bytes together."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise ContentTooLarge(f"The body is larger than {limit} bytes, the most that this route accepts.")
        yield chunk


def read_json(body: bytes, max_depth: int) -> Any:
    """Strict JSON, or `MalformedRequest` with the place."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"The body is not valid JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > max_depth and _depth(value, max_depth) > max_depth:
        raise MalformedRequest(f"The JSON is nested deeper than {max_depth} levels.")
    if (key := repeated_key(body, value)) is not None:
        raise MalformedRequest(f"The JSON gives the key {key[:100]!r} twice in one object: one of the two would be lost.")
    return value


def _depth(value: Any, limit: int) -> int:
    depth, level = 0, [value]
    while level and depth <= limit:
        containers = [item for item in level if isinstance(item, dict | list)]
        depth += bool(containers)
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    return depth

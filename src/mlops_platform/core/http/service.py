"""The record by which a service is known to the rest: routes, hot routes, duties, its own state."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from mlops_platform.core.errors import ContentTooLarge, PlatformError
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.core.work.duties import Duty
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork

JSON_HEADERS = ((b"content-type", b"application/json"),)


@dataclass(slots=True)
class HotRequest:
    """A request on a hot path: already authenticated and authorised, nothing parsed."""

    scope: Scope
    receive: Receive
    principal: Principal
    path_params: Mapping[str, str]
    runtime: Runtime
    state: Any

    @property
    def query(self) -> bytes:
        """The raw query string."""
        return self.scope["query_string"]  # type: ignore[no-any-return]

    async def body(self, limit: int) -> bytes:
        """The whole body, refused as soon as it exceeds `limit` bytes."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect  # half a body must not pass for a whole one
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise ContentTooLarge(f"The body is larger than {limit} bytes.")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


@dataclass(frozen=True, slots=True)
class HotResponse:
    """Status, body, headers: what goes out, byte for byte."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = JSON_HEADERS


HotHandler = Callable[[HotRequest], Awaitable[HotResponse]]


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A route dispatched before FastAPI; FastAPI documents the same method and path."""

    method: str
    path: str
    permission: Permission
    handle: HotHandler


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as it goes out."""

    status: int
    media_type: str
    body: bytes


ErrorForm = Callable[[PlatformError], ErrorAnswer]
"""How errors are written for clients that do not know problem+json."""


Reset = Callable[[UnitOfWork, Runtime], Awaitable[dict[str, int]]]
ServiceState = Callable[[Runtime], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Service:
    """One of the five."""

    name: str
    title: str
    description: str
    routers: tuple[APIRouter, ...]
    hot_routes: tuple[HotRoute, ...] = ()
    duties: tuple[Duty, ...] = ()
    # What the service keeps in memory between requests (snapshots, batchers); `request.app.state.service` holds it.
    state: ServiceState | None = None
    dependencies: Mapping[str, Callable[[Runtime], Awaitable[None]]] = field(default_factory=dict)
    # Removes what the service holds of the project of this change, in its transaction; how many rows, by name.
    reset: Reset | None = None
    # By the beginning of the `User-Agent`: clients of another protocol ask `/version` for the one that they know.
    versions: Mapping[str, str] = field(default_factory=dict)
    # By the beginning of the path: a protocol of others has errors of its own.
    error_forms: Mapping[str, ErrorForm] = field(default_factory=dict)

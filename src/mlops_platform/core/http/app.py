"""One FastAPI app per service, all built alike."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.telemetry import TelemetryConfig
from starlette.routing import BaseRoute

from mlops_platform.contracts.common import Problem
from mlops_platform.core.errors import (
    ConfigurationError,
    ContentTooLarge,
    InvalidInput,
    MalformedRequest,
    PlatformError,
    UnsupportedMediaType,
)
from mlops_platform.core.http import idempotency, problems, system
from mlops_platform.core.http.edge import Edge
from mlops_platform.core.http.head import HeadAsGet
from mlops_platform.core.http.platform import access, record, webhooks
from mlops_platform.core.http.routing import problems as problems_of
from mlops_platform.core.http.routing import undeclared_routes
from mlops_platform.core.http.service import Service
from mlops_platform.core.telemetry.metrics import ServiceMetrics
from mlops_platform.core.work.runtime import Runtime

_ROUTERS = (system.router, access.router, record.router, webhooks.router)


class ServiceApp:
    """The ASGI app of a service: the edge around FastAPI, and the lifetime of what it keeps in memory."""

    def __init__(self, service: Service, runtime: Runtime) -> None:
        self.service = service
        self.runtime = runtime
        self.metrics = ServiceMetrics(service.name)
        self.fastapi = _fastapi(service, runtime, self.metrics)
        public = system.PUBLIC_PATHS if runtime.settings.metrics_public else system.PUBLIC_PATHS - {"/metrics"}
        self.edge = Edge(
            HeadAsGet(self.fastapi, self.fastapi.routes),
            runtime=runtime,
            public_paths=public,
            hot_routes=service.hot_routes,
            metrics=self.metrics,
            service=service.name,
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.edge(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """Keep the service's own state alive; its duties get it too."""
        opened: AbstractAsyncContextManager[Any] = self.service.state(self.runtime) if self.service.state else nullcontext()
        async with opened as state:
            self.fastapi.state.service = self.edge.state = state
            yield state


# The framework's own would export what callers sent as soon as anyone sets a provider: the edge has ours.
_NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)


def _fastapi(service: Service, runtime: Runtime, metrics: ServiceMetrics) -> FastAPI:
    # Its own documentation routes are off: ours work without a network. No telemetry, no default exception pages.
    app = FastAPI(
        title=service.title,
        description=service.description,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
    )
    app.router.routes.extend(routes_of(service))
    undeclared = undeclared_routes(app.routes, system.PUBLIC_ROUTES)
    if undeclared:
        raise ConfigurationError(f"{service.name}: routes without a permission: {'; '.join(undeclared)}.")
    problems.install(app)
    app.state.name = service.name
    app.state.runtime = runtime
    app.state.service = None
    app.state.metrics = metrics
    app.state.readiness = None
    app.state.checks = {name: _bound(check, runtime) for name, check in service.dependencies.items()}
    app.state.openapi_json = cache(lambda: json.dumps(openapi_document(service, app.routes)).encode())
    return app


def routes_of(service: Service) -> list[BaseRoute]:
    """The platform's own routes and those of the service."""
    return [route for router in (*_ROUTERS, *service.routers) for route in router.routes]


def openapi_document(service: Service, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document, with the ways to send a credential and problem+json as the form of every error."""
    document = get_openapi(
        title=service.title,
        version="1.0",
        description=service.description,
        routes=routes,
        separate_input_output_schemas=False,
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key or a service token."},
        "apiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    components.setdefault("schemas", {}).setdefault("Problem", Problem.model_json_schema(ref_template=_REF))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _add_common_errors(method, operation)
            _document_errors(operation)
            if path not in system.PUBLIC_ROUTES:
                operation["security"] = [{"apiKey": []}, {"apiKeyHeader": []}]
    return document


_REF = "#/components/schemas/{model}"
# What the layers around an endpoint can answer before it is asked.
_BODY_ERRORS = (MalformedRequest, ContentTooLarge, UnsupportedMediaType, InvalidInput)
_IDEMPOTENCY_ERRORS = (idempotency.IdempotencyKeyInUse, idempotency.IdempotencyKeyReused)


def _add_common_errors(method: str, operation: dict[str, Any]) -> None:
    """What a route answers because it reads a body, takes parameters or honours `Idempotency-Key`."""
    possible: list[type[PlatformError]] = []
    if "requestBody" in operation:
        possible += _BODY_ERRORS
    if method == "post":
        possible += _IDEMPOTENCY_ERRORS
    for status, response in problems_of(*possible).items():
        operation["responses"].setdefault(str(status), {"description": response["description"]})


def _document_errors(operation: dict[str, Any]) -> None:
    """Errors are problem+json, and the framework's own validation error schema is not what we send."""
    for status, response in operation["responses"].items():
        if (status.startswith(("4", "5")) and status != "503") or "Problem" in json.dumps(response):
            response["content"] = {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}


def _bound(check: Callable[[Runtime], Any], runtime: Runtime) -> Callable[[], Any]:
    return lambda: check(runtime)

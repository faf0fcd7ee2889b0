"""The outermost layer of every port: identity of the request, guards, authentication, hot paths, metrics, access log."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from time import perf_counter
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_platform.core.auth.authenticator import read_credential
from mlops_platform.core.errors import DependencyUnavailable, PlatformError, Unauthenticated
from mlops_platform.core.http.access_log import AccessLog
from mlops_platform.core.http.guard import UNGUARDED_PATHS, HostGuard, fields_of
from mlops_platform.core.http.problems import (
    CLIENT_GONE,
    MEDIA_TYPE,
    UNFORESEEN,
    UNFORESEEN_HINT,
    InternalError,
    problem_bytes,
)
from mlops_platform.core.http.service import HotRequest, HotResponse, HotRoute
from mlops_platform.core.identity import Principal
from mlops_platform.core.telemetry.metrics import UNMATCHED, ServiceMetrics
from mlops_platform.core.telemetry.tracing import TRACE_PARENT, RequestSpans
from mlops_platform.core.work.runtime import Runtime

log = structlog.get_logger(__name__)

_random_bits = Random().getrandbits  # noqa: S311  # ids, not secrets
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class HotTable:
    """Finds the hot route of a request: by exact path, or by a template with one or more parameters."""

    def __init__(self, routes: tuple[HotRoute, ...]) -> None:
        routes = (*routes, *(replace(route, method="HEAD") for route in routes if route.method == "GET"))
        self._exact = {(route.method, route.path): route for route in routes if "{" not in route.path}
        self._templates = [
            (route.method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]{1,200})", route.path) + "/?"), route)
            for route in routes
            if "{" in route.path
        ]

    def find(self, method: str, path: str) -> tuple[HotRoute, Mapping[str, str]] | None:
        """The route and its path parameters."""
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        for template_method, pattern, route in self._templates:
            if template_method == method and (match := pattern.fullmatch(path)):
                return route, match.groupdict()
        return None


class Edge:
    """One pure ASGI layer per port. Nothing inside it runs before host, size of the crowd and credential are checked."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        runtime: Runtime,
        public_paths: frozenset[str],
        hot_routes: tuple[HotRoute, ...],
        metrics: ServiceMetrics,
        service: str,
    ) -> None:
        self._app = app
        self._runtime = runtime
        self._public = public_paths
        self._hot = HotTable(hot_routes)
        self._metrics = metrics
        self._service = service
        self._guard = HostGuard(runtime.settings)
        self._access = AccessLog(service, runtime.settings.access_log_sample)
        self._spans = RequestSpans(runtime.tracer, service) if runtime.tracer is not None else None
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: self._in_flight)
        self._most = runtime.settings.max_concurrent_requests
        self.state: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        self._in_flight += 1
        try:
            await self._answer(scope, receive, exchange)
        except PlatformError as error:
            await exchange.refuse(error)
        except asyncio.CancelledError:
            exchange.status = exchange.status or CLIENT_GONE
            raise
        except ClientDisconnect:
            exchange.status = exchange.status or CLIENT_GONE
        except Exception as error:  # the process edge: logged, counted, answered
            log.exception("request.crashed", path=scope["path"], request_id=exchange.request_id, error=repr(error))
            await exchange.refuse(InternalError(UNFORESEEN, hint=UNFORESEEN_HINT))
        finally:
            self._in_flight -= 1
            seconds = perf_counter() - exchange.started
            self._metrics.observe(exchange.method, exchange.route, exchange.status, seconds)
            if self._access.keeps(is_hot=exchange.sampled, status=exchange.status):
                self._access.add(exchange.line(seconds))
            if self._spans is not None:
                self._spans.add(scope, exchange, seconds)

    async def _answer(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        method, path, headers = exchange.method, exchange.path, fields_of(scope["headers"])
        self._guard.check(method, path, headers)
        # A busy process is alive: a probe that is shed would have it killed.
        if self._in_flight > self._most and path not in UNGUARDED_PATHS:
            raise DependencyUnavailable("service", "Too many requests are under way; this one was not begun.")
        hot = self._hot.find(method, path)
        if hot is not None:
            await self._answer_hot(hot, scope, receive, exchange=exchange, headers=headers)
            return
        state = exchange.bind(scope)
        if path not in self._public:
            state["principal"] = exchange.principal = await self._principal(headers)
        with structlog.contextvars.bound_contextvars(
            service=self._service, request_id=exchange.request_id, trace_id=exchange.trace_id
        ):
            try:
                await self._app(scope, receive, exchange.send)
            finally:
                exchange.route = _template(scope)

    async def _answer_hot(
        self,
        hot: tuple[HotRoute, Mapping[str, str]],
        scope: Scope,
        receive: Receive,
        *,
        exchange: "_Exchange",
        headers: Mapping[bytes, bytes],
    ) -> None:
        route, parameters = hot
        exchange.route = route.path
        principal = exchange.principal = await self._principal(headers)
        principal.require(route.permission)
        exchange.sampled = True
        response = await route.handle(HotRequest(scope, receive, principal, parameters, self._runtime, self.state))
        await exchange.respond(response)

    async def _principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        presented = read_credential(headers)
        if presented is None:
            raise Unauthenticated
        authenticator = self._runtime.authenticator
        return authenticator.recall(presented) or await authenticator.authenticate(presented)

    async def drain(self, seconds: float) -> None:
        """Wait until no request is under way, at most this long, and write the last access lines."""
        deadline = perf_counter() + seconds
        while self._in_flight and perf_counter() < deadline:  # noqa: ASYNC110  # once, at the end of the process
            await asyncio.sleep(0.02)
        self._access.flush()


class _Exchange:
    """One request and its answer, as the edge sees them."""

    __slots__ = (
        "_begun", "_headers", "_send", "method", "path", "principal", "request_id", "route", "sampled", "started",
        "status", "trace_id", "trace_parent",
    )  # fmt: skip

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.route = UNMATCHED
        self.status = 0
        self.sampled = False
        self.principal: Principal | None = None
        self.request_id, self.trace_parent = _identify(scope["headers"])
        self.trace_id = self.trace_parent[3:35]
        self._send = send
        self._begun = False
        self._headers = [(b"x-request-id", self.request_id.encode()), (b"traceparent", self.trace_parent.encode())]

    def bind(self, scope: Scope) -> dict[str, Any]:
        """Make the request's identity known to what runs inside."""
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = self.request_id
        state["trace_parent"] = self.trace_parent
        return state

    async def send(self, message: Message) -> None:
        """Pass on, with our headers on the first message."""
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            added = [header for header in SECURITY_HEADERS if header[0] not in present]
            message = {**message, "headers": [*message["headers"], *self._headers, *added]}
        await self._send(message)

    async def respond(self, response: HotResponse) -> None:
        """Send a hot answer in two messages, with as little as possible around it."""
        self._begun = True
        self.status = response.status
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body)), *self._headers]
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else response.body})

    async def refuse(self, error: PlatformError) -> None:
        """Answer with a problem, unless an answer is already on its way."""
        if self._begun:
            return
        body = problem_bytes(error, self.request_id)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def line(self, seconds: float) -> dict[str, Any]:
        """The access line."""
        return {
            "method": self.method,
            "path": self.path,
            "route": self.route,
            "status": self.status,
            "milliseconds": round(seconds * 1000, 3),
            "request_id": self.request_id,
            "principal": self.principal.name if self.principal else None,
        }


def _identify(headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    """The caller's request id and W3C trace parent when they are well-formed, else new ones.

    Trace and span ids must be unlikely to meet, not hard to guess: no system call is spent on them. Where the caller
    names neither, the request and its trace have one id.
    """
    fields = dict(headers)
    trace = fields.get(b"traceparent")
    if trace is not None and TRACE_PARENT.fullmatch(trace):
        # Same trace, our own span.
        parent = f"{trace[:36].decode()}{_random_bits(64):016x}{trace[52:].decode()}"
    else:
        bits = f"{_random_bits(192):048x}"
        parent = f"00-{bits[:32]}-{bits[32:]}-01"
    request_id = fields.get(b"x-request-id")
    if request_id is not None and _REQUEST_ID.fullmatch(request_id):
        return request_id.decode(), parent
    return (parent[3:35] if trace is None else f"{_random_bits(128):032x}"), parent


def _template(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", UNMATCHED)

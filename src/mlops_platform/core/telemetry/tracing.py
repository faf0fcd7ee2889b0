"""Spans: gathered without waiting, sent in batches by a thread of its own.

What a request pays is one append to a bounded queue. A collector that is slow or away costs spans and never time or
memory: when the queue is full, new spans are counted and forgotten. This module knows no OpenTelemetry; `otlp` does.
"""

import re
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic, thread_time, time_ns
from typing import Any, NamedTuple, Protocol

import structlog

from mlops_platform.core.identity import new_id
from mlops_platform.core.telemetry.metrics import METHODS, UNMATCHED

log = structlog.get_logger(__name__)

# W3C trace context, version 00; ids of zeros alone are not valid.
TRACE_PARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_BATCH = 512
# Seconds of rest for each second of work.
_REST = 4.0
_FLUSH_SECONDS = 3.0
_ABORT_SECONDS = 0.5
_COMPLAIN_SECONDS = 60.0
_SPACE = 2**64
_TOO_MANY = "They came faster than they are sent; OTEL_TRACES_SAMPLER_ARG exports a share of them."
_TOO_LATE = "The process ended before the collector had taken them."


class Span(NamedTuple):
    """Something that was done. `context` is its own trace parent, `parent_id` the span that asked for it."""

    context: str
    parent_id: str | None
    name: str
    service: str
    is_server: bool
    ended_ns: int
    seconds: float
    attributes: Mapping[str, str | int]
    error: str | None


class SpanExporter(Protocol):
    """Where batches go. Called from one thread; `close` from another, and it ends a `send` that is about to try again."""

    def send(self, spans: Sequence[Span]) -> str | None:
        """Send them; why they were not taken, if they were not."""

    def close(self) -> None:
        """Give up what is under way."""


class Tracer:
    """One per process."""

    def __init__(self, exporter: SpanExporter, *, share: float, capacity: int, delay_seconds: float) -> None:
        self._exporter = exporter
        self._share = share
        self._capacity = capacity
        self._batch = min(_BATCH, capacity)
        self._delay = delay_seconds
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._is_late = False
        # Each is written by one thread only: refused by whoever adds, lost by the thread that sends.
        self._refused = 0
        self._lost = 0
        self._under_way = 0
        self._told = 0
        self._told_at = -_COMPLAIN_SECONDS
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    def wants(self, context: str, *, is_root: bool) -> bool:
        """Whether a span is exported: the caller decides for its trace, and the share for those that begin here."""
        if not is_root:
            return int(context[53:], 16) & 1 == 1
        return self._share >= 1 or int(context[19:35], 16) < self._share * _SPACE

    def add(self, span: Span) -> None:
        """Take a span, or forget it when too many wait."""
        if len(self._waiting) >= self._capacity:
            self._refused += 1
            return
        self._waiting.append(span)
        if len(self._waiting) >= self._batch and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Send what waits, for a few seconds at most. Blocks: not for the event loop."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.set()
        self._thread.join(_FLUSH_SECONDS)
        self._is_late = True
        self._exporter.close()
        self._thread.join(_ABORT_SECONDS)
        left = len(self._waiting) + self._under_way
        self._lost += left
        self._waiting.clear()
        self._complain(_TOO_LATE if left else _TOO_MANY, at_once=True)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._delay)
            self._wake.clear()
            self._send_waiting()
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and not self._is_late:
            batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            self._under_way, began = len(batch), thread_time()
            try:
                why = self._exporter.send(batch)
            except Exception as error:  # the edge of this thread: without it no span would be sent any more
                log.exception("traces.crashed", error=repr(error))
                why = repr(error)
            self._under_way = 0
            if why is not None:
                self._lost += len(batch)
            self._complain(why or _TOO_MANY)
            # Encoding takes the interpreter away from requests: only ever a part of its time.
            self._closing.wait((thread_time() - began) * _REST)

    def _complain(self, why: str, *, at_once: bool = False) -> None:
        """One line a minute for as long as spans are lost."""
        gone = self._refused + self._lost
        if gone > self._told and (at_once or monotonic() - self._told_at >= _COMPLAIN_SECONDS):
            log.warning("traces.lost", spans=gone - self._told, why=why)
            self._told, self._told_at = gone, monotonic()


class Answered(Protocol):
    """What the edge of a port knows of a request that it has answered."""

    method: str
    route: str
    status: int
    request_id: str
    trace_parent: str


class RequestSpans:
    """Makes the server span of each request of one service."""

    def __init__(self, tracer: Tracer, service: str) -> None:
        self._tracer = tracer
        self._service = service

    def add(self, scope: Mapping[str, Any], answered: Answered, seconds: float) -> None:
        """Tell of an answered request. Neither path nor query is told: they hold names, and what callers put there."""
        parent_id = _caller(scope["headers"])
        if not self._tracer.wants(answered.trace_parent, is_root=parent_id is None):
            return
        is_known = answered.method in METHODS
        attributes: dict[str, str | int] = {
            "http.request.method": answered.method if is_known else "_OTHER",
            "http.response.status_code": answered.status,
            "url.scheme": scope.get("scheme", "http"),
            "mlops.request_id": answered.request_id,
        }
        name = answered.method if is_known else "HTTP"
        if answered.route != UNMATCHED:
            attributes["http.route"] = answered.route
            name = f"{name} {answered.route}"
        if (server := scope.get("server")) is not None:
            attributes["server.address"] = server[0]
            if server[1] is not None:
                attributes["server.port"] = server[1]
        error = str(answered.status) if answered.status >= 500 else None
        self._tracer.add(
            Span(
                context=answered.trace_parent,
                parent_id=parent_id,
                name=name,
                service=self._service,
                is_server=True,
                ended_ns=time_ns(),
                seconds=seconds,
                attributes=attributes,
                error=error,
            )
        )


def child_of(context: str | None, trace_id: str) -> tuple[str, str | None]:
    """A new span's own trace parent and its parent's id: within that context, or the first of the given trace."""
    own = new_id()[16:]
    if context is None:
        return f"00-{trace_id}-{own}-01", None
    return f"{context[:36]}{own}{context[52:]}", context[36:52]


def _caller(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The span id of the header that the edge went by: of several the last."""
    given = dict(headers).get(b"traceparent")
    return given[36:52].decode() if given is not None and TRACE_PARENT.fullmatch(given) else None

"""An OpenTelemetry collector: takes OTLP over HTTP on this machine, and can be told to misbehave."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received:
    """A span as it came, with the resource that it belongs to."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.name: str = span.name
        self.kind: int = span.kind
        self.trace_id: str = span.trace_id.hex()
        self.span_id: str = span.span_id.hex()
        self.parent_id: str = span.parent_span_id.hex()
        self.started_ns: int = span.start_time_unix_nano
        self.ended_ns: int = span.end_time_unix_nano
        self.status: int = span.status.code
        self.attributes = _values(span.attributes)
        self.resource = resource


class Collector:
    """`gate` lets answers go; `statuses` are answered first, one for each request, before 200."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.spans: list[Received] = []
        self.reached = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """What a request is answered."""
        self.reached.set()
        self.gate.wait(30)
        self.paths.append(path)
        self.headers.append(headers)
        self.bodies.append(body)
        if self.statuses:
            return self.statuses.pop(0)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(group.resource.attributes)
            self.spans += [Received(span, resource) for scope in group.scope_spans for span in scope.spans]
        return 200

    def wait_for(self, count: int, *, seconds: float = 10.0) -> list[Received]:
        """The spans, once there are so many. Blocks: call it in a thread."""
        deadline = time.monotonic() + seconds
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} of {count} spans came"
            time.sleep(0.005)
        return self.spans


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens until the block ends."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with contextlib.suppress(ConnectionError):  # who waited in vain is gone
                self.send_response(collector.take(self.path, dict(self.headers.items()), body))
                self.send_header("content-length", "0")
                self.send_header("retry-after", "0")
                self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield collector
    finally:
        collector.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}

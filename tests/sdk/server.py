"""A small real HTTP server whose answers a test writes down, one function per request."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """One answer. `cut_after` breaks the connection after that many bytes of the body."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    cut_after: int | None = None

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def problem(status: int, code: str = "some_code", **extra: Any) -> Reply:
    """An error as the platform answers it."""
    body = {"type": "about:blank", "title": "t", "status": status, "code": code, "detail": "It is so.", **extra}
    headers = extra.pop("headers", {})
    body.pop("headers", None)
    return Reply(status, body, headers, "application/problem+json")


Answer = Callable[[Seen], Reply]


class FakeService:
    """Answers with `answer(seen)`, which may be replaced at any moment; keeps what it saw."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections: set[tuple[str, int]] = set()
        self.url = ""


@contextmanager
def fake_service(answer: Answer = lambda seen: Reply(), *, port: int = 0) -> Iterator[FakeService]:
    """A service on a port of this machine, until the block ends."""
    service = FakeService(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            service.connections.add(self.client_address)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            seen = Seen(self.command, self.path, dict(self.headers), body)
            service.seen.append(seen)
            reply = service.answer(seen)
            content = reply.content()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(content)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if reply.cut_after is not None:
                self.wfile.write(content[: reply.cut_after])
                self.wfile.flush()
                self.connection.shutdown(2)
                self.close_connection = True
                return
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return  # a client that went away is part of the tests

    server = Server(("127.0.0.1", port), Handler)
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Road(httpx2.HTTPTransport):
    """The network, which may be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.is_broken = False
        self.loses: Callable[[httpx2.Request], bool] = lambda request: False
        """Which requests arrive, and their answers do not."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.is_broken:
            raise httpx2.ConnectError("no road", request=request)
        response = super().handle_request(request)
        if self.loses(request):
            response.close()
            raise httpx2.ReadError("the answer was lost", request=request)
        return response

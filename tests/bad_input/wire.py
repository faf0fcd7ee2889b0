"""Requests as bytes: what a well-behaved client library would refuse to send."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tests.conftest import Platform

JSON = (b"content-type", b"application/json")
PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose every part may be hostile."""

    method: str
    path: bytes
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = (JSON,)
    body: bytes | Sequence[bytes] = b""
    has_length: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:400]!r}"


class Wire:
    """Sends to one app as its server does, with a key."""

    def __init__(self, platform: Platform, service: str, key: str | None) -> None:
        self._app = platform.apps[service]
        self._credential = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]

    async def send(self, request: Request, *, within: float = 20.0) -> Answer:
        """The answer, complete."""
        chunks = [request.body] if isinstance(request.body, bytes) else list(request.body)
        headers = [(b"host", b"localhost"), *self._credential, *request.headers]
        if request.has_length:
            headers.append((b"content-length", b"%d" % sum(map(len, chunks))))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(request.path.decode("latin-1")),
            "raw_path": request.path,
            "query_string": request.query,
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("localhost", 80),
            "state": {},
        }
        async with asyncio.timeout(within):
            return await self._exchange(scope, chunks)

    async def _exchange(self, scope: dict[str, Any], chunks: list[bytes]) -> Answer:
        messages = [
            {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
            for index, chunk in enumerate(chunks)
        ] or [{"type": "http.request", "body": b"", "more_body": False}]
        sent: list[Any] = []
        is_complete = asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await is_complete.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                is_complete.set()

        await self._app(scope, receive, send)
        starts = [message for message in sent if message["type"] == "http.response.start"]
        assert len(starts) == 1, f"{len(starts)} responses to one request"
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in starts[0]["headers"]}
        assert not any({"\r", "\n"} & set(name + value) for name, value in headers.items()), "a header was injected"
        body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
        return Answer(starts[0]["status"], headers, body)

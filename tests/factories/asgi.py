"""Requests as a server hands them over, byte for byte: HTTP clients tidy up what tests of bad input must send."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httpx2

from tests.conftest import Caller


def raw_request(caller: Caller, method: str, raw_path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """An ASGI scope with the path decoded once, as uvicorn does it."""
    given = {"host": "localhost", "authorization": f"Bearer {caller.key}", **(headers or {})}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
        "state": {},
    }


async def exchange(
    caller: Caller, scope: dict[str, Any], *, body: Iterable[bytes] | None, disconnects: bool = False
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of the answer. With `body=None` the app must answer without reading."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in body or ()]
    if disconnects:
        messages.append({"type": "http.disconnect"})
    elif messages:
        messages[-1]["more_body"] = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        assert body is not None, "the body was read"
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    transport = caller.http._transport
    assert isinstance(transport, httpx2.ASGITransport)
    await transport.app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], headers, json.loads(content) if content.startswith(b"{") else content

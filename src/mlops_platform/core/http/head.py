"""HEAD wherever there is GET (RFC 9110, section 9.3.2): the framework answers it with 405."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Answers HEAD with what GET says, without the body; a route that declares HEAD, because it can save work, gets it."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._declared = [route for route in routes if isinstance(route, Route) and "HEAD" in (route.methods or ())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or self._declares(scope["path"]):
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        is_answered = False

        async def receive_until_answered() -> Message:
            # Who is told that nobody listens makes no more of a body: an event feed would never end by itself.
            return {"type": "http.disconnect"} if is_answered else await receive()

        async def send_head(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                is_answered = True

        try:
            await self._app(as_get, receive_until_answered, send_head)
        finally:
            if "route" in as_get:
                scope["route"] = as_get["route"]

    def _declares(self, path: str) -> bool:
        return any(route.path_regex.match(path) for route in self._declared)

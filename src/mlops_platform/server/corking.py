"""One write to the socket per answer: the server writes head and body apart, and a system call costs more than a join."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_JOINED = 64 * 1024


class CorkedProtocol(HttpToolsProtocol):
    """The server's own protocol, writing through a `CorkedTransport`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(cast("asyncio.Transport", CorkedTransport(cast("asyncio.Transport", transport), self.loop)))


class CorkedTransport:
    """Holds what looks like the head of an answer until the next write, at most until the loop's next turn.

    What is held is written with what follows; a guess that is wrong costs a turn of the loop and never an order of bytes.
    """

    __slots__ = ("_held", "_is_due", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None
        self._is_due = False

    def write(self, data: bytes) -> None:
        """Hold a head; else write, behind what is held."""
        held = self._held
        if held is not None:
            self._held = None
            if len(data) < _MOST_JOINED:
                self._transport.write(held + data)
            else:
                self._transport.writelines((held, data))
        elif data.startswith(b"HTTP/1.1 "):
            self._held = data
            if not self._is_due:
                self._is_due = True
                self._loop.call_soon(self._uncork)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what is held, and close when all is sent."""
        self._flush()
        self._transport.close()

    def _uncork(self) -> None:
        self._is_due = False
        self._flush()

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

"""HTTP with a bounded head: uvicorn limits it only for its slower parser, and whoever sends it is not known yet."""

from typing import Any

from mlops_platform.server.corking import CorkedProtocol

MOST_HEAD_BYTES = 64 * 1024
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: 35\r\n\r\n"
    b"The head of the request is too long"
)


class BoundedHttp(CorkedProtocol):
    """Hangs up when a request line, headers, trailers or chunk extensions go on and on.

    What the parser holds back cannot be seen, but what it hands over can: the bytes since then are counted.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held_bytes = 0
        self._is_moving = False

    def data_received(self, data: bytes) -> None:
        self._is_moving = False
        super().data_received(data)
        self._held_bytes = 0 if self._is_moving else self._held_bytes + len(data)
        if self._held_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._is_moving = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._is_moving = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_moving = True
        super().on_message_complete()

"""The head of a request is bounded before anybody knows who sends it."""

import asyncio
import contextlib

import pytest
import uvicorn

from mlops_platform.server.protocol import MOST_HEAD_BYTES, BoundedHttp
from tests.factories.serving import Server

MANY = 64


async def app(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = f"{len(scope['headers'])} {size}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port():
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=BoundedHttp, lifespan="off", log_config=None)
    server = Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has a flag, no event
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = server.force_exit = True
    await task


async def sent_before_the_end(port, begin, piece):
    """How many bytes the server took before it hung up, and what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = len(begin)
    writer.write(begin)
    with contextlib.suppress(ConnectionError):
        while sent < MANY * MOST_HEAD_BYTES and not reader.at_eof():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
            sent += len(piece)
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return sent, answer


class TestHead:
    @pytest.mark.parametrize(
        ("begin", "piece"),
        [
            (b"GET /", b"a" * 4096),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"a" * 4096),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-Many: of these\r\n" * 200),
            (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: one\r\n" * 200),
            (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"extension" * 400),
        ],
        ids=["path", "one header", "many headers", "trailers", "chunk extension"],
    )
    async def test_one_without_end_is_cut_off_at_the_limit(self, port, begin, piece):
        sent, answer = await sent_before_the_end(port, begin, piece)
        assert sent < MANY * MOST_HEAD_BYTES
        assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""

    async def test_one_that_is_too_large_is_told_so(self, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * MOST_HEAD_BYTES)
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 431 ")
        writer.close()

    async def test_a_large_one_within_the_limit_and_a_larger_body_pass(self, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):  # the count begins anew with each request of a connection
            body = b"b" * (4 * MOST_HEAD_BYTES)
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * (MOST_HEAD_BYTES // 2)
            writer.write(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = await asyncio.wait_for(reader.readuntil(str(len(body)).encode()), 5)
            assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()

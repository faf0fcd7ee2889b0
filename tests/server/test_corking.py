"""The answers of a real server on a real socket, and how many writes they take."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import uvicorn

from mlops_platform.server.corking import CorkedProtocol, CorkedTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Recorder(asyncio.Transport):
    """A transport that keeps what it is given."""

    def __init__(self):
        super().__init__({"peername": ("a", 1)})
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data):
        assert not self.is_closed
        self.writes.append(bytes(data))

    def writelines(self, list_of_data):
        self.writes.append(b"".join(list_of_data))

    def close(self):
        self.is_closed = True


@pytest.fixture
def beneath():
    return Recorder()


@pytest.fixture
async def corked(beneath):
    return CorkedTransport(beneath, asyncio.get_running_loop())


async def turn():
    await asyncio.sleep(0)


class TestTransport:
    @pytest.mark.parametrize("body", [b"", b"body", b"x" * 1_000_000])
    async def test_a_head_and_its_body_are_one_write(self, corked, beneath, body):
        corked.write(HEAD)
        corked.write(body)
        assert beneath.writes == [HEAD + body]

    async def test_a_head_alone_is_written_within_a_turn(self, corked, beneath):
        corked.write(HEAD)
        assert beneath.writes == []
        await turn()
        assert beneath.writes == [HEAD]

    async def test_every_byte_keeps_its_place_whatever_it_looks_like(self, corked, beneath):
        sent = [HEAD, b"a", HEAD, HEAD, b"HTTP/1.1 in a body", b"", b"b", HEAD]
        for number, piece in enumerate(sent):
            corked.write(piece)
            if number == 4:
                await turn()
        await turn()
        assert b"".join(beneath.writes) == b"".join(sent)

    async def test_heads_that_follow_each_other_ask_for_one_turn(self, corked, beneath):
        for _ in range(3):
            corked.write(HEAD)
            corked.write(b"body")
        await turn()
        assert beneath.writes == [HEAD + b"body"] * 3

    async def test_closing_writes_what_is_held_before(self, corked, beneath):
        corked.write(HEAD)
        corked.close()
        assert (beneath.writes, beneath.is_closed) == ([HEAD], True)
        await turn()
        assert beneath.writes == [HEAD]

    async def test_the_rest_is_the_transports_own(self, corked):
        assert corked.get_extra_info("peername") == ("a", 1)


async def streaming(_scope, receive, send):
    """A head, then a body only when the client has sent something more."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    await send({"type": "http.response.body", "body": b"late"})


@asynccontextmanager
async def served(app):
    config = uvicorn.Config(app, http=CorkedProtocol, ws="none", lifespan="off", log_config=None)
    server = await asyncio.get_running_loop().create_server(
        lambda: CorkedProtocol(config=config, server_state=uvicorn.server.ServerState(), app_state={}), "127.0.0.1", 0
    )
    config.load()
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        yield reader, writer
        writer.close()
        await writer.wait_closed()


class TestServed:
    async def test_a_head_does_not_wait_for_a_body_that_waits_for_the_client(self):
        async with asyncio.timeout(10), served(streaming) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.write(b"b")
            assert await reader.readexactly(4) == b"late"

    async def test_pipelined_requests_are_answered_in_order(self):
        async def echo(scope, _receive, send):
            body = scope["query_string"]
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        async with asyncio.timeout(10), served(echo) as (reader, writer):
            writer.write(b"".join(b"GET /?%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(100, 150)))
            for n in range(100, 150):
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(3) == b"%d" % n

    @pytest.mark.parametrize("method", [b"HEAD", b"GET"])
    async def test_a_connection_that_is_to_be_closed_gets_its_whole_answer(self, method):
        async def hello(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"hello"})

        async with asyncio.timeout(10), served(hello) as (reader, writer):
            writer.write(method + b" / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n" + (b"hello" if method == b"GET" else b""))

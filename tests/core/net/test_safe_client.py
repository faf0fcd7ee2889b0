import asyncio
import gzip
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlops_platform.core.net.errors import EndpointUnreachable, UnsafeAddress
from mlops_platform.core.net.safe_client import CallPolicy, CheckedTransport, SafeClient, SystemResolver, direct_transport

PUBLIC = "93.184.216.34"


class FakeResolver:
    """Answers from a list, one answer a call, the last one for ever: that is what a rebinding name server does."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def resolve(self, host, port):
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Body(httpx2.AsyncByteStream):
    async def __aiter__(self):
        yield b"ok"


class Wire:
    """What would have gone out, and to where."""

    def __init__(self, *failures):
        self.requests = []
        self.failures = list(failures)
        self.transport = httpx2.MockTransport(self._answer)

    def _answer(self, request):
        self.requests.append(request)
        if self.failures:
            raise self.failures.pop(0)
        return httpx2.Response(200, stream=Body())


def client_for(resolver, wire, **policy):
    rules = CallPolicy(**policy)
    return SafeClient(rules, CheckedTransport(rules, resolver=resolver, inner=wire.transport))


class TestAddressCheck:
    async def test_the_connection_goes_to_the_checked_address_and_still_speaks_of_the_name(self):
        resolver, wire = FakeResolver([PUBLIC]), Wire()
        answer = await client_for(resolver, wire).call("POST", "https://hooks.example.com/in?a=1", content=b"{}")
        (request,) = wire.requests
        assert answer.status == 200
        assert str(request.url) == f"https://{PUBLIC}/in?a=1"
        assert request.headers["Host"] == "hooks.example.com"
        assert request.extensions["sni_hostname"] == "hooks.example.com"

    async def test_a_name_that_is_bound_anew_after_the_check_gains_nothing(self):
        resolver, wire = FakeResolver([PUBLIC], ["127.0.0.1"]), Wire()
        await client_for(resolver, wire).call("GET", "http://rebind.example.com/")
        assert len(resolver.asked) == 1
        assert wire.requests[0].url.host == PUBLIC

    async def test_each_call_checks_anew(self):
        resolver, wire = FakeResolver([PUBLIC], ["127.0.0.1"]), Wire()
        client = client_for(resolver, wire)
        await client.call("GET", "http://rebind.example.com/")
        with pytest.raises(UnsafeAddress):
            await client.call("GET", "http://rebind.example.com/")
        assert len(wire.requests) == 1

    @pytest.mark.parametrize(
        "inside", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "::1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe"]
    )
    async def test_one_inner_address_among_public_ones_is_enough_to_refuse(self, inside):
        wire = Wire()
        with pytest.raises(UnsafeAddress) as caught:
            await client_for(FakeResolver([PUBLIC, inside]), wire).call("GET", "http://mixed.example.com/")
        assert wire.requests == []
        assert inside not in f"{caught.value.detail} {caught.value.errors}"

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::]",
        ],
    )
    async def test_no_spelling_of_this_machine_is_called(self, host):
        wire = Wire()
        rules = CallPolicy()
        client = SafeClient(rules, CheckedTransport(rules, inner=wire.transport))
        with pytest.raises((UnsafeAddress, EndpointUnreachable)):
            await client.call("GET", f"http://{host}/")
        assert wire.requests == []

    async def test_the_next_address_is_tried_when_one_does_not_answer(self):
        wire = Wire(httpx2.ConnectError("refused"))
        await client_for(FakeResolver([PUBLIC, "1.1.1.1"]), wire).call("GET", "http://two.example.com/")
        assert [request.url.host for request in wire.requests] == [PUBLIC, "1.1.1.1"]

    async def test_a_request_that_was_sent_is_not_sent_again(self):
        wire = Wire(httpx2.ReadError("broken"))
        with pytest.raises(EndpointUnreachable, match="ReadError"):
            await client_for(FakeResolver([PUBLIC, "1.1.1.1"]), wire).call("POST", "http://two.example.com/", content=b"x")
        assert len(wire.requests) == 1


class TestResolving:
    async def test_names_that_are_never_answered_keep_no_thread_from_other_work(self, monkeypatch):
        answered = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait() and [])
        rules = CallPolicy(timeout_seconds=0.2)
        client = SafeClient(rules, CheckedTransport(rules, resolver=SystemResolver(), inner=Wire().transport))
        try:
            calls = [client.call("GET", f"https://slow-{number}.test/") for number in range(64)]
            failed = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in failed} == {EndpointUnreachable}
            async with asyncio.timeout(2):
                assert await asyncio.to_thread(lambda: "other work") == "other work"
        finally:
            answered.set()


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "http://",
            "http:///x", "https://user:hunter2@example.com/", "https://user@example.com/", "http://example.com:22/",
            "http://example.com:6379/", "http://example.com:99999/", "http://example.com:x/", "javascript:alert(1)",
            "http://127.0.0.1\\@example.com/", "http://\x00example.com/", "http://①②⑦.0.0.1/", "http://[::1",
            "http://user:hunter2@[::1", "ftp://user:hunter2@example.com/", "http://exam\ud800ple.com/", "http://example.com/\ud800",
            "http://" + "a" * 100_000,
        ],
    )  # fmt: skip
    async def test_what_is_no_plain_web_address_is_refused(self, url):
        wire = Wire()
        with pytest.raises(UnsafeAddress) as caught:
            await client_for(FakeResolver([PUBLIC]), wire).call("GET", url)
        assert caught.value.status == 422
        assert "hunter2" not in f"{caught.value.detail} {caught.value.errors}"
        assert wire.requests == []

    async def test_ports_are_a_setting(self):
        wire = Wire()
        client = client_for(FakeResolver([PUBLIC]), wire, ports=frozenset({8443}))
        await client.call("GET", "https://example.com:8443/")
        with pytest.raises(UnsafeAddress, match="port 443 is not one of 8443"):
            await client.call("GET", "https://example.com/")

    @pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Connection"])
    async def test_headers_that_steer_the_connection_cannot_be_set(self, name):
        with pytest.raises(UnsafeAddress, match="cannot be set"):
            await client_for(FakeResolver([PUBLIC]), Wire()).call("GET", "https://example.com/", headers={name: "x"})

    async def test_a_header_that_no_wire_carries_is_refused(self):
        with pytest.raises(UnsafeAddress):
            await client_for(FakeResolver([PUBLIC]), Wire()).call("GET", "https://example.com/", headers={"X": "\ud800"})

    @pytest.mark.parametrize("failure", [OSError("unknown"), UnicodeError("bad label"), []])
    async def test_a_name_without_an_address_is_unreachable(self, failure):
        with pytest.raises(EndpointUnreachable):
            await client_for(FakeResolver(failure), Wire()).call("GET", "https://nowhere.example.com/")

    @pytest.mark.parametrize("url", [f"http://{'a' * 300}.example.com/", f"http://{'a.' * 200}com/", "http://a..b/"])
    async def test_a_name_that_no_resolver_takes_is_an_error_and_no_crash(self, url):
        rules = CallPolicy()
        with pytest.raises((EndpointUnreachable, UnsafeAddress)):
            await SafeClient(rules, CheckedTransport(rules, inner=Wire().transport)).call("GET", url)


class Server:
    """A real server on loopback that answers each connection with given bytes and remembers what it was sent."""

    def __init__(self, answer, tls=None):
        self.answer, self.tls = answer, tls
        self.received = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        try:
            self.received.append(await reader.readuntil(b"\r\n\r\n"))
            for part in self.answer:
                if part is None:
                    await reader.read()
                else:
                    writer.write(part)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def local_client(server, name="hooks.internal", tls=None, **policy):
    rules = CallPolicy(internal_origins=frozenset({f"{name}:{server.port}"}), **policy)
    inner = direct_transport(tls or ssl.create_default_context())
    return SafeClient(rules, CheckedTransport(rules, resolver=FakeResolver(["127.0.0.1"]), inner=inner))


def plain_answer(body, *headers):
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return ["\r\n".join(head).encode() + body]


class TestRealServer:
    async def test_an_allowed_internal_origin_is_called_and_its_port_with_it(self):
        async with Server(plain_answer(b"hello")) as server:
            client = local_client(server)
            answer = await client.call(
                "POST", f"http://hooks.internal:{server.port}/in", headers={"X-Sign": "s"}, content=b"{}"
            )
            await client.aclose()
        assert (answer.status, answer.content, answer.is_truncated) == (200, b"hello", False)
        sent = server.received[0].lower()
        assert b"host: hooks.internal:" in sent
        assert b"x-sign: s" in sent
        assert b"accept-encoding: identity" in sent

    async def test_another_port_of_an_allowed_host_is_not_allowed(self):
        async with Server(plain_answer(b"hello")) as server:
            client = local_client(server)
            with pytest.raises(UnsafeAddress):
                await client.call("GET", "http://hooks.internal:80/")
            await client.aclose()
        assert server.received == []

    async def test_a_redirect_is_an_answer_and_not_followed(self):
        redirect = [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/secret\r\nContent-Length: 0\r\n\r\n"]
        async with Server(redirect) as server:
            client = local_client(server)
            answer = await client.call("GET", f"http://hooks.internal:{server.port}/")
            await client.aclose()
        assert answer.status == 302
        assert len(server.received) == 1

    async def test_an_endless_answer_is_cut_at_the_limit(self):
        endless = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", *[b"x" * 65536] * 50, None]
        async with Server(endless) as server:
            client = local_client(server, max_response_bytes=1000)
            answer = await client.call("GET", f"http://hooks.internal:{server.port}/")
            await client.aclose()
        assert (len(answer.content), answer.is_truncated) == (1000, True)

    async def test_a_compressed_answer_is_not_unpacked(self):
        bomb = gzip.compress(bytes(50_000_000))
        async with Server(plain_answer(bomb, "Content-Encoding: gzip")) as server:
            client = local_client(server, max_response_bytes=10**6)
            answer = await client.call("GET", f"http://hooks.internal:{server.port}/")
            await client.aclose()
        assert answer.content == bomb

    async def test_a_server_that_drips_is_given_up_after_the_time_out(self):
        async with Server([b"HTTP/1.1 200 OK\r\n", None]) as server:
            client = local_client(server, timeout_seconds=0.2)
            with pytest.raises(EndpointUnreachable):
                await client.call("GET", f"http://hooks.internal:{server.port}/")
            await client.aclose()

    async def test_what_is_not_http_is_unreachable(self):
        async with Server([b"SSH-2.0-OpenSSH_9.9\r\n"]) as server:
            client = local_client(server)
            with pytest.raises(EndpointUnreachable):
                await client.call("GET", f"http://hooks.internal:{server.port}/")
            await client.aclose()

    async def test_a_header_value_with_a_line_break_is_refused(self):
        async with Server(plain_answer(b"")) as server:
            client = local_client(server)
            with pytest.raises(EndpointUnreachable):
                await client.call("GET", f"http://hooks.internal:{server.port}/", headers={"X-A": "b\r\nX-C: d"})
            await client.aclose()
        assert not any(b"X-C" in request for request in server.received)

    @pytest.mark.parametrize("certified", ["hooks.internal", "other.internal"])
    async def test_tls_is_checked_against_the_name_and_not_the_address(self, certified, tmp_path):
        server_tls, client_tls = tls_for(certified, tmp_path)
        async with Server(plain_answer(b"sealed"), server_tls) as server:
            client = local_client(server, tls=client_tls)
            call = client.call("GET", f"https://hooks.internal:{server.port}/")
            if certified == "hooks.internal":
                assert (await call).content == b"sealed"
            else:
                with pytest.raises(EndpointUnreachable):
                    await call
            await client.aclose()


def tls_for(name, directory):
    """A server context with a certificate for the name, and a client context that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = directory / "chain.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cafile=str(chain))

"""HTTP to addresses that users name, such as webhooks, without becoming a door to the network inside (SSRF).

The name is resolved once, every address it stands for is checked, and the connection goes to a checked address: a name that
means something else a moment later gains nothing. TLS and the Host header still speak of the name.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import httpx2

from mlops_platform.core.net.addresses import is_public
from mlops_platform.core.net.errors import EndpointUnreachable, UnsafeAddress

_DEFAULT_PORTS = {"https": 443, "http": 80}
_MOST_ADDRESSES = 3
_RESOLVING_AT_ONCE = 4
_OUR_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)


class Resolver(Protocol):
    """Where the addresses of a name come from."""

    async def resolve(self, host: str, port: int) -> Sequence[str]: ...


class SystemResolver:
    """The resolver of this machine, in threads of its own.

    It cannot be interrupted: a name whose server never answers would keep the threads that hash and seal everybody's files.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVING_AT_ONCE, thread_name_prefix="resolver")

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What may be called. An internal origin is `host:port` exactly as in the URL, and is exempt from both other rules."""

    ports: frozenset[int] = frozenset({443, 80})
    internal_origins: frozenset[str] = frozenset()
    timeout_seconds: float = 10
    max_response_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What came back: a redirect is an answer like any other, and is not followed."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    is_truncated: bool


class SafeClient:
    """Calls what the policy allows, and nothing else."""

    def __init__(self, policy: CallPolicy, transport: "CheckedTransport") -> None:
        self._policy = policy
        self._transport = transport
        self._client = httpx2.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=policy.timeout_seconds
        )

    async def call(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> CallAnswer:
        """Send one request. The time-out covers everything from resolving the name to the last byte of the answer."""
        refused = sorted(_OUR_HEADERS.intersection(name.lower() for name in headers or ()))
        if refused:
            raise UnsafeAddress.of("headers", f"the header {refused[0]!r} cannot be set", refused[0])
        try:
            async with asyncio.timeout(self._policy.timeout_seconds):
                return await self._call(method, url, {**(headers or {}), "Accept-Encoding": "identity"}, content)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
            # The value is not shown: what cannot be parsed can hold a password anywhere.
            raise UnsafeAddress.of("url", "this, or a header with it, cannot be sent over http or https") from error
        except TimeoutError as error:
            raise EndpointUnreachable(f"The address did not answer within {self._policy.timeout_seconds:g} s.") from error
        except httpx2.TransportError as error:
            raise EndpointUnreachable(f"The call failed: {type(error).__name__}.") from error

    async def check(self, url: str) -> None:
        """Raise what a call would raise before its first byte: the address is not one to call, or is not known."""
        try:
            async with asyncio.timeout(self._policy.timeout_seconds):
                await self._transport.check(httpx2.URL(url))
        except httpx2.InvalidURL as error:
            raise UnsafeAddress.of("url", "this is not an http or https address", url[:200]) from error
        except TimeoutError as error:
            raise EndpointUnreachable("The name was not resolved in time.") from error

    async def aclose(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def _call(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> CallAnswer:
        async with self._client.stream(method, url, headers=headers, content=content) as response:
            kept = bytearray()
            # Raw, because a few kilobytes of a compressed body can unpack to gigabytes.
            async for chunk in response.aiter_raw():
                kept += chunk
                if len(kept) > self._policy.max_response_bytes:
                    break
            limit = self._policy.max_response_bytes
            return CallAnswer(response.status_code, dict(response.headers), bytes(kept[:limit]), len(kept) > limit)


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Sends each request to an address that was checked, over a connection of its own.

    Connections are not kept: they would be kept by address, and a name must never ride on the certificate of another.
    """

    def __init__(
        self, policy: CallPolicy, *, resolver: Resolver | None = None, inner: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._policy = policy
        self._resolver = resolver or SystemResolver()
        self._inner = inner or direct_transport(ssl.create_default_context())

    async def check(self, url: httpx2.URL) -> None:
        """Everything that comes before the connection."""
        await self._checked_addresses(*_checked_origin(url, self._policy))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host, port = _checked_origin(request.url, self._policy)
        addresses = await self._checked_addresses(host, port)
        for address in addresses[:-1]:
            try:
                return await self._send(request, host, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._send(request, host, addresses[-1])

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _checked_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = list(dict.fromkeys(await self._resolver.resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise EndpointUnreachable(f"The name {host!r} is not known.") from error
        if not addresses:
            raise EndpointUnreachable(f"The name {host!r} has no address.")
        is_internal = _origin(host, port) in self._policy.internal_origins
        if not is_internal and not all(is_public(address) for address in addresses):
            raise UnsafeAddress.of("url", "the host is not on the public internet", host)
        return addresses[:_MOST_ADDRESSES]

    async def _send(self, request: httpx2.Request, host: str, address: str) -> httpx2.Response:
        checked = httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._inner.handle_async_request(checked)


def direct_transport(tls: ssl.SSLContext) -> httpx2.AsyncBaseTransport:
    """Connections straight to the given address, without proxy, each for one request."""
    limits = httpx2.Limits(max_connections=100, max_keepalive_connections=0)
    return httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits)


def _checked_origin(url: httpx2.URL, policy: CallPolicy) -> tuple[str, int]:
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise UnsafeAddress.of("url", "this is not an http or https address", f"{url.scheme}://{url.host}"[:200])
    if url.userinfo:
        raise UnsafeAddress.of("url", "a URL with a user name or password in it is not called")
    host, port = url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme]
    if port not in policy.ports and _origin(host, port) not in policy.internal_origins:
        allowed = ", ".join(map(str, sorted(policy.ports)))
        raise UnsafeAddress.of("url", f"port {port} is not one of {allowed}", port)
    return host, port


def _origin(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

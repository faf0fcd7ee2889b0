# Generated from sdk/_async/client.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""HTTP to one service: credential, retries, typed answers and errors."""

import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar
from uuid import uuid4

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from mlops_platform.contracts.common import Page
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk.errors import (
    ConfigurationError,
    Offline,
    PlatformUnreachable,
    RequestTimedOut,
    UnexpectedAnswer,
    api_error,
)
from mlops_platform.sdk.forking import reset_in_child
from mlops_platform.sdk.retry import RetryPolicy
from mlops_platform.sdk.settings import ClientSettings, Service, is_loopback
from mlops_platform.sdk.wire import encode

A = TypeVar("A", bound=BaseModel)

Content = Callable[[], Iterator[bytes]]
"""A body that can be read again for another attempt."""

Transports = httpx2.BaseTransport | Mapping[Service, httpx2.BaseTransport]


class Pool:
    """The keep-alive connections of one platform object, made at first use and made anew after a fork."""

    def __init__(self, settings: ClientSettings, transport: Transports | None) -> None:
        self._settings = settings
        self._transport = transport
        self._client: httpx2.Client | None = None
        self._of_the_parent: list[httpx2.Client] = []
        self._connecting = threading.Lock()
        reset_in_child(self)

    @property
    def transport(self) -> Transports | None:
        """What stands in place of the network, if anything does."""
        return self._transport

    @property
    def client(self) -> httpx2.Client:
        if self._client is None:
            # Threads that transfer files may all be the first to ask.
            with self._connecting:
                self._client = self._client or self._connect()
        return self._client

    def _connect(self) -> httpx2.Client:
        mounts: dict[str, httpx2.BaseTransport | None] = {
            # Calls to this machine never go through a proxy of the environment.
            f"all://{host}": None
            for host in ("127.0.0.1", "localhost", "[::1]")
        }
        if isinstance(self._transport, Mapping):
            mounts = {self._settings.urls[service]: transport for service, transport in self._transport.items()}
        elif self._transport is not None:
            mounts = {}
        return httpx2.Client(
            transport=self._transport if isinstance(self._transport, httpx2.BaseTransport) else None,
            mounts=mounts,
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=30.0),
            headers={"User-Agent": user_agent()},
        )

    def after_fork_in_child(self) -> None:
        # Kept, so that nothing closes it: an end-of-TLS message from the child would cut the parent's connection.
        if self._client is not None:
            self._of_the_parent.append(self._client)
        self._client = None
        self._connecting = threading.Lock()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class ServiceClient:
    """One service at one address."""

    def __init__(self, service: Service, pool: Pool, settings: ClientSettings) -> None:
        self.service = service
        self.url = settings.urls[service]
        self._pool = pool
        self._policy = RetryPolicy(attempts=settings.retries)
        self._timeout_seconds = settings.timeout_seconds
        self._is_offline = settings.offline
        self._headers = _caller_headers(settings, self.url)

    def get(self, answer: type[A], path: str, *, params: Mapping[str, Any] | None = None) -> A:
        return self.read(answer, self.request("GET", path, params=params))

    def send(
        self,
        method: str,
        path: str,
        answer: type[A],
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> A:
        response = self.request(method, path, json=json, params=params, idempotency_key=idempotency_key)
        return self.read(answer, response)

    def read(self, answer: type[A], response: httpx2.Response) -> A:
        """What a success says. Raises `UnexpectedAnswer` when it is not what this service would say."""
        try:
            return answer.model_validate_json(response.content)
        except ValidationError as error:
            raise unexpected_answer(response) from error

    def pages(
        self, answer: type[A], path: str, *, params: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> Iterator[A]:
        """All items of a list, fetched page by page as they are consumed; at most `limit`."""
        query = dict(params or {})
        seen = 0
        while True:
            page = self.read(Page[answer], self.request("GET", path, params=query))  # type: ignore[valid-type]  # the class is known at run time only
            for item in page.items:
                yield item
                seen += 1
                if limit is not None and seen >= limit:
                    return
            if page.next_page_token is None:
                return
            query["page_token"] = page.next_page_token

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: Content | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        patience_seconds: float | None = None,
    ) -> httpx2.Response:
        """Send, repeat what may be repeated, and return a success whose body has been read.

        `patience_seconds`: wait longer than usual for the answer, as after a large upload.
        """
        timeout = self._waiting(patience_seconds)
        call = self._call(
            method, path, params, json=json, content=content, headers=headers, key=idempotency_key, timeout=timeout
        )
        return self._attempts(call, read=True)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patience_seconds: float | None = None,
    ) -> Iterator[httpx2.Response]:
        """A success whose body is still to be read; what breaks from then on is the caller's to repeat."""
        call = self._call(method, path, params, headers=headers, timeout=self._waiting(patience_seconds))
        response = self._attempts(call, read=False)
        try:
            yield response
        finally:
            response.close()

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        *,
        json: Any = None,
        content: Content | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: httpx2.Timeout,
    ) -> Callable[[], httpx2.Request]:
        """Makes the request anew for each attempt, with the same idempotency key."""
        if self._is_offline:
            raise Offline(
                "This client is offline, and this needs the server.", hint="MLOPS_OFFLINE=1 or offline=True says so."
            )
        sent = {**self._headers, **(headers or {})}
        if json is not None:
            content, sent["Content-Type"] = encode(json), "application/json"
        if method == "POST":
            sent["Idempotency-Key"] = key or uuid4().hex
        query = {name: value for name, value in (params or {}).items() if value is not None}

        def build() -> httpx2.Request:
            body = content() if callable(content) else content
            return self._pool.client.build_request(
                method, self.url + path, params=query, content=body, headers=sent, timeout=timeout
            )

        return build

    def _waiting(self, patience_seconds: float | None) -> httpx2.Timeout:
        seconds = self._timeout_seconds
        return httpx2.Timeout(seconds, connect=min(5.0, seconds), read=max(seconds, patience_seconds or 0.0))

    def _attempts(self, build: Callable[[], httpx2.Request], *, read: bool) -> httpx2.Response:
        # A POST carries its idempotency key and the other methods are idempotent, so that all may be repeated.
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._pool.client.send(build(), stream=True)
                if read or not response.is_success:
                    response.read()
            except httpx2.RequestError as error:
                wait = self._policy.after_failure(attempt, error, is_repeatable=True, jitter=random.random)
                if wait is None:
                    raise self._unreachable(error) from error
            else:
                if response.is_success:
                    return response
                wait = self._policy.after_answer(
                    attempt, response.status_code, headers=response.headers, is_repeatable=True, jitter=random.random
                )
                if wait is None:
                    raise self._problem(response)
            backend.sleep(wait)

    def _problem(self, response: httpx2.Response) -> Exception:
        try:
            body = from_json(response.content)
        except ValueError:
            body = None
        error = api_error(
            response.status_code,
            body,
            url=str(response.url.copy_with(query=None)),
            request_id=response.headers.get("X-Request-ID"),
        )
        if response.status_code == 401 and "Authorization" not in self._headers:
            error.hint = (
                "No API key was found: set MLOPS_API_KEY, or MLOPS_HOME to the folder where 'mlops up' keeps its data."
            )
        return error

    def _unreachable(self, error: httpx2.RequestError) -> PlatformUnreachable:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            hint = (
                "Start it with: mlops up" if is_loopback(self.url) else "Check the address and that the service is running."
            )
            return PlatformUnreachable(f"Nothing answers at {self.url} ({self.service.value}).", hint=hint)
        if isinstance(error, httpx2.TimeoutException):
            return RequestTimedOut(f"{self.url} did not answer in time.", hint="MLOPS_TIMEOUT_SECONDS sets the limit.")
        return PlatformUnreachable(f"The connection to {self.url} broke: {str(error).rstrip('.') or type(error).__name__}.")


def unexpected_answer(response: httpx2.Response) -> UnexpectedAnswer:
    """For a success whose body is not what was asked for."""
    kind = response.headers.get("Content-Type", "something without a type")
    return UnexpectedAnswer(
        f"{response.url.copy_with(query=None)} answered with {kind} that is not what the platform says there.",
        hint="Is this the address of the platform, or of something in front of it? Are client and server of like versions?",
    )


def user_agent() -> str:
    """Who we are, for the access log."""
    try:
        ours = version("mlops-platform")
    except PackageNotFoundError:
        ours = "dev"
    return f"mlops-platform/{ours} python/{sys.version_info.major}.{sys.version_info.minor}"


def _caller_headers(settings: ClientSettings, url: str) -> dict[str, str]:
    headers = {}
    credential = settings.credential_for(url)
    if credential is not None:
        if not credential.isascii() or not credential.isprintable() or " " in credential:
            raise ConfigurationError("The API key or token holds characters that no key of the platform has.")
        headers["Authorization"] = f"Bearer {credential}"
    if settings.project is not None:
        headers["X-MLOps-Project"] = settings.project
    return headers

"""What the tests of the client share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mlops_platform.sdk import AsyncPlatform, Platform
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.server.catalog import BY_NAME
from tests.conftest import Platform as RunningPlatform
from tests.factories.serving import serving
from tests.sdk.server import Answer, FakeService, Road, fake_service


@pytest.fixture
def settings_for(tmp_path: Path) -> Callable[..., ClientSettings]:
    """Client settings with one address for all services and a home of its own."""

    def make(url: str, **changes: Any) -> ClientSettings:
        fields: dict[str, Any] = {
            "urls": dict.fromkeys(Service, url),
            "credential": "mlops_user_test",
            "home": tmp_path,
            "timeout_seconds": 5.0,
        }
        return ClientSettings(**(fields | changes))

    return make


@pytest.fixture
def connected(
    settings_for: Callable[..., ClientSettings],
) -> Callable[..., AbstractContextManager[tuple[FakeService, Platform]]]:
    """A small server with the given answers, and a client of it."""

    @contextmanager
    def connect(answer: Answer, **changes: Any) -> Iterator[tuple[FakeService, Platform]]:
        with fake_service(answer) as service, Platform(settings=settings_for(service.url, **changes)) as platform:
            yield service, platform

    return connect


@pytest.fixture
def sdk_for(apps: dict[str, Any], tmp_path: Path) -> Callable[[str], AsyncPlatform]:
    """An asynchronous client of the running services, in process, with the given credential."""
    by_key = {Service(entry.key): apps[name] for name, entry in BY_NAME.items()}
    # Each service needs an address of its own to be told apart; the guard knows these names.
    urls = {service: f"http://localhost:{8000 + number}" for number, service in enumerate(Service)}

    def make(credential: str) -> AsyncPlatform:
        transports = {service: httpx2.ASGITransport(app=app) for service, app in by_key.items()}
        return AsyncPlatform(settings=ClientSettings(urls=urls, credential=credential, home=tmp_path), transport=transports)

    return make


@pytest.fixture
async def connect(
    platform: RunningPlatform, apps: dict[str, Any], settings_for: Callable[..., ClientSettings]
) -> AsyncIterator[Callable[..., Platform]]:
    """Makes clients of the tracking service on a port, with a key of a fresh project, that beat every second."""
    key, _ = await platform.key(await platform.project())
    clients: list[Platform] = []
    async with serving({"experiment-tracking": apps["experiment-tracking"]}) as addresses:

        def make(road: Road | None = None, **changes: Any) -> Platform:
            settings = settings_for(addresses["tracking"], **{"credential": key, "heartbeat_seconds": 1, **changes})
            clients.append(Platform(settings=settings, transport=road))
            return clients[-1]

        yield make
        for client in clients:
            await asyncio.to_thread(client.close)

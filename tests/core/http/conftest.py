"""A toy app over the session's runtime, and callers of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest

from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.identity import ProjectId, Role
from tests.conftest import Platform, TestDatabase
from tests.factories.sample_service import client_of, make_schema, toy_app


@pytest.fixture(scope="session")
async def toys(runtime, database: TestDatabase) -> ServiceApp:
    await make_schema(database.owner_dsn)
    return toy_app(runtime)


class Caller:
    def __init__(self, http: httpx2.AsyncClient, key: str, project: ProjectId, principal: str) -> None:
        self.http, self.key, self.project, self.principal = http, key, project, principal


class Toys:
    """Callers of toy apps, each in a project of its own unless one is given."""

    def __init__(self, platform: Platform, app: ServiceApp, stack: AsyncExitStack) -> None:
        self.platform, self.app, self._stack = platform, app, stack

    async def caller(self, role: Role = Role.ADMIN, *, project=None, app=None, **options) -> Caller:
        project = project or await self.platform.project()
        key, principal = await self.platform.key(project, role, **options)
        return Caller(await self.client(key, app=app), key, project, principal)

    async def client(self, key: str | None = None, *, app=None, **headers: str) -> httpx2.AsyncClient:
        return await self._stack.enter_async_context(client_of(app or self.app, key, **headers))


@pytest.fixture
async def play(platform: Platform, toys: ServiceApp) -> AsyncIterator[Toys]:
    async with AsyncExitStack() as stack:
        yield Toys(platform, toys, stack)


@pytest.fixture
async def ada(play: Toys) -> Caller:
    return await play.caller()

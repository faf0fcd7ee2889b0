"""One real PostgreSQL per test session, one migrated database per xdist worker, one fresh project per test."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import hypothesis
import pytest
from pydantic import SecretStr
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it carries no types

from mlops_platform.core.auth.directory import Directory, NewCredential
from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.identity import PrincipalKind, ProjectId, Role, new_id
from mlops_platform.core.settings import Settings, load_settings
from mlops_platform.core.telemetry import logs
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.server.catalog import BY_NAME
from mlops_platform.server.runtime import open_runtime
from tests.factories import audited
from tests.factories.embedded import TEMPLATE, migrated_server

_WHOLE_PLATFORM = ("tests/e2e/", "tests/faults/")
SECRET = "a secret for tests that is long enough: 0123456789abcdef"
_OPENED = pytest.StashKey[ExitStack]()
_AUDITED = pytest.StashKey[dict[str, bool]]()
_SILENT = pytest.StashKey[list[str]]()
_PLACE = pytest.StashKey[dict[str, str]]()


# Machines differ in speed: how long one example takes says nothing about the promise.
hypothesis.settings.register_profile("platform", deadline=None)
hypothesis.settings.load_profile("platform")


def pytest_configure(config: pytest.Config) -> None:
    """The controller starts the server; workers are told where it is."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    opened = ExitStack()
    config.stash[_OPENED] = opened
    config.stash[_PLACE] = opened.enter_context(migrated_server())


class OnOneWorker(LoadScopeScheduling):  # type: ignore[misc]
    """Tests that share a whole platform go to one worker, which starts it once; all others go where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0] if nodeid.startswith(_WHOLE_PLATFORM) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OnOneWorker | None:
    return OnOneWorker(config, log) if config.getoption("dist") == "load" else None


def pytest_configure_node(node: Any) -> None:
    node.workerinput["postgres"] = node.config.stash[_PLACE]


def pytest_unconfigure(config: pytest.Config) -> None:
    if opened := config.stash.get(_OPENED, None):
        opened.close()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells what it saw; at the end of the whole suite every change must have been audited."""
    config = session.config
    seen = config.stash.get(_AUDITED, {})
    if hasattr(config, "workerinput"):
        config.workeroutput["audited"] = seen  # type: ignore[attr-defined]
        return
    is_whole = not config.option.keyword and config.args in (["tests"], [str(config.rootpath / "tests")])
    if is_whole and (routes := audited.silent(seen)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        config.stash[_SILENT] = routes


def pytest_testnodedown(node: Any) -> None:
    seen = node.config.stash.setdefault(_AUDITED, {})
    for route, is_audited in getattr(node, "workeroutput", {}).get("audited", {}).items():
        seen[route] = seen.get(route, False) or is_audited


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if routes := config.stash.get(_SILENT, None):
        terminalreporter.section("changes without an audit entry", red=True)
        terminalreporter.line("Audit them, or list them with a reason in docs/reference/audit-exemptions.md:")
        for route in routes:
            terminalreporter.line(f"  {route}")


@dataclass(frozen=True)
class TestDatabase:
    """A migrated database of this worker."""

    __test__ = False
    name: str
    app_dsn: str
    owner_dsn: str
    superuser_dsn: str


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> TestDatabase:
    place = getattr(request.config, "workerinput", {}).get("postgres") or request.config.stash[_PLACE]
    made = _database_at(place)
    asyncio.run(_create_database(place["superuser"], made.name))
    return made


@pytest.fixture(scope="module")
async def fresh_database(request: pytest.FixtureRequest) -> AsyncIterator[TestDatabase]:
    """A migrated database of this module alone, for what concerns the whole platform at once."""
    place = getattr(request.config, "workerinput", {}).get("postgres") or request.config.stash[_PLACE]
    made = _database_at(place)
    await _create_database(place["superuser"], made.name)
    yield made
    connection = await asyncpg.connect(place["superuser"])
    await connection.execute(f'DROP DATABASE "{made.name}" WITH (FORCE)')
    await connection.close()


@pytest.fixture(scope="module")
async def fresh_runtime(
    settings: Settings, fresh_database: TestDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runtime]:
    """A process of this module alone, over that database."""
    own = settings.model_copy(update={"home": tmp_path_factory.mktemp("home")})
    async with open_runtime(own, fresh_database.app_dsn) as opened:
        yield opened


def _database_at(place: dict[str, str]) -> TestDatabase:
    name = f"test_{secrets.token_hex(6)}"
    superuser = place["superuser"].replace("@/postgres?", f"@/{name}?")
    return TestDatabase(name, place["app"].replace("DATABASE", name), place["owner"].replace("DATABASE", name), superuser)


async def _create_database(dsn: str, name: str) -> None:
    """Copy the migrated template; only one copy can be made at a time."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock(1)")
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}" OWNER mlops_owner')
        await connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO mlops_app')
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    loaded = load_settings(
        home=home, api_secret_key=SecretStr(SECRET), storage_key=SecretStr("07" * 32), log_level="WARNING"
    )
    logs.configure(loaded)
    return loaded


@pytest.fixture(scope="session")
async def runtime(settings: Settings, database: TestDatabase) -> AsyncIterator[Runtime]:
    async with open_runtime(settings, database.app_dsn) as opened:
        yield opened


class Caller:
    """A client with a key, in a project."""

    def __init__(self, client: httpx2.AsyncClient, key: str, project: ProjectId, principal: str) -> None:
        self.http = client
        self.key = key
        self.project = project
        self.principal = principal


class Platform:
    """The running apps, and ways to come in."""

    def __init__(self, runtime: Runtime, apps: dict[str, ServiceApp], stack: AsyncExitStack) -> None:
        self.runtime = runtime
        self.apps = apps
        self._stack = stack

    async def project(self) -> ProjectId:
        """A fresh project."""
        async with self.runtime.database.write() as session:
            access = Directory(session, self.runtime.auth_keys, self.runtime.clock.now())
            project_id, _ = await access.ensure_project(f"p-{new_id()}")
        return ProjectId(project_id)

    async def key(
        self,
        project: ProjectId,
        role: Role = Role.ADMIN,
        *,
        pattern: str = "*",
        scopes: tuple[str, ...] = ("*",),
        kind: PrincipalKind = PrincipalKind.USER,
        **fields: Any,
    ) -> tuple[str, str]:
        """A key of a new principal with one role; the key and the principal's name."""
        name = f"u-{new_id()}"
        async with self.runtime.database.write() as session:
            access = Directory(session, self.runtime.auth_keys, self.runtime.clock.now())
            principal_id = await access.ensure_principal(name, kind)
            await access.grant(principal_id, project, role, pattern=pattern)
            new = NewCredential(principal_id, project, "test", scopes, **fields)
            _, key = await access.add_key(new, kind)
        return key, name

    async def caller(
        self, service: str, role: Role = Role.ADMIN, *, project: ProjectId | None = None, **options: Any
    ) -> Caller:
        """A client of one service with a new key, in a new project unless one is given."""
        project = project or await self.project()
        key, name = await self.key(project, role, **options)
        return Caller(self.client(service, key), key, project, name)

    def client(self, service: str, key: str | None = None, **headers: str) -> httpx2.AsyncClient:
        """A client of one service, over ASGI."""
        transport = httpx2.ASGITransport(app=self.apps[service], raise_app_exceptions=True)
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        client = httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)
        self._stack.push_async_callback(client.aclose)
        return client


@pytest.fixture(scope="session")
async def apps(request: pytest.FixtureRequest, runtime: Runtime) -> AsyncIterator[dict[str, ServiceApp]]:
    async with AsyncExitStack() as stack:
        apps = {name: ServiceApp(entry.service, runtime) for name, entry in BY_NAME.items()}
        watch = audited.Watch()
        for app in apps.values():
            await stack.enter_async_context(app.running())
            watch.over(app)
        yield apps
        request.config.stash[_AUDITED] = await watch.routes(runtime)


@pytest.fixture
async def platform(runtime: Runtime, apps: dict[str, ServiceApp]) -> AsyncIterator[Platform]:
    async with AsyncExitStack() as stack:
        yield Platform(runtime, apps, stack)

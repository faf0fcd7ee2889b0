"""`mlops serve`: one service as a process of its own."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import httpx2
import pytest

from mlops_platform.core.errors import ConfigurationError
from mlops_platform.server import process
from mlops_platform.server.catalog import BY_NAME, CATALOG
from tests.factories.running import free_ports


@pytest.fixture
def serving_settings(settings, database, tmp_path):
    own = {entry.port_setting: port for entry, port in zip(CATALOG, free_ports().values(), strict=True)}
    return settings.model_copy(update={"database_url": database.app_dsn, "home": tmp_path, **own})


@asynccontextmanager
async def served(settings, name):
    """The address of the service, in a task that a signal ends as it ends a process."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(process.serve(settings, name, ready.set_result))
    task.add_done_callback(lambda _: ready.cancel())
    await ready
    yield ready.result()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(30):
        await task


@pytest.mark.parametrize("name", ["model-registry", "ab-testing"])
async def test_it_answers_as_this_service_until_it_is_told_to_stop(serving_settings, name):
    async with served(serving_settings, name) as url, httpx2.AsyncClient(base_url=url) as client:
        assert url.endswith(f":{BY_NAME[name].port(serving_settings)}")
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/version")).json()["service"] == name
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(base_url=url) as client:
            await client.get("/health")


async def test_an_unknown_service_is_told_with_the_names_of_all(serving_settings):
    with pytest.raises(ConfigurationError, match=r"There is no service 'model-store'.*model-registry"):
        await process.serve(serving_settings, "model-store", print)


async def test_without_a_database_it_says_which_setting_is_missing(settings):
    with pytest.raises(ConfigurationError, match="MLOPS_DATABASE_URL is not set"):
        await process.serve(settings, "model-registry", print)


async def test_a_database_below_its_revision_is_refused_before_the_port_is_taken(serving_settings, database):
    empty = serving_settings.model_copy(update={"database_url": database.superuser_dsn.replace(database.name, "postgres")})
    with pytest.raises(ConfigurationError, match="mlops db upgrade"):
        await process.serve(empty, "model-registry", print)

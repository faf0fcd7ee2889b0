"""What the stock client recorded on a stock server, in a stock folder and database is the same here, seen by both."""

import asyncio
import json
import os
import socket
from asyncio.subprocess import DEVNULL
from contextlib import asynccontextmanager

import httpx2
import pytest

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.settings import ClientSettings, Service
from tests.tracking.mlflow.conftest import INTERPRETER, SCRIPTS

pytestmark = pytest.mark.timeout(300)
MOVING = SCRIPTS / "moving.py"


@pytest.fixture
def sdk_at(address, caller, tmp_path):
    """A client of the running service, over HTTP."""

    def make(key=caller.key):
        urls = dict.fromkeys(Service, address)
        return AsyncPlatform(settings=ClientSettings(urls=urls, credential=key, home=tmp_path / "home"))

    return make


@pytest.fixture
def moving(stock_python):
    async def run(what, **variables):
        return json.loads((await stock_python(MOVING, what, **variables)).strip().splitlines()[-1])

    return run


@asynccontextmanager
async def stock_server(folder):
    """A stock server with its database and files in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    options = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts", "--workers", "1"]
    process = await asyncio.create_subprocess_exec(
        INTERPRETER, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *options,
        cwd=folder, env=environment, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient() as client:
            while True:
                assert process.returncode is None, "the stock server did not start"
                try:
                    if (await client.get(f"{url}/health")).status_code == 200:
                        break
                except httpx2.RequestError:
                    await asyncio.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, 15)
        await process.wait()


def without_empty(seen):
    """The stock stores do not agree on what is absent and what is empty."""
    return json.loads(json.dumps(seen).replace('""', "null"))


async def natively(sdk, name="moving/day"):
    experiment = await sdk.tracking.experiment(name)
    runs = {run.run_name: run async for run in sdk.tracking.search(experiments=[experiment.id])}
    return experiment, runs


async def check(sdk, before, after):
    """What stands here, by our own API and by the stock client's."""
    assert without_empty(after) == without_empty(before)
    experiment, runs = await natively(sdk)
    assert experiment.description == "Why *this*?"
    parent, child = runs["parent"], runs["child"]
    assert child.parent_run_id == parent.id
    assert (parent.status, parent.notes, runs["failed"].status) == ("FINISHED", "what it is", "FAILED")
    assert (parent.parameters["lr"], parent.parameters["n"], parent.parameters["text"]) == (0.001, 3, "ä: {b}")
    assert runs["going on"].status == "RUNNING"
    history = [point.value async for point in sdk.tracking.history(parent.id, "loss")]
    assert history == [1 / (step + 1) for step in range(1000)]
    nested = [(point.step, point.value) async for point in sdk.tracking.history(parent.id, "train/deep/loss")]
    assert nested == [(-1, 0.5), (0, -0.25)]
    assert await sdk.tracking.read_artifact(parent.id, "data/deep/ü b.bin") == bytes(range(256)) * 100


async def test_a_stock_server_and_its_database_move_here_whole(stock_python, moving, sdk_at, caller, platform, tmp_path):
    folder = tmp_path / "stock"
    folder.mkdir()
    async with stock_server(folder) as url, sdk_at() as sdk:
        there = {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": ""}
        await moving("fill", **there)
        before = await moving("dump", **there)
        (counted,) = await sdk.tracking.import_mlflow(url, experiments=["moving/day"], dry_run=True)
        assert counted.created == 6
        (report,) = await sdk.tracking.import_mlflow(url, experiments=["moving/day"])
        assert (report.left_out, report.conflicts, report.created) == ([], [], 6)
        await check(sdk, before, await moving("dump"))
        (again,) = await sdk.tracking.import_mlflow(url, experiments=["moving/day"])
        # The run that goes on is looked at again, and nothing of it is new.
        assert (again.created, again.unchanged, again.points, again.files) == (1, 5, 0, 0)
        await moving("go_on", **there)
        (later,) = await sdk.tracking.import_mlflow(url, experiments=["moving/day"])
        assert (later.is_whole, later.created, later.unchanged, later.points, later.files) == (True, 2, 5, 1, 1)
        assert without_empty(await moving("dump")) == without_empty(await moving("dump", **there))
        before = await moving("dump", **there)
    other = await platform.caller("experiment-tracking")
    async with sdk_at(other.key) as sdk:
        (report,) = await sdk.tracking.import_mlflow(folder / "mlflow.db", experiments=["moving/day"])
        assert (report.left_out, report.conflicts, report.created) == ([], [], 7)
        assert without_empty(await moving("dump", MLFLOW_TRACKING_TOKEN=other.key)) == without_empty(before)


async def test_a_stock_folder_moves_here_whole(moving, sdk_at, tmp_path):
    folder = tmp_path / "mlruns"
    there = {"MLFLOW_TRACKING_URI": folder.as_uri(), "MLFLOW_TRACKING_TOKEN": "", "MLFLOW_ALLOW_FILE_STORE": "true"}
    await moving("fill", **there)
    before = await moving("dump", **there)
    moved = folder.rename(tmp_path / "elsewhere")
    async with sdk_at() as sdk:
        (report,) = await sdk.tracking.import_mlflow(moved, experiments=["moving/day"])
        assert (report.left_out, report.conflicts, report.created) == ([], [], 6)
        await check(sdk, before, await moving("dump"))
        (again,) = await sdk.tracking.import_mlflow(moved, experiments=["moving/day"])
        assert (again.created, again.unchanged, again.points, again.files) == (1, 5, 0, 0)

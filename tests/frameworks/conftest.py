"""The real frameworks in an environment of their own, as a process beside the tests, against a served app."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mlops_platform.core.work.runtime import Runtime
from tests.conftest import Caller, Platform
from tests.factories.checks import outcomes
from tests.factories.serving import serving

SERVICE = "experiment-tracking"
ROOT = Path(__file__).parents[2]
INTERPRETER = Path(os.environ.get("MLOPS_TEST_FRAMEWORKS_PYTHON", ROOT / ".venv-frameworks" / "bin" / "python"))
SCRIPTS = Path(__file__).parent / "client"
# What a client process takes over from this one; nothing else of the machine's settings reaches it.
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


@pytest.fixture(scope="module")
async def address(apps: dict[str, Any]) -> AsyncIterator[str]:
    """Where Experiment Tracking listens."""
    async with serving({SERVICE: apps[SERVICE]}) as urls:
        yield urls["tracking"]


@pytest.fixture(scope="module")
async def caller(runtime: Runtime, apps: dict[str, Any]) -> AsyncIterator[Caller]:
    """A client of the native API in a project of this module, which is the project of its script too."""
    async with AsyncExitStack() as stack:
        yield await Platform(runtime, apps, stack).caller(SERVICE)


@pytest.fixture(scope="module")
def trained(
    address: str, caller: Caller, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Run a script with the frameworks; every one of its checks must hold. What the checks gave back, by name."""
    assert INTERPRETER.exists(), f"{INTERPRETER} is missing: make test-frameworks"
    place = tmp_path_factory.mktemp("trained")

    async def run(script: str, **variables: str) -> dict[str, Any]:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {
            "MLOPS_EXPERIMENT_TRACKING_URL": address,
            "MLOPS_API_KEY": caller.key,
            "MLOPS_HOME": str(place / "home"),
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_TRACKING_TOKEN": caller.key,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # What a model needs is found by loading it in one more process, for which a test has no time.
            "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",
            "GIT_PYTHON_REFRESH": "quiet",
            "KERAS_BACKEND": "torch",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            **variables,
        }
        process = await asyncio.create_subprocess_exec(
            INTERPRETER, SCRIPTS / script, cwd=place, env=environment, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()[-6000:]
        return outcomes(out.decode())

    return run


class Server:
    """What the native API says of runs."""

    def __init__(self, caller: Caller) -> None:
        self._http = caller.http

    async def get(self, url: str, **params: Any) -> Any:
        response = await self._http.get(url, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def run(self, run_id: str) -> Any:
        return await self.get(f"/api/runs/{run_id}")

    async def children(self, run_id: str) -> list[Any]:
        return (await self.get(f"/api/runs/{run_id}/children"))["items"]

    async def values(self, run_id: str, key: str) -> dict[int, float]:
        """The points of a metric by their steps, of which each has one."""
        points = (await self.get(f"/api/runs/{run_id}/metrics/{key}", page_size=1000))["items"]
        found = {point["step"]: point["value"] for point in points}
        assert len(found) == len(points), points
        return found

    async def inputs(self, run_id: str) -> dict[str, Any]:
        """The datasets by what they were read for."""
        return {each["context"]: each for each in await self.get(f"/api/runs/{run_id}/inputs")}

    async def models(self, run_id: str) -> list[Any]:
        return await self.get(f"/api/runs/{run_id}/models")

    async def document(self, run_id: str, path: str) -> Any:
        return await self.get(f"/api/runs/{run_id}/artifacts/{path}")


@pytest.fixture(scope="module")
def server(caller: Caller) -> Server:
    return Server(caller)

"""The stock client in its own environment, as a process beside the tests, against a served app."""

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Caller, Platform
from tests.factories.checks import outcomes
from tests.factories.serving import serving

SERVICE = "experiment-tracking"
ROOT = Path(__file__).parents[3]
INTERPRETER = Path(os.environ.get("MLOPS_TEST_MLFLOW_PYTHON", ROOT / ".venv-mlflow" / "bin" / "python"))
SCRIPTS = Path(__file__).parent / "client"
# What a client process takes over from this one; nothing else of the machine's settings reaches it.
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


@pytest.fixture
async def address(apps: dict[str, Any]) -> AsyncIterator[str]:
    """Where Experiment Tracking listens."""
    async with serving({SERVICE: apps[SERVICE]}) as urls:
        yield urls["tracking"]


@pytest.fixture
async def caller(platform: Platform) -> Caller:
    """A client of the native API in a fresh project, which is the project of the stock client too."""
    return await platform.caller(SERVICE)


@pytest.fixture
def stock_python(address: str, caller: Caller, tmp_path: Path) -> Callable[..., Awaitable[str]]:
    """Run the interpreter of the stock client, which must succeed; what it wrote."""
    assert INTERPRETER.exists(), f"{INTERPRETER} is missing: make .venv-mlflow/.ready"

    async def run(*arguments: str | Path, **variables: str) -> str:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_TRACKING_TOKEN": caller.key,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            # What a model needs is found by loading it in one more process, for which a test has no time.
            "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        process = await asyncio.create_subprocess_exec(
            INTERPRETER, *arguments, cwd=tmp_path, env=environment, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()[-6000:]
        return out.decode()

    return run


@pytest.fixture
def stock_client(stock_python: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Run a script with the stock client; every one of its checks must hold. What the checks gave back, by name."""

    async def run(script: str, **variables: str) -> dict[str, Any]:
        return outcomes(await stock_python(SCRIPTS / script, **variables))

    return run

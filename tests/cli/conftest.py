"""The command line as a user has it: in a process of its own, or at least with an environment of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlops_platform.cli.main import app
from mlops_platform.sdk.settings import URL_VARIABLES, Service
from tests.conftest import Platform
from tests.factories.serving import serving


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Mlops = Callable[..., Awaitable[Outcome]]


def invoke(arguments: tuple[str, ...], environment: Mapping[str, str | None], given: str | None = None) -> Outcome:
    """Run a command with only the environment that is named."""
    forgotten = dict.fromkeys([*URL_VARIABLES.values(), "MLOPS_API_KEY", "MLOPS_PROJECT", "MLOPS_OUTPUT"])
    result = CliRunner().invoke(app, list(arguments), env={**forgotten, **environment}, input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
async def addresses(apps: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
    async with serving(apps) as served:
        yield served


@pytest.fixture
async def mlops(platform: Platform, addresses: dict[str, str], tmp_path: Path) -> Mlops:
    """Runs `mlops <arguments>` with the key of an admin of a fresh project."""
    key, _ = await platform.key(await platform.project())
    environment = {"MLOPS_HOME": str(tmp_path), "MLOPS_API_KEY": key, "MLOPS_RETRIES": "1"}
    environment |= {URL_VARIABLES[Service(name)]: address for name, address in addresses.items()}

    async def run(*arguments: str, given: str | None = None, **changes: str) -> Outcome:
        return await asyncio.to_thread(invoke, arguments, environment | changes, given)

    run.environment = environment  # type: ignore[attr-defined]  # for programs that a test starts beside the command
    return run

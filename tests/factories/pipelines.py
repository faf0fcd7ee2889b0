"""Pipelines, runs and workers for tests."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import text

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.repository.dispatch import Offer
from mlops_platform.pipelines.service.dispatch import ClaimedTask, Dispatcher
from mlops_platform.pipelines.service.settlement import Ending
from mlops_platform.pipelines.tasks.worker import Worker, WorkerOptions
from tests.conftest import Caller
from tests.pipelines.eventually import eventually

USER_CODE = Path(__file__).parents[1] / "pipelines"
FINAL = {"succeeded", "failed", "cancelled"}


def a_task(name: str, function: str = "give", **fields: Any) -> dict[str, Any]:
    """A task of the module `user_code`; keyword arguments that a task does not have are the function's."""
    own = {"depends_on", "retries", "retry_delay_seconds", "retry_on_loss", "timeout_seconds", "resources", "for_each"}
    settings = {key: value for key, value in fields.items() if key in own}
    arguments = {key: value for key, value in fields.items() if key not in own}
    return {"name": name, "entry_point": f"user_code:{function}", "arguments": arguments, **settings}


async def a_pipeline(caller: Caller, *tasks: dict[str, Any], name: str = "p", **fields: Any) -> dict[str, Any]:
    """A pipeline, posted."""
    response = await caller.http.post("/api/pipelines", json={"name": name, "tasks": list(tasks), **fields})
    assert response.status_code in {200, 201}, response.text
    return response.json()


async def a_run(caller: Caller, *tasks: dict[str, Any], name: str = "p", **parameters: Any) -> str:
    """The id of a started run; of a new pipeline when tasks are given."""
    if tasks:
        await a_pipeline(caller, *tasks, name=name)
    response = await caller.http.post(f"/api/pipelines/{name}/runs", json={"parameters": parameters})
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def finished(caller: Caller, run_id: str, *, within: float = 60.0) -> dict[str, Any]:
    """The run when it has ended."""

    async def ended() -> dict[str, Any] | None:
        run = (await caller.http.get(f"/api/pipeline-runs/{run_id}")).json()
        return run if run["state"] in FINAL else None

    return await eventually(ended, within=within)


async def the_task(caller: Caller, run_id: str, task: str, **query: Any) -> dict[str, Any]:
    """A task of a run."""
    response = await caller.http.get(f"/api/pipeline-runs/{run_id}/tasks/{task}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def set_aside_leftovers(runtime: Runtime) -> None:
    """End what earlier tests left open: a worker takes tasks of every project."""
    async with runtime.database.write() as session:
        await session.execute(
            text(
                "UPDATE pipelines.task_runs SET state = 'cancelled', lease_until = NULL"
                " WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'upstream_failed')"
            )
        )


class Paper:
    """A worker on paper: it claims and ends when it is told to."""

    def __init__(self, runtime: Runtime, seed: int = 0) -> None:
        self.id = new_id()
        self.runtime = runtime
        self.dispatcher = Dispatcher(runtime, 60.0, Random(seed))

    async def claim(self, slots: int = 1, **room) -> list[ClaimedTask]:
        needs = {"cpus": 100.0, "memory_mb": 100, "gpus": 0} | room
        offer = Offer(worker_id=self.id, worker="paper", slots=slots, **needs)
        return list((await self.dispatcher.exchange([], [], offer)).claimed)

    async def end(self, claimed: ClaimedTask, state=AttemptState.SUCCEEDED, result=None) -> bool:
        """Whether the ending counted."""
        ending = Ending(claimed.task_run_id, claimed.attempt, state, result=result)
        return not (await self.dispatcher.exchange([ending], [], None)).refused

    async def renew(self, claimed: ClaimedTask) -> PipelineRunState | None:
        return (await self.dispatcher.renew(self.id, [claimed.fence])).get(claimed.fence)


@contextlib.asynccontextmanager
async def working(runtime: Runtime, **options: Any) -> AsyncIterator[Worker]:
    """A worker in this process."""
    given: dict[str, Any] = {
        "slots": 2,
        "paths": [USER_CODE],
        "environment": dict(os.environ),
        "poll_seconds": 0.2,
        "kill_grace_seconds": 0.3,
        "drain_seconds": 0.0,
    }
    await set_aside_leftovers(runtime)
    worker, stop = Worker(runtime, WorkerOptions(**(given | options))), asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        await task
        assert worker.failed_exchanges == 0, "see worker.exchange_failed in the log"

"""Pipeline Orchestrator: pipelines, their runs, schedules and logs."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mlops_platform.contracts.pipelines import (
    LogLine,
    Pipeline,
    PipelineRun,
    PipelineRunDetail,
    PipelineRunState,
    PipelineVersion,
    PipelineVersionSummary,
    Schedule,
    TaskLogs,
    TaskRun,
    TaskRunDetail,
)
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient
from mlops_platform.sdk.errors import PipelineRunFailed, WaitTimedOut
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import given, segment

ENDED = frozenset({PipelineRunState.SUCCEEDED, PipelineRunState.FAILED, PipelineRunState.CANCELLED})
FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 2.0


@runtime_checkable
class Documented(Protocol):
    """A pipeline written as a Python function (see `sdk.pipelines`)."""

    def document(self) -> Any:
        """What the orchestrator stores."""


class AsyncPipelines:
    """Pipelines and their runs."""

    def __init__(self, pool: AsyncPool, settings: ClientSettings) -> None:
        self._client = AsyncServiceClient(Service.PIPELINES, pool, settings)

    async def create(
        self,
        name: str,
        tasks: Sequence[Mapping[str, Any]],
        *,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        schedule: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> PipelineVersion:
        """A pipeline; a new version of it when its tasks or parameters differ from the present ones."""
        body = given(name=name, tasks=tasks, parameters=parameters, schedule=schedule, description=description)
        return await self.create_from(body)

    async def create_from(self, pipeline: Mapping[str, Any] | Documented) -> PipelineVersion:
        """The same from one document, or from a function marked `@pipeline`."""
        body = pipeline.document() if isinstance(pipeline, Documented) else pipeline
        return await self._client.send("POST", "/api/pipelines", PipelineVersion, json=body)

    async def get(self, name: str) -> Pipeline:
        return await self._client.get(Pipeline, _pipeline(name))

    def list(self, *, limit: int | None = None) -> AsyncIterator[Pipeline]:
        return self._client.pages(Pipeline, "/api/pipelines", limit=limit)

    async def version(self, name: str, number: int) -> PipelineVersion:
        return await self._client.get(PipelineVersion, f"{_pipeline(name)}/versions/{number}")

    def versions(self, name: str, *, limit: int | None = None) -> AsyncIterator[PipelineVersionSummary]:
        return self._client.pages(PipelineVersionSummary, f"{_pipeline(name)}/versions", limit=limit)

    async def delete(self, name: str) -> None:
        """Hide the pipeline; `restore` takes it back."""
        await self._client.request("DELETE", _pipeline(name))

    async def restore(self, name: str) -> Pipeline:
        return await self._client.send("POST", f"{_pipeline(name)}/restore", Pipeline)

    # Schedules

    async def set_schedule(self, name: str, cron: str, **options: Any) -> Schedule:
        """Run by itself: `cron`, and optionally `time_zone`, `catch_up`, `catch_up_limit`, `overlap`, `parameters`."""
        return await self._client.send("PUT", f"{_pipeline(name)}/schedule", Schedule, json={"cron": cron, **options})

    async def pause_schedule(self, name: str, *, is_paused: bool = True) -> Schedule:
        return await self._client.send("PATCH", f"{_pipeline(name)}/schedule", Schedule, json={"is_paused": is_paused})

    async def remove_schedule(self, name: str) -> None:
        await self._client.request("DELETE", f"{_pipeline(name)}/schedule")

    # Runs

    async def run(
        self, name: str, parameters: Mapping[str, Any] | None = None, *, version: int | None = None
    ) -> PipelineRunDetail:
        """Start a run; `wait` for it, or look at it later."""
        body = given(parameters=parameters, version=version)
        return await self._client.send("POST", f"{_pipeline(name)}/runs", PipelineRunDetail, json=body)

    async def get_run(self, run_id: str) -> PipelineRunDetail:
        return await self._client.get(PipelineRunDetail, _run(run_id))

    def runs(
        self, name: str | None = None, *, state: str | None = None, limit: int | None = None
    ) -> AsyncIterator[PipelineRun]:
        """Runs of one pipeline, or of all, the newest first."""
        path = f"{_pipeline(name)}/runs" if name else "/api/pipeline-runs"
        return self._client.pages(PipelineRun, path, params=given(state=state), limit=limit)

    async def wait(self, run_id: str, *, timeout_seconds: float | None = None, check: bool = True) -> PipelineRunDetail:
        """Wait for the end of a run. Raises `PipelineRunFailed` unless it succeeded, or `check` is off."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        pause = FIRST_POLL_SECONDS
        while True:
            run = await self.get_run(run_id)
            if run.state in ENDED:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimedOut(f"Pipeline run {run_id} is {run.state.value} after {timeout_seconds:g} s.")
            await backend.sleep(pause)
            pause = min(LONGEST_POLL_SECONDS, pause * 1.5)
        if check and run.state is not PipelineRunState.SUCCEEDED:
            raise PipelineRunFailed(await self._why(run), hint=f"Its logs: mlops pipeline logs {run_id}")
        return run

    async def cancel(self, run_id: str) -> PipelineRunDetail:
        return await self._client.send("POST", f"{_run(run_id)}/cancel", PipelineRunDetail)

    async def retry(self, run_id: str) -> PipelineRunDetail:
        """Run again what failed in a run, with what succeeded kept."""
        return await self._client.send("POST", f"{_run(run_id)}/retry", PipelineRunDetail)

    def tasks(self, run_id: str) -> AsyncIterator[TaskRun]:
        return self._client.pages(TaskRun, f"{_run(run_id)}/tasks")

    async def task(self, run_id: str, task: str, *, item: int | None = None) -> TaskRunDetail:
        """One task of a run with its result and attempts; `item` is the index within a fan-out."""
        return await self._client.get(TaskRunDetail, _task(run_id, task), params=given(item=item))

    async def result(self, run_id: str, task: str, *, item: int | None = None) -> Any:
        """What a task returned."""
        return (await self.task(run_id, task, item=item)).result

    async def logs(
        self, run_id: str, task: str, *, item: int | None = None, attempt: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """The lines that a task wrote; with `follow` until its attempt ends."""
        params = given(item=item, attempt=attempt)
        pause = FIRST_POLL_SECONDS
        while True:
            page = await self._client.get(TaskLogs, f"{_task(run_id, task)}/logs", params=params)
            for line in page.lines:
                yield line
            if page.is_complete or (not page.lines and not follow):
                return
            params["offset"] = page.next_offset
            pause = FIRST_POLL_SECONDS if page.lines else min(LONGEST_POLL_SECONDS, pause * 1.5)
            if not page.lines:
                await backend.sleep(pause)

    async def _why(self, run: PipelineRunDetail) -> str:
        failed = [task async for task in self.tasks(run.id) if task.error is not None]
        reasons = "; ".join(f"{task.task}: {task.error.type}: {task.error.message}" for task in failed[:3] if task.error)
        return f"Pipeline run {run.id} of {run.pipeline!r} is {run.state.value}." + (f" {reasons}." if reasons else "")


def _pipeline(name: str) -> str:
    return f"/api/pipelines/{segment(name)}"


def _run(run_id: str) -> str:
    return f"/api/pipeline-runs/{segment(run_id)}"


def _task(run_id: str, task: str) -> str:
    return f"{_run(run_id)}/tasks/{segment(task)}"

"""Runs, their tasks, their logs."""

from typing import Annotated, Any

from fastapi import Path, Query, Response
from pydantic import Field

from mlops_platform.contracts.common import ID_PATTERN, NAME_PATTERN, Contract, Page
from mlops_platform.contracts.pipelines import (
    PipelineRun,
    PipelineRunCreate,
    PipelineRunDetail,
    PipelineRunState,
    TaskLogs,
    TaskRun,
    TaskRunDetail,
    TaskRunState,
)
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Principal
from mlops_platform.pipelines.domain.states import is_attempt_over
from mlops_platform.pipelines.endpoints import answers
from mlops_platform.pipelines.endpoints.definitions import PipelineName
from mlops_platform.pipelines.errors import (
    IllegalTransition,
    ParametersInvalid,
    PipelineNotFound,
    PipelineRunNotFound,
    PipelineVersionNotFound,
    TaskRunNotFound,
)
from mlops_platform.pipelines.repository import logs as logs_sql
from mlops_platform.pipelines.repository import runs as sql
from mlops_platform.pipelines.repository.permissions import PIPELINES_READ, PIPELINES_WRITE
from mlops_platform.pipelines.service.runs import Runs

RunId = Annotated[str, Path(pattern=ID_PATTERN)]
TaskName = Annotated[str, Path(pattern=NAME_PATTERN, max_length=128)]
Item = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="The index within a fan-out.")]

router = platform_router(tags=["pipeline runs"])


class LogWindow(Contract):
    """Which lines of which attempt."""

    item: Annotated[int, Field(ge=0, le=2**31 - 1, description="The index within a fan-out.")] | None = None
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1, description="The latest when absent.")] | None = None
    offset: Annotated[int, Field(ge=0, le=2**53, description="The first line wanted, counted from 0.")] = 0
    limit: Annotated[int, Field(ge=1, le=5000)] = 1000
    tail: Annotated[int, Field(ge=1, le=5000, description="The last lines instead of `offset` and `limit`.")] | None = None


@router.post(
    "/api/pipelines/{name}/runs",
    status_code=201,
    dependencies=[requires(PIPELINES_WRITE, resource="name")],
    responses=problems(PipelineNotFound, PipelineVersionNotFound, ParametersInvalid),
)
async def start_run(
    name: PipelineName, work: Work, response: Response, body: PipelineRunCreate | None = None
) -> PipelineRunDetail:
    """Start a run of the current version, or of the given one."""
    run_id = await Runs(work).start(name, body or PipelineRunCreate())
    response.headers["Location"] = f"/api/pipeline-runs/{run_id}"
    return await _run(work.session, work.principal, run_id)


@router.get("/api/pipelines/{name}/runs", dependencies=[requires(PIPELINES_READ, resource="name")])
async def list_pipeline_runs(
    name: PipelineName, caller: Caller, session: Reading, page: PageOf, state: PipelineRunState | None = None
) -> Page[PipelineRun]:
    """The runs of a pipeline, newest first."""
    return await _runs(session, caller, page, pipeline=name, state=state)


@router.get("/api/pipeline-runs", dependencies=[requires(PIPELINES_READ)])
async def list_runs(
    caller: Caller,
    session: Reading,
    page: PageOf,
    pipeline: Annotated[str | None, Query(pattern=NAME_PATTERN, max_length=128)] = None,
    state: PipelineRunState | None = None,
) -> Page[PipelineRun]:
    """Runs of all pipelines, newest first."""
    return await _runs(session, caller, page, pipeline=pipeline, state=state)


@router.get("/api/pipeline-runs/{run_id}", dependencies=[requires(PIPELINES_READ)], responses=problems(PipelineRunNotFound))
async def get_run(run_id: RunId, caller: Caller, session: Reading) -> PipelineRunDetail:
    """A run and how many of its tasks are in each state."""
    return await _run(session, caller, run_id)


@router.post(
    "/api/pipeline-runs/{run_id}/cancel",
    dependencies=[requires(PIPELINES_WRITE)],
    responses=problems(PipelineRunNotFound, IllegalTransition),
)
async def cancel_run(run_id: RunId, work: Work, runtime: RuntimeOf) -> PipelineRunDetail:
    """Cancel a run. Running tasks get SIGTERM and, after a grace, SIGKILL; until they have ended it is `cancelling`."""
    await Runs(work).cancel(run_id, runtime.auth_keys)
    return await _run(work.session, work.principal, run_id)


@router.post(
    "/api/pipeline-runs/{run_id}/retry",
    dependencies=[requires(PIPELINES_WRITE)],
    responses=problems(PipelineRunNotFound, IllegalTransition),
)
async def retry_run(run_id: RunId, work: Work) -> PipelineRunDetail:
    """Take a failed or cancelled run up again: results that are there stay, everything else runs."""
    await Runs(work).retry(run_id)
    return await _run(work.session, work.principal, run_id)


@router.get(
    "/api/pipeline-runs/{run_id}/tasks", dependencies=[requires(PIPELINES_READ)], responses=problems(PipelineRunNotFound)
)
async def list_tasks(
    run_id: RunId, caller: Caller, session: Reading, page: PageOf, state: TaskRunState | None = None
) -> Page[TaskRun]:
    """The tasks of a run in the order of the document; the items of a fan-out follow it."""
    await _visible(session, caller, run_id)
    after = (page.after[0], page.after[1]) if page.after else None
    rows = await sql.list_task_runs(session, caller, run_id, state=state, after=after, limit=page.size + 1)
    return page.answer(rows, answers.task_answer, lambda row: (row.position, row.item))


@router.get(
    "/api/pipeline-runs/{run_id}/tasks/{task}",
    dependencies=[requires(PIPELINES_READ)],
    responses=problems(PipelineRunNotFound, TaskRunNotFound),
)
async def get_task(run_id: RunId, task: TaskName, caller: Caller, session: Reading, item: Item = None) -> TaskRunDetail:
    """One task with its result and its attempts."""
    row = await _task(session, caller, run_id, task, item=item)
    return answers.task_detail(row, await sql.list_attempts(session, caller, row.id))


@router.get(
    "/api/pipeline-runs/{run_id}/tasks/{task}/logs",
    dependencies=[requires(PIPELINES_READ)],
    responses=problems(PipelineRunNotFound, TaskRunNotFound),
)
async def get_logs(
    run_id: RunId,
    task: TaskName,
    caller: Caller,
    session: Reading,
    window: Annotated[LogWindow, Query()],
) -> TaskLogs:
    """What a task wrote, a page at a time, or its end. It can be followed while it runs."""
    row = await _task(session, caller, run_id, task, item=window.item)
    number = window.attempt or row.attempt
    count = await logs_sql.count_lines(session, caller, row.id, number)
    start, size = (max(0, count - window.tail), window.tail) if window.tail else (window.offset, window.limit)
    chunks = await logs_sql.list_chunks(session, caller, row.id, attempt=number, offset=start, limit=size)
    lines = answers.log_lines(chunks, start, size)
    next_offset = lines[-1].line + 1 if lines else min(start, count)
    is_over = is_attempt_over(TaskRunState(row.state), latest=row.attempt, number=number)
    return TaskLogs(attempt=number, lines=lines, next_offset=next_offset, is_complete=is_over and next_offset >= count)


async def _visible(session: ReadSession, caller: Principal, run_id: str) -> Any:
    row = await sql.find_run(session, caller, run_id)
    if row is None:
        raise PipelineRunNotFound(run_id)
    caller.require(PIPELINES_READ, row.pipeline)
    return row


async def _run(session: ReadSession, caller: Principal, run_id: str) -> PipelineRunDetail:
    row = await _visible(session, caller, run_id)
    return answers.run_detail(row, await sql.count_tasks(session, caller, run_id))


async def _runs(
    session: ReadSession, caller: Principal, page: PageOf, *, pipeline: str | None, state: PipelineRunState | None
) -> Page[PipelineRun]:
    rows = await sql.list_runs(
        session,
        caller,
        PIPELINES_READ,
        pipeline=pipeline,
        state=state,
        before=page.after[0] if page.after else None,
        limit=page.size + 1,
    )
    return page.answer(rows, answers.run_answer, lambda row: (row.id,))


async def _task(session: ReadSession, caller: Principal, run_id: str, task: str, *, item: int | None) -> Any:
    await _visible(session, caller, run_id)
    row = await sql.find_task_run(session, caller, run_id, task=task, item=item)
    if row is None:
        raise TaskRunNotFound(task if item is None else f"{task}[{item}]", run_id)
    return row

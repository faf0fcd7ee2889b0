"""Pipelines, versions, schedules."""

from typing import Annotated, Any

from fastapi import Path, Query, Response

from mlops_platform.contracts.common import NAME_PATTERN, Page
from mlops_platform.contracts.pipelines import (
    Pipeline,
    PipelineCreate,
    PipelineUpdate,
    PipelineVersion,
    PipelineVersionSummary,
    Schedule,
    ScheduleSpec,
    ScheduleUpdate,
)
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires, takes_large_bodies
from mlops_platform.core.identity import Principal
from mlops_platform.pipelines.endpoints import answers
from mlops_platform.pipelines.errors import (
    PipelineDeleted,
    PipelineInvalid,
    PipelineNotFound,
    PipelineVersionNotFound,
    ScheduleInvalid,
    ScheduleNotFound,
)
from mlops_platform.pipelines.repository import definitions as sql
from mlops_platform.pipelines.repository.permissions import PIPELINES_READ, PIPELINES_WRITE
from mlops_platform.pipelines.service.definitions import Definitions

PipelineName = Annotated[str, Path(pattern=NAME_PATTERN, max_length=128)]
VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]
_READ = requires(PIPELINES_READ, resource="name")
_WRITE = requires(PIPELINES_WRITE, resource="name")

router = platform_router(tags=["pipelines"])


@router.post(
    "/api/pipelines",
    status_code=201,
    dependencies=[requires(PIPELINES_WRITE), takes_large_bodies(times=4)],
    responses={
        **problems(PipelineInvalid, ScheduleInvalid, PipelineDeleted),
        200: {"model": PipelineVersion, "description": "This content is a version already."},
    },
)
async def post_pipeline(body: PipelineCreate, work: Work, response: Response) -> PipelineVersion:
    """Post a pipeline. New content is a new version, known content is the version that it was; either is current now.

    A `schedule` in the document sets the schedule of the pipeline; a document without one leaves it as it is.
    """
    posted = await Definitions(work).post(body)
    response.status_code = 201 if posted.is_new else 200
    response.headers["Location"] = f"/api/pipelines/{body.name}/versions/{posted.version}"
    return await _version(work.session, work.principal, body.name, posted.version)


@router.get("/api/pipelines", dependencies=[requires(PIPELINES_READ)])
async def list_pipelines(
    caller: Caller,
    session: Reading,
    page: PageOf,
    deleted: Annotated[bool, Query(description="Show deleted ones, too.")] = False,  # noqa: FBT002  # a query parameter
) -> Page[Pipeline]:
    """Pipelines by name."""
    rows = await sql.list_pipelines(
        session,
        caller,
        PIPELINES_READ,
        with_deleted=deleted,
        after=page.after[0] if page.after else None,
        limit=page.size + 1,
    )
    schedules = await sql.list_schedules(session, caller, [row.id for row in rows])
    return page.answer(rows, lambda row: answers.pipeline_answer(row, schedules.get(row.id)), lambda row: (row.name,))


@router.get("/api/pipelines/{name}", dependencies=[_READ], responses=problems(PipelineNotFound))
async def get_pipeline(name: PipelineName, caller: Caller, session: Reading) -> Pipeline:
    """One pipeline and its schedule."""
    return await _pipeline(session, caller, name)


@router.patch("/api/pipelines/{name}", dependencies=[_WRITE], responses=problems(PipelineNotFound))
async def update_pipeline(name: PipelineName, body: PipelineUpdate, work: Work) -> Pipeline:
    """Change the description. Tasks and parameters change by posting the pipeline again."""
    await Definitions(work).update(name, body)
    return await _pipeline(work.session, work.principal, name)


@router.delete("/api/pipelines/{name}", status_code=204, dependencies=[_WRITE], responses=problems(PipelineNotFound))
async def delete_pipeline(name: PipelineName, work: Work) -> None:
    """Delete a pipeline. It keeps its name and its runs, fires no more, and can be restored."""
    await Definitions(work).delete(name)


@router.post("/api/pipelines/{name}/restore", dependencies=[_WRITE], responses=problems(PipelineNotFound))
async def restore_pipeline(name: PipelineName, work: Work) -> Pipeline:
    """Restore a deleted pipeline."""
    await Definitions(work).restore(name)
    return await _pipeline(work.session, work.principal, name)


@router.get("/api/pipelines/{name}/versions", dependencies=[_READ], responses=problems(PipelineNotFound))
async def list_versions(name: PipelineName, caller: Caller, session: Reading, page: PageOf) -> Page[PipelineVersionSummary]:
    """Versions, newest first, without their content."""
    pipeline = await _row(session, caller, name)
    before = page.after[0] if page.after else None
    rows = await sql.list_versions(session, caller, pipeline.id, before=before, limit=page.size + 1)
    return page.answer(rows, answers.version_summary, lambda row: (row.version,))


@router.get(
    "/api/pipelines/{name}/versions/{version}",
    dependencies=[_READ],
    responses=problems(PipelineNotFound, PipelineVersionNotFound),
)
async def get_version(name: PipelineName, version: VersionNumber, caller: Caller, session: Reading) -> PipelineVersion:
    """One version with its parameters and tasks."""
    return await _version(session, caller, name, version)


@router.get("/api/pipelines/{name}/schedule", dependencies=[_READ], responses=problems(PipelineNotFound, ScheduleNotFound))
async def get_schedule(name: PipelineName, caller: Caller, session: Reading) -> Schedule:
    """The schedule and when it fires next."""
    return await _schedule(session, caller, name)


@router.put("/api/pipelines/{name}/schedule", dependencies=[_WRITE], responses=problems(PipelineNotFound, ScheduleInvalid))
async def put_schedule(name: PipelineName, body: ScheduleSpec, work: Work) -> Schedule:
    """Set the schedule. Its runs are made in the name of the caller."""
    await Definitions(work).put_schedule(name, body)
    return await _schedule(work.session, work.principal, name)


@router.patch(
    "/api/pipelines/{name}/schedule", dependencies=[_WRITE], responses=problems(PipelineNotFound, ScheduleNotFound)
)
async def update_schedule(name: PipelineName, body: ScheduleUpdate, work: Work) -> Schedule:
    """Pause or resume. Instants that pass while it is paused are not caught up."""
    await Definitions(work).set_paused(name, is_paused=body.is_paused)
    return await _schedule(work.session, work.principal, name)


@router.delete(
    "/api/pipelines/{name}/schedule",
    status_code=204,
    dependencies=[_WRITE],
    responses=problems(PipelineNotFound, ScheduleNotFound),
)
async def delete_schedule(name: PipelineName, work: Work) -> None:
    """Remove the schedule."""
    await Definitions(work).delete_schedule(name)


async def _row(session: ReadSession, caller: Principal, name: str) -> Any:
    row = await sql.find_pipeline(session, caller, name)
    if row is None:
        raise PipelineNotFound(name)
    return row


async def _pipeline(session: ReadSession, caller: Principal, name: str) -> Pipeline:
    row = await _row(session, caller, name)
    return answers.pipeline_answer(row, await sql.find_schedule(session, caller, row.id))


async def _schedule(session: ReadSession, caller: Principal, name: str) -> Schedule:
    pipeline = await _row(session, caller, name)
    row = await sql.find_schedule(session, caller, pipeline.id)
    if row is None:
        raise ScheduleNotFound(name)
    return answers.schedule_answer(row)


async def _version(session: ReadSession, caller: Principal, name: str, version: int) -> PipelineVersion:
    pipeline = await _row(session, caller, name)
    row = await sql.find_version(session, caller, pipeline.id, version=version)
    if row is None:
        raise PipelineVersionNotFound(name, version)
    return answers.version_answer(row, name, await sql.list_task_specs(session, caller, row.id))

"""Leave a project as new: for test suites and demonstrations, never where work is done."""

from typing import Annotated

from fastapi import Path, Request
from sqlalchemy import delete

from mlops_platform.contracts.common import ID_PATTERN
from mlops_platform.contracts.platform import ProjectReset
from mlops_platform.core.auth.visibility import in_project
from mlops_platform.core.errors import Conflict, NotFound
from mlops_platform.core.events.tables import webhook_deliveries, webhooks
from mlops_platform.core.http.dependencies import RuntimeOf, Work
from mlops_platform.core.http.platform import permissions
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.settings import Mode

router = platform_router(tags=["platform"])


class ResetRefused(Conflict):
    """Only a platform in development mode forgets a project."""

    code = "reset_refused"
    title = "Not in production"


class ProjectNotFound(NotFound):
    """Not the project of this request."""

    code = "project_not_found"


@router.post(
    "/api/platform/projects/{project_id}/reset",
    dependencies=[requires(permissions.PROJECTS_ADMIN, everywhere=True)],
    responses=problems(ResetRefused, ProjectNotFound),
)
async def reset_project(
    project_id: Annotated[str, Path(pattern=ID_PATTERN)], request: Request, work: Work, runtime: RuntimeOf
) -> ProjectReset:
    """Empty the project of this request of what the service at this port holds, and of its webhooks.

    In development mode only. Keys, roles and the audit stay; each service empties its own at its own port.
    """
    if runtime.settings.mode is not Mode.DEVELOPMENT:
        raise ResetRefused("This platform runs in production mode, where no project is reset.")
    if project_id != work.principal.project:
        raise ProjectNotFound(
            f"The request is made in the project {work.principal.project!r}, not in {project_id!r}.",
            hint="Name the project with the header X-MLOps-Project.",
        )
    removed: dict[str, int] = {}
    for table in (webhook_deliveries, webhooks):
        gone = await work.session.execute(delete(table).where(in_project(work.principal, table)))
        removed[table.name] = gone.rowcount
    if request.app.state.reset is not None:
        removed |= await request.app.state.reset(work, runtime)
    await work.audit("project.reset", f"project:{project_id}", detail={"removed": removed})
    return ProjectReset(id=project_id, removed={name: count for name, count in removed.items() if count})

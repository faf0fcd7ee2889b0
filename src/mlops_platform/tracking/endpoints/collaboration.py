"""HTTP of comments and saved views."""

from typing import Annotated

from fastapi import Path, Response

from mlops_platform.contracts.common import ID_PATTERN, Page
from mlops_platform.contracts.tracking_experiments import Comment, CommentWrite, SavedView, ViewCreate, ViewUpdate
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.query.errors import QueryError
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.endpoints.places import Place, on_run
from mlops_platform.tracking.errors import (
    CommentNotFound,
    ExperimentDeleted,
    ExperimentNotFound,
    RunDeleted,
    RunNotFound,
    ViewNameTaken,
    ViewNotFound,
)
from mlops_platform.tracking.repository.collaboration import CommentReader, ViewReader
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.service.collaboration import Comments, SavedViews, view_not_found
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE

router = platform_router(tags=["collaboration"])

CommentId = Annotated[str, Path(pattern=ID_PATTERN, description="The comment's id.")]
ViewId = Annotated[str, Path(pattern=ID_PATTERN, description="The view's id.")]
_read = requires(EXPERIMENTS_READ)
_write = requires(EXPERIMENTS_WRITE)


@on_run(router, "GET", "/comments", permission=EXPERIMENTS_READ)
async def list_comments(place: Place, caller: Caller, session: Reading, page: PageOf) -> Page[Comment]:
    """The comments on a run, the oldest first."""
    if await RunReader(session, caller).run(place.run_id, experiment_id=place.experiment_id) is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)
    reader = CommentReader(session, caller, place.run_id)
    rows = await reader.comments(after=page.after[0] if page.after else None, limit=page.size + 1)
    return page.answer(rows, _comment, lambda row: (row.id,))


@on_run(router, "POST", "/comments", permission=EXPERIMENTS_WRITE, errors=(RunDeleted,), status_code=201)
async def add_comment(place: Place, body: CommentWrite, work: Work) -> Comment:
    """Comment on a run, in Markdown. Each `@name` is an event `run.mentioned`."""
    return _comment(await Comments(work, place.run_id, experiment_id=place.experiment_id).add(body.text))


@on_run(router, "PATCH", "/comments/{comment_id}", permission=EXPERIMENTS_WRITE, errors=(RunDeleted, CommentNotFound))
async def edit_comment(place: Place, comment_id: CommentId, body: CommentWrite, work: Work) -> Comment:
    """Change a comment of one's own."""
    return _comment(await Comments(work, place.run_id, experiment_id=place.experiment_id).edit(comment_id, body.text))


@on_run(
    router,
    "DELETE",
    "/comments/{comment_id}",
    permission=EXPERIMENTS_WRITE,
    errors=(RunDeleted, CommentNotFound),
    status_code=204,
)
async def delete_comment(place: Place, comment_id: CommentId, work: Work) -> None:
    """Delete a comment: its author may, and an admin."""
    await Comments(work, place.run_id, experiment_id=place.experiment_id).remove(comment_id)


@router.get("/api/experiments/{experiment_id}/views", dependencies=[_read], responses=problems(ExperimentNotFound))
async def list_views(experiment_id: ExperimentId, caller: Caller, session: Reading, page: PageOf) -> Page[SavedView]:
    """The saved views of an experiment, by name."""
    if await ExperimentReader(session, caller).experiment(experiment_id) is None:
        raise ExperimentNotFound.of(experiment_id)
    rows = await ViewReader(session, caller).views(experiment_id, after=page.after, limit=page.size + 1)
    return page.answer(rows, _view, lambda row: (row.name, row.id))


@router.post(
    "/api/experiments/{experiment_id}/views",
    status_code=201,
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentDeleted, ViewNameTaken, QueryError),
)
async def create_view(experiment_id: ExperimentId, body: ViewCreate, work: Work, response: Response) -> SavedView:
    """Save a view on the runs of an experiment. Whoever may read the experiment may open it by its id."""
    row = await SavedViews(work).create(experiment_id, body)
    response.headers["Location"] = f"/api/views/{row.id}"
    return _view(row)


@router.get("/api/views/{view_id}", dependencies=[_read], responses=problems(ViewNotFound))
async def get_view(view_id: ViewId, caller: Caller, session: Reading) -> SavedView:
    """One saved view: what a link to it opens."""
    row = await ViewReader(session, caller).view(view_id)
    if row is None:
        raise view_not_found(view_id)
    return _view(row)


@router.patch(
    "/api/views/{view_id}",
    dependencies=[_write],
    responses=problems(ViewNotFound, ExperimentDeleted, ViewNameTaken, QueryError),
)
async def update_view(view_id: ViewId, body: ViewUpdate, work: Work) -> SavedView:
    """Change a saved view; its id, and so every link to it, stays."""
    return _view(await SavedViews(work).update(view_id, body))


@router.delete(
    "/api/views/{view_id}",
    status_code=204,
    dependencies=[_write],
    responses=problems(ViewNotFound, ExperimentDeleted),
)
async def delete_view(view_id: ViewId, work: Work) -> None:
    """Delete a saved view."""
    await SavedViews(work).remove(view_id)


def _comment(row: Record) -> Comment:
    return Comment(
        id=row.id,
        run_id=row.run_id,
        author=row.author,
        text=row.text,
        mentions=row.mentions,
        created_at=row.created_at,
        edited_at=row.edited_at,
    )


def _view(row: Record) -> SavedView:
    return SavedView(
        id=row.id,
        experiment_id=row.experiment_id,
        name=row.name,
        filter=row.filter,
        order_by=row.order_by,
        columns=row.columns,
        charts=row.charts,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

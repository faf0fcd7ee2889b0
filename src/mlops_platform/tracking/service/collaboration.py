"""Use cases of people who work together: comments with mentions, saved views, and the pinned baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_platform.contracts.tracking_experiments import ViewCreate, ViewUpdate
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import PermissionDenied
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain.mentions import mentions
from mlops_platform.tracking.domain.search import read_question, read_selection
from mlops_platform.tracking.errors import (
    CommentNotFound,
    ExperimentDeleted,
    ExperimentNotFound,
    ViewNameTaken,
    ViewNotFound,
)
from mlops_platform.tracking.repository.collaboration import CommentRepository, ViewRepository
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.holding import hold_run, record_run
from mlops_platform.tracking.service.removal import EXPERIMENTS_ADMIN


class Comments:
    """The use cases on the comments of one run."""

    def __init__(self, work: UnitOfWork, run_id: str, *, experiment_id: str | None = None) -> None:
        self._work = work
        self._run_id = run_id
        self._experiment_id = experiment_id
        self._comments = CommentRepository(work.session, work.principal, run_id)

    async def add(self, text: str) -> Record:
        """Comment on a run."""
        run = await self._held()
        comment_id, named = new_id(), mentions(text)
        values = {
            "id": comment_id,
            "author_id": self._work.principal.id,
            "author": self._author(),
            "text": text,
            "mentions": named,
            "created_at": self._work.clock.now(),
        }
        await self._comments.add(values)
        await self._record("run.commented", run, comment_id, {"mentions": named}, after={"text": text})
        await self._tell(run, comment_id, named)
        return await self._found(comment_id)

    async def edit(self, comment_id: str, text: str) -> Record:
        """Change a comment of one's own. Who was not mentioned before is told."""
        run = await self._held()
        old = await self._found(comment_id)
        self._refuse_others(old, "edits")
        named = mentions(text)
        values = {"text": text, "mentions": named, "edited_at": self._work.clock.now()}
        await self._comments.change(comment_id, values)
        facts = {"mentions": named}
        await self._record("run.comment_edited", run, comment_id, facts, before={"text": old.text}, after={"text": text})
        await self._tell(run, comment_id, [name for name in named if name not in old.mentions])
        return await self._found(comment_id)

    async def remove(self, comment_id: str) -> None:
        """Delete a comment: its author may, and an admin."""
        run = await self._held()
        old = await self._found(comment_id)
        if not self._work.principal.may(EXPERIMENTS_ADMIN, run.experiment_name):
            self._refuse_others(old, "deletes")
        await self._comments.remove(comment_id)
        await self._record("run.comment_deleted", run, comment_id, {}, before={"text": old.text})

    async def _held(self) -> Record:
        return await hold_run(self._work, self._run_id, experiment_id=self._experiment_id)

    async def _found(self, comment_id: str) -> Record:
        row = await self._comments.comment(comment_id)
        if row is None:
            raise CommentNotFound(
                f"The run {self._run_id!r} has no comment {comment_id!r}.",
                hint=f"GET /api/runs/{self._run_id}/comments lists them.",
            )
        return row

    def _author(self) -> str:
        return self._work.principal.on_behalf_of or self._work.principal.name

    def _refuse_others(self, comment: Record, verb: str) -> None:
        # Both: a service that acts for several people is one principal.
        if (comment.author_id, comment.author) != (self._work.principal.id, self._author()):
            raise PermissionDenied(f"The comment is {comment.author!r}'s, and only its author {verb} it.")

    async def _tell(self, run: Record, comment_id: str, names: Sequence[str]) -> None:
        """One event for each who is mentioned, so that a webhook can pass it on."""
        subject = self._work.urn("run", self._run_id)
        facts = {"run_id": self._run_id, "experiment_id": run.experiment_id, "comment_id": comment_id}
        told = [(subject, {**facts, "mentioned": name, "by": self._author()}) for name in names]
        await self._work.emit_each("run.mentioned", told)

    async def _record(
        self, action: str, run: Record, comment_id: str, facts: Mapping[str, Any], **states: Mapping[str, Any]
    ) -> None:
        told = {"experiment_id": run.experiment_id, "comment_id": comment_id, "author": self._author(), **facts}
        await record_run(self._work, action, self._run_id, told, detail={"comment_id": comment_id}, **states)


class SavedViews:
    """The use cases on saved views."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._views = ViewRepository(work.session, work.principal)

    async def create(self, experiment_id: str, new: ViewCreate) -> Record:
        """Save a view. What it says must be readable today; a view that nobody can open helps nobody."""
        await self._live_experiment(experiment_id)
        _check(new.filter, new.order_by, new.columns)
        view_id, now = new_id(), self._work.clock.now()
        values = new.model_dump(mode="json") | {
            "id": view_id,
            "experiment_id": experiment_id,
            "created_by": self._work.principal.on_behalf_of or self._work.principal.name,
            "created_at": now,
            "updated_at": now,
        }
        if not await self._views.add(values):
            raise _name_taken(new.name)
        await self._record("view.created", view_id, experiment_id, after=new.model_dump(mode="json"))
        return await self._found(view_id)

    async def update(self, view_id: str, change: ViewUpdate) -> Record:
        """Change a view."""
        row = await self._held(view_id)
        values = change.model_dump(mode="json", exclude_none=True)
        _check(values.get("filter", ""), values.get("order_by", []), values.get("columns", []))
        before = {key: getattr(row, key) for key in values}
        if not await self._views.change(view_id, {**values, "updated_at": self._work.clock.now()}):
            raise _name_taken(values["name"])
        await self._record("view.updated", view_id, row.experiment_id, before=before, after=values)
        return await self._found(view_id)

    async def remove(self, view_id: str) -> None:
        """Delete a view."""
        row = await self._held(view_id)
        await self._views.remove(view_id)
        await self._record("view.deleted", view_id, row.experiment_id, before={"name": row.name})

    async def _live_experiment(self, experiment_id: str) -> None:
        row = await ExperimentRepository(self._work.session, self._work.principal).experiment(experiment_id)
        if row is None:
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.name)
        if row.deleted_at is not None:
            raise ExperimentDeleted.of(experiment_id)

    async def _held(self, view_id: str) -> Record:
        row = await self._views.hold(view_id)
        if row is None:
            raise view_not_found(view_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
        if row.experiment_deleted_at is not None:
            raise ExperimentDeleted.of(row.experiment_id)
        return row

    async def _found(self, view_id: str) -> Record:
        row = await self._views.view(view_id)
        if row is None:
            raise view_not_found(view_id)
        return row

    async def _record(self, action: str, view_id: str, experiment_id: str, **states: Mapping[str, Any]) -> None:
        resource = self._work.urn("view", view_id)
        await self._work.audit(action, resource, **states)
        await self._work.emit(action, resource, {"view_id": view_id, "experiment_id": experiment_id})


async def set_baseline(work: UnitOfWork, experiment_id: str, run_id: str | None) -> Record:
    """Pin the run that others of the experiment are compared with; None unpins it."""
    experiments = ExperimentRepository(work.session, work.principal)
    if run_id is not None:
        # The run is held before its experiment, as everywhere.
        await hold_run(work, run_id, experiment_id=experiment_id)
    row = await experiments.hold(experiment_id)
    if row is None:
        raise ExperimentNotFound.of(experiment_id)
    work.principal.require(EXPERIMENTS_WRITE, row.name)
    if row.deleted_at is not None:
        raise ExperimentDeleted.of(experiment_id)
    before, after = {"baseline_run_id": row.baseline_run_id}, {"baseline_run_id": run_id}
    if before != after:
        await experiments.change(experiment_id, {**after, "updated_at": work.clock.now()})
        resource = work.urn("experiment", experiment_id)
        await work.audit("experiment.updated", resource, before=before, after=after)
        facts = {"experiment_id": experiment_id, "before": before, "after": after}
        await work.emit("experiment.updated", resource, facts)
    found = await experiments.experiment(experiment_id)
    if found is None:
        raise ExperimentNotFound.of(experiment_id)
    return found


def view_not_found(view_id: str) -> ViewNotFound:
    """The one sentence for it."""
    return ViewNotFound(
        f"No saved view has the id {view_id!r}.", hint="GET /api/experiments/{experiment_id}/views lists them."
    )


def _check(filter_text: str, order_by: Sequence[str], columns: Sequence[str]) -> None:
    read_question(filter_text, order_by)
    read_selection(columns)


def _name_taken(name: str) -> ViewNameTaken:
    return ViewNameTaken(f"The experiment has a view named {name!r}.", hint="Change that one, or choose another name.")

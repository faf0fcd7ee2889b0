"""Statements on comments and saved views."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, delete, insert, update
from sqlalchemy.exc import IntegrityError

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession, violated_constraint
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.repository.experiments import readable
from mlops_platform.tracking.repository.keyset import beyond
from mlops_platform.tracking.tables import experiments, run_comments, saved_views

VIEW_NAME = "saved_views_experiment_id_name_key"


class CommentReader:
    """Reads of the comments on one run."""

    def __init__(self, session: ReadSession, principal: Principal, run_id: str) -> None:
        self._session = session
        self._principal = principal
        self._run_id = run_id

    async def comments(self, *, after: str | None, limit: int) -> Sequence[Record]:
        """In the order of their writing."""
        statement = self._mine()
        if after is not None:
            statement = statement.where(run_comments.c.id > after)
        return await self._session.all(statement.order_by(run_comments.c.id).limit(limit))

    async def comment(self, comment_id: str) -> Record | None:
        """One of them."""
        return await self._session.first(self._mine().where(run_comments.c.id == comment_id))

    def _mine(self) -> Select[Any]:
        return visible_to(self._principal, run_comments).where(run_comments.c.run_id == self._run_id)


class CommentRepository(CommentReader):
    """Writes; the caller holds the run."""

    def __init__(self, session: WriteSession, principal: Principal, run_id: str) -> None:
        super().__init__(session, principal, run_id)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> None:
        """Insert."""
        row = {**values, "project_id": self._principal.project, "run_id": self._run_id}
        await self._session.execute(insert(run_comments).values(row))

    async def change(self, comment_id: str, values: Mapping[str, Any]) -> None:
        """Change columns."""
        mine = in_project(self._principal, run_comments)
        await self._session.execute(update(run_comments).where(mine, run_comments.c.id == comment_id).values(values))

    async def remove(self, comment_id: str) -> None:
        """Delete."""
        mine = in_project(self._principal, run_comments)
        await self._session.execute(delete(run_comments).where(mine, run_comments.c.id == comment_id))


class ViewReader:
    """Reads of saved views, of those experiments that the caller may read."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def view(self, view_id: str) -> Record | None:
        """One view, with its experiment's name and whether that is deleted."""
        return await self._session.first(self._named().where(saved_views.c.id == view_id))

    async def views(self, experiment_id: str, *, after: tuple[Any, ...] | None, limit: int) -> Sequence[Record]:
        """Those of an experiment, by name."""
        place = (saved_views.c.name, saved_views.c.id)
        statement = self._named().where(saved_views.c.experiment_id == experiment_id)
        if after is not None:
            statement = statement.where(beyond(place, after))
        return await self._session.all(statement.order_by(*place).limit(limit))

    def _named(self) -> Select[Any]:
        return (
            visible_to(self._principal, saved_views)
            .join(experiments, experiments.c.id == saved_views.c.experiment_id)
            .add_columns(
                experiments.c.name.label("experiment_name"), experiments.c.deleted_at.label("experiment_deleted_at")
            )
            .where(readable(self._principal))
        )


class ViewRepository(ViewReader):
    """Writes."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def hold(self, view_id: str) -> Record | None:
        """The view, held until the commit."""
        statement = self._named().where(saved_views.c.id == view_id)
        return await self._session.first(statement.with_for_update(of=saved_views))

    async def add(self, values: Mapping[str, Any]) -> bool:
        """Insert; False when a view of the experiment has the name."""
        return await self._keeping_names_unique(
            insert(saved_views).values({**values, "project_id": self._principal.project})
        )

    async def change(self, view_id: str, values: Mapping[str, Any]) -> bool:
        """Change columns; False when another view of the experiment has the name."""
        mine = in_project(self._principal, saved_views)
        return await self._keeping_names_unique(update(saved_views).where(mine, saved_views.c.id == view_id).values(values))

    async def remove(self, view_id: str) -> None:
        """Delete."""
        mine = in_project(self._principal, saved_views)
        await self._session.execute(delete(saved_views).where(mine, saved_views.c.id == view_id))

    async def _keeping_names_unique(self, statement: Any) -> bool:
        try:
            async with self._session.savepoint():
                await self._session.execute(statement)
        except IntegrityError as error:
            if violated_constraint(error) == VIEW_NAME:
                return False
            raise
        return True

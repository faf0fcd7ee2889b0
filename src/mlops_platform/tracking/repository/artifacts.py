"""Statements on the artifacts of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.artifacts import folders_of
from mlops_platform.tracking.tables import run_artifacts


def holder(run_id: str, path: str) -> str:
    """The name by which an artifact holds its blob."""
    return f"run/{run_id}/{path}"


class ArtifactReader:
    """Reads of one run's artifacts."""

    def __init__(self, session: ReadSession, principal: Principal, run_id: str) -> None:
        self._session = session
        self._principal = principal
        self._run_id = run_id

    async def artifact(self, path: str) -> Record | None:
        """The file at a path."""
        mine = visible_to(self._principal, run_artifacts)
        return await self._session.first(mine.where(run_artifacts.c.run_id == self._run_id, run_artifacts.c.path == path))

    async def children(self, folder: str, *, after: str | None, limit: int) -> Sequence[Record]:
        """What lies directly in a folder: files, and folders with what is below them, by name."""
        prefix = f"{folder}/" if folder else ""
        rest = func.substr(run_artifacts.c.path, len(prefix) + 1)
        name = func.split_part(rest, "/", 1).label("name")
        statement = (
            select(
                name,
                func.bool_or(rest.contains("/")).label("is_folder"),
                func.sum(run_artifacts.c.size).label("size"),
                func.count().label("files"),
                func.min(run_artifacts.c.sha256).label("sha256"),
                func.min(run_artifacts.c.content_type).label("content_type"),
                func.max(run_artifacts.c.created_at).label("created_at"),
            )
            .where(in_project(self._principal, run_artifacts), run_artifacts.c.run_id == self._run_id)
            .where(run_artifacts.c.path.startswith(prefix, autoescape=True))
            .group_by(name)
            .order_by(name)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(name > after)
        return await self._session.all(statement)


class ArtifactRepository(ArtifactReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal, run_id: str) -> None:
        super().__init__(session, principal, run_id)
        self._session: WriteSession = session

    async def in_the_way(self, path: str) -> str | None:
        """A file where this path needs a folder, or a folder where it would be a file."""
        statement = visible_to(self._principal, run_artifacts).where(
            run_artifacts.c.run_id == self._run_id,
            or_(run_artifacts.c.path.in_(folders_of(path)), run_artifacts.c.path.startswith(f"{path}/", autoescape=True)),
        )
        found = await self._session.first(statement.limit(1))
        return str(found.path) if found else None

    async def put(self, values: Mapping[str, Any]) -> None:
        """Add a file, or replace the one at its path."""
        statement = upsert(run_artifacts).values({**values, "project_id": self._principal.project, "run_id": self._run_id})
        await self._session.execute(statement.on_conflict_do_update(index_elements=["run_id", "path"], set_=dict(values)))

    async def remove(self, path: str) -> list[str]:
        """Remove a file, or a folder with all below it; the paths of the files that went."""
        mine = and_(in_project(self._principal, run_artifacts), run_artifacts.c.run_id == self._run_id)
        there: ColumnElement[bool] = or_(
            run_artifacts.c.path == path, run_artifacts.c.path.startswith(f"{path}/", autoescape=True)
        )
        gone = await self._session.all(delete(run_artifacts).where(mine, there).returning(run_artifacts.c.path))
        return sorted(row.path for row in gone)

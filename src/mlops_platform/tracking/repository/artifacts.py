"""Statements on the artifacts of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.artifacts import folders_of
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, readable
from mlops_platform.tracking.tables import experiments, logged_model_artifacts, logged_models, run_artifacts, runs

_AFTER_SLASH = chr(ord("/") + 1)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Whose artifacts: a table, the column that names their owner, and the first word of what holds their blobs."""

    table: Table
    owner: str
    word: str

    def holder(self, owner_id: str, path: str) -> str:
        """The name by which an artifact holds its blob."""
        return f"{self.word}/{owner_id}/{path}"


RUNS = Shelf(run_artifacts, "run_id", "run")
MODELS = Shelf(logged_model_artifacts, "model_id", "logged-model")


def holder(run_id: str, path: str) -> str:
    """The name by which an artifact of a run holds its blob."""
    return RUNS.holder(run_id, path)


async def readable_holder(session: ReadSession, principal: Principal, sha256: str, size: int) -> str | None:
    """What holds this content where the principal may read it: an artifact of a run or of a logged model."""
    if not principal.may(EXPERIMENTS_READ):
        return None
    for shelf, owners in ((RUNS, runs), (MODELS, logged_models)):
        table = shelf.table
        statement = (
            select(table.c[shelf.owner].label("owner"), table.c.path)
            .join(owners, owners.c.id == table.c[shelf.owner])
            .join(experiments, experiments.c.id == owners.c.experiment_id)
            .where(in_project(principal, table, owners, experiments), readable(principal))
            .where(table.c.sha256 == sha256, table.c.size == size)
        )
        if (found := await session.first(statement.limit(1))) is not None:
            return shelf.holder(found.owner, found.path)
    return None


class ArtifactReader:
    """Reads of one run's artifacts, or of a logged model's."""

    def __init__(self, session: ReadSession, principal: Principal, run_id: str, *, shelf: Shelf = RUNS) -> None:
        self._session = session
        self._principal = principal
        self._id = run_id
        self._shelf = shelf
        self._table = shelf.table
        self._mine = and_(in_project(principal, shelf.table), shelf.table.c[shelf.owner] == run_id)

    async def artifact(self, path: str) -> Record | None:
        """The file at a path."""
        mine = visible_to(self._principal, self._table)
        return await self._session.first(mine.where(self._mine, self._table.c.path == path))

    async def children(self, folder: str, *, after: str | None, limit: int) -> Sequence[Record]:
        """What lies directly in a folder: files, and folders with what is below them, by name."""
        prefix = f"{folder}/" if folder else ""
        table = self._table
        rest = func.substr(table.c.path, len(prefix) + 1)
        name = func.split_part(rest, "/", 1).label("name")
        statement = (
            select(
                name,
                func.bool_or(rest.contains("/")).label("is_folder"),
                func.sum(table.c.size).label("size"),
                func.count().label("files"),
                func.min(table.c.sha256).label("sha256"),
                func.min(table.c.content_type).label("content_type"),
                func.max(table.c.created_at).label("created_at"),
            )
            .where(in_project(self._principal, table), self._mine)
            # Bounds and not a pattern, which a prepared statement cannot look up: paths are ordered byte by byte.
            .where(table.c.path > prefix + (after or ""))
            .group_by(name)
            .order_by(name)
            .limit(limit)
        )
        if folder:
            statement = statement.where(table.c.path < f"{folder}{_AFTER_SLASH}")
        if after is not None:
            statement = statement.where(name > after)
        return await self._session.all(statement)


class ArtifactRepository(ArtifactReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal, run_id: str, *, shelf: Shelf = RUNS) -> None:
        super().__init__(session, principal, run_id, shelf=shelf)
        self._session: WriteSession = session

    async def in_the_way(self, path: str) -> str | None:
        """A file where this path needs a folder, or a folder where it would be a file."""
        statement = visible_to(self._principal, self._table).where(
            self._mine,
            or_(self._table.c.path.in_(folders_of(path)), self._table.c.path.startswith(f"{path}/", autoescape=True)),
        )
        found = await self._session.first(statement.limit(1))
        return str(found.path) if found else None

    async def put(self, values: Mapping[str, Any]) -> None:
        """Add a file, or replace the one at its path."""
        owner = self._shelf.owner
        statement = upsert(self._table).values({**values, "project_id": self._principal.project, owner: self._id})
        await self._session.execute(statement.on_conflict_do_update(index_elements=[owner, "path"], set_=dict(values)))

    async def remove(self, path: str) -> list[str]:
        """Remove a file, or a folder with all below it; the paths of the files that went."""
        table = self._table
        there: ColumnElement[bool] = or_(table.c.path == path, table.c.path.startswith(f"{path}/", autoescape=True))
        mine = in_project(self._principal, table)
        gone = await self._session.all(delete(table).where(mine, self._mine, there).returning(table.c.path))
        return sorted(row.path for row in gone)

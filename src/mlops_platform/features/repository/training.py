"""Training sets: what was made, from what, and where the file is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, column, exists, func, insert, not_, true
from sqlalchemy.dialects.postgresql import JSONB

from mlops_platform.core.auth.visibility import names_allowed, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.features.repository.sets import FEATURES_READ
from mlops_platform.features.tables import training_sets


def readable(principal: Principal) -> ColumnElement[bool]:
    """The condition on `training_sets`: the principal may read every feature set that it was made from, by its name."""
    source = func.jsonb_array_elements(training_sets.c.sources).table_valued(column("value", JSONB), name="source")
    allowed = names_allowed(principal, FEATURES_READ, source.c.value["feature_set"].astext)
    return true() if allowed is None else not_(exists().select_from(source).where(not_(allowed)))


class TrainingSetReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def training_set(self, training_set_id: str) -> Row[Any] | None:
        """One training set."""
        return await self._session.first(
            visible_to(self._principal, training_sets).where(
                training_sets.c.id == training_set_id, readable(self._principal)
            )
        )

    async def training_sets(self, *, name: str | None, before: str | None, limit: int) -> Sequence[Row[Any]]:
        """Training sets, newest first (ids are sorted by time)."""
        statement = visible_to(self._principal, training_sets).where(readable(self._principal))
        if name is not None:
            statement = statement.where(training_sets.c.name == name)
        if before is not None:
            statement = statement.where(training_sets.c.id < before)
        return await self._session.all(statement.order_by(training_sets.c.id.desc()).limit(limit))


class TrainingSetRepository(TrainingSetReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> Row[Any]:
        """Keep a training set."""
        added = await self._session.execute(
            insert(training_sets).values({**values, "project_id": self._principal.project}).returning(training_sets)
        )
        return added.one()

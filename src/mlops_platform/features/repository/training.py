"""Training sets: what was made, from what, and where the file is."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, insert

from mlops_platform.core.auth.visibility import visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.features.tables import training_sets


class TrainingSetReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def training_set(self, training_set_id: str) -> Row[Any] | None:
        """One training set."""
        return await self._session.first(
            visible_to(self._principal, training_sets).where(training_sets.c.id == training_set_id)
        )

    async def training_sets(self, *, name: str | None, before: str | None, limit: int) -> Sequence[Row[Any]]:
        """Training sets, newest first (ids are sorted by time)."""
        statement = visible_to(self._principal, training_sets)
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

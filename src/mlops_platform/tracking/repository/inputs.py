"""Statements on what runs read and made: datasets, and logged models."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.tables import datasets, run_inputs, run_models


class InputReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def of_runs(self, run_ids: Collection[str]) -> Sequence[Record]:
        """The datasets that these runs read, each with the run and how it was used, in the order they were logged."""
        statement = (
            select(run_inputs.c.run_id, run_inputs.c.context, run_inputs.c.tags, run_inputs.c.created_at, *_DATASET)
            .join(datasets, datasets.c.id == run_inputs.c.dataset_id)
            .where(in_project(self._principal, run_inputs, datasets), run_inputs.c.run_id.in_(run_ids))
            .order_by(run_inputs.c.run_id, run_inputs.c.created_at, datasets.c.id)
        )
        return await self._session.all(statement) if run_ids else ()

    async def models_of_runs(self, run_ids: Collection[str]) -> Sequence[Record]:
        """The logged models that these runs read and made."""
        statement = visible_to(self._principal, run_models).where(run_models.c.run_id.in_(run_ids))
        order = (run_models.c.run_id, run_models.c.step, run_models.c.model_id)
        return await self._session.all(statement.order_by(*order)) if run_ids else ()

    async def summaries(self, experiment_ids: Sequence[str], *, limit: int) -> Sequence[Record]:
        """The distinct datasets of experiments, with how they were used there."""
        statement = (
            select(run_inputs.c.experiment_id, datasets.c.name, datasets.c.digest, run_inputs.c.context)
            .distinct()
            .join(datasets, datasets.c.id == run_inputs.c.dataset_id)
            .where(in_project(self._principal, run_inputs, datasets), run_inputs.c.experiment_id.in_(experiment_ids))
            .order_by(run_inputs.c.experiment_id, datasets.c.name, datasets.c.digest, run_inputs.c.context)
        )
        return await self._session.all(statement.limit(limit))


class InputRepository(InputReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def ensure(self, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
        """The ids of datasets by name and digest; those that the project does not know are added."""
        given = [{**row, "project_id": self._principal.project} for row in rows]
        given.sort(key=lambda row: (row["name"], row["digest"]))  # one order, so that writers do not deadlock
        await self._session.execute(upsert(datasets).values(given).on_conflict_do_nothing())
        wanted = [(row["name"], row["digest"]) for row in rows]
        statement = visible_to(self._principal, datasets).with_only_columns(
            datasets.c.id, datasets.c.name, datasets.c.digest
        )
        found = await self._session.all(statement.where(tuple_(datasets.c.name, datasets.c.digest).in_(wanted)))
        return {(row.name, row.digest): row.id for row in found}

    async def add(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Say that runs read datasets; how many of these were not known."""
        given = [{**row, "project_id": self._principal.project} for row in rows]
        added = await self._session.execute(upsert(run_inputs).values(given).on_conflict_do_nothing())
        return added.rowcount

    async def add_models(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Say that runs read or made logged models; how many of these were not known."""
        given = [{**row, "project_id": self._principal.project} for row in rows]
        added = await self._session.execute(upsert(run_models).values(given).on_conflict_do_nothing())
        return added.rowcount


_DATASET = (
    datasets.c.id,
    datasets.c.name,
    datasets.c.digest,
    datasets.c.source_type,
    datasets.c.source,
    datasets.c.schema,
    datasets.c.profile,
)

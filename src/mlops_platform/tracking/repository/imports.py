"""Statements that bring runs and logged models in as they were, and remember by what they are known again."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.repository.archives import ArchiveReader
from mlops_platform.tracking.repository.artifacts import Shelf
from mlops_platform.tracking.repository.removal import PURGED
from mlops_platform.tracking.repository.transfer import spellings
from mlops_platform.tracking.tables import (
    experiments,
    imports,
    logged_model_metrics,
    logged_models,
    metric_goals,
    metric_points,
    run_chores,
    run_comments,
    run_inputs,
    run_metrics,
    run_models,
    run_params,
    run_tags,
    saved_views,
)

_POINTS_AT_ONCE = 20_000
TABLES = {
    "params": run_params,
    "tags": run_tags,
    "inputs": run_inputs,
    "ties": run_models,
    "comments": run_comments,
    "goals": metric_goals,
    "views": saved_views,
    "model_metrics": logged_model_metrics,
}


class ImportRepository(ArchiveReader):
    """Writes within one project."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add_experiment(self, values: Mapping[str, Any]) -> bool:
        """Insert; False when its id, name or number is taken, also by one that was being made at this moment."""
        statement = upsert(experiments).values({**values, "project_id": self._principal.project})
        added = statement.on_conflict_do_nothing().returning(experiments.c.id)
        return bool(await self._session.all(added))

    async def has_number(self, number: int) -> bool:
        """Whether an experiment of the project has the number."""
        mine = visible_to(self._principal, experiments).where(experiments.c.number == number)
        return await self._session.first(mine) is not None

    async def add_model(self, values: Mapping[str, Any]) -> bool:
        """Insert a logged model; False when the id is somebody's."""
        statement = upsert(logged_models).values({**values, "project_id": self._principal.project})
        return bool(await self._session.all(statement.on_conflict_do_nothing().returning(logged_models.c.id)))

    async def add(self, what: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert what hangs on things; what is there already stays as it is."""
        if rows:
            given = [{**row, "project_id": self._principal.project} for row in rows]
            await self._session.execute(upsert(TABLES[what]).on_conflict_do_nothing(), given)

    async def replace_tags(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Set tags of runs that went on where they come from."""
        if rows:
            statement = upsert(run_tags)
            given = [{**row, "project_id": self._principal.project} for row in rows]
            changed = statement.on_conflict_do_update(
                index_elements=["run_id", "key"], set_={"value": statement.excluded.value}
            )
            await self._session.execute(changed, given)

    async def mark(self, values: Mapping[str, Any]) -> None:
        """Remember what is brought in, and forget what an earlier thing of this id left."""
        statement = upsert(imports).values({**values, "project_id": self._principal.project})
        changed = {name: statement.excluded[name] for name in ("source_id", "digest", "left", "begun_at", "finished_at")}
        await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["target_id", "kind"], set_={**changed, "project_id": statement.excluded.project_id}
            )
        )

    async def finished(self, kind: str, ids: Collection[str], now: datetime) -> None:
        """These are complete."""
        mine = in_project(self._principal, imports)
        those = (imports.c.kind == kind) & imports.c.target_id.in_(ids)
        await self._session.execute(update(imports).where(mine, those).values(finished_at=now))

    async def hold_marks(self, kind: str, ids: Sequence[str]) -> dict[str, Record]:
        """What is known of the imports of these, held."""
        mine = visible_to(self._principal, imports).where(imports.c.kind == kind, imports.c.target_id.in_(ids))
        rows = await self._session.all(mine.order_by(imports.c.target_id).with_for_update()) if ids else ()
        return {row.target_id: row for row in rows}

    async def change_model(self, model_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a logged model."""
        mine = in_project(self._principal, logged_models)
        await self._session.execute(update(logged_models).where(mine, logged_models.c.id == model_id).values(values))

    async def state_times(self, shelf: Shelf, owner_id: str, files: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say when files were first stored; the paths of those that are not there with this content."""
        table, missing = shelf.table, []
        mine = in_project(self._principal, table) & (table.c[shelf.owner] == owner_id)
        for file in files:
            there = mine & (table.c.path == file["path"]) & (table.c.sha256 == file["sha256"])
            changed = await self._session.execute(update(table).where(there).values(created_at=file["created_at"]))
            if changed.rowcount == 0:
                missing.append(str(file["path"]))
        return missing

    async def forget_purged(self, run_ids: Sequence[str]) -> bool:
        """Remove what is left of earlier runs of these ids, so that nothing removes the new ones' points later.

        False when more is left than one request removes.
        """
        kinds = spellings(PURGED, self._principal)
        mine = in_project(self._principal, run_chores) & run_chores.c.kind.in_(kinds) & run_chores.c.run_id.in_(run_ids)
        left = [
            row.run_id for row in await self._session.all(delete(run_chores).where(mine).returning(run_chores.c.run_id))
        ]
        if not left:
            return True
        there = visible_to(self._principal, metric_points).where(metric_points.c.run_id.in_(left))
        if (
            len(await self._session.all(there.with_only_columns(metric_points.c.step).limit(_POINTS_AT_ONCE + 1)))
            > _POINTS_AT_ONCE
        ):
            return False
        gone = in_project(self._principal, metric_points) & metric_points.c.run_id.in_(left)
        await self._session.execute(delete(metric_points).where(gone))
        summaries = in_project(self._principal, run_metrics) & run_metrics.c.run_id.in_(left)
        await self._session.execute(delete(run_metrics).where(summaries))
        return True

    async def count_files(self, shelf: Shelf, owner_ids: Sequence[str]) -> dict[str, int]:
        """How many files each of these has."""
        owner = shelf.table.c[shelf.owner]
        mine = visible_to(self._principal, shelf.table).where(owner.in_(owner_ids))
        counted = mine.with_only_columns(owner.label("owner_id"), func.count().label("files")).group_by(owner)
        return {row.owner_id: row.files for row in await self._session.all(counted)} if owner_ids else {}

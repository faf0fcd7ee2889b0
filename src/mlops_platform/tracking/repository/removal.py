"""Statements that remove runs and experiments for ever.

A run goes in one transaction with all that refers to it. Its points, of which there may be millions, have no foreign key:
they follow in parts, and so do rows of requests that were under way when the run went (see `run_chores`).
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Table, bindparam, cast, delete, exists, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, UUID

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.artifacts import ARTIFACT_PATH
from mlops_platform.tracking.repository.artifacts import MODELS, holder
from mlops_platform.tracking.repository.transfer import MOVED, Transfer, remember
from mlops_platform.tracking.tables import (
    METADATA,
    experiments,
    imports,
    logged_model_artifacts,
    logged_model_metrics,
    logged_models,
    run_artifacts,
    run_chores,
    run_metrics,
    runs,
)

PURGED = "purged"
SETTLED_AFTER = timedelta(minutes=2)
"""Longer than any statement takes: what began before a change has ended by then."""
_POINTS_AT_ONCE = 20_000
_CHORES_AT_ONCE = 100


def _referring(to: Table) -> list[tuple[Table, Any]]:
    """Every table with a foreign key to this one, and the column: a table that is added later is not forgotten."""
    return [
        (table, key.parent)
        for table in reversed(METADATA.sorted_tables)
        for key in table.foreign_keys
        if key.column.table is to and table is not to
    ]


class Removal:
    """Removes within one project."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def runs(self, run_ids: Collection[str], now: datetime) -> tuple[list[str], int, Sequence[Record]]:
        """Remove runs that the caller holds; the holders and bytes of their artifacts, and logged models that went too."""
        mine = in_project(self._principal, run_artifacts) & run_artifacts.c.run_id.in_(run_ids)
        gone = await self._session.all(delete(run_artifacts).where(mine).returning(*run_artifacts.c))
        for table, column in _referring(runs):
            # The tenant is that of the run, which the caller holds.
            await self._session.execute(delete(table).where(in_project(self._principal, table), column.in_(run_ids)))
        await Transfer(self._session, self._principal).forget_baselines(run_ids)
        orphans = in_project(self._principal, runs) & runs.c.parent_run_id.in_(run_ids)
        await self._session.execute(update(runs).where(orphans).values(parent_run_id=None))
        linked = in_project(self._principal, logged_model_metrics) & logged_model_metrics.c.run_id.in_(run_ids)
        await self._session.execute(delete(logged_model_metrics).where(linked))
        # Models whose files were among the artifacts; those with files of their own outlive the run.
        has_files = exists().where(logged_model_artifacts.c.model_id == logged_models.c.id)
        hollow = in_project(self._principal, logged_models) & logged_models.c.source_run_id.in_(run_ids)
        hollow &= logged_models.c.tags.has_key(ARTIFACT_PATH) & ~has_files
        models = await self._session.all(delete(logged_models).where(hollow).returning(*logged_models.c))
        await self._forget_imports("run", run_ids)
        summaries = in_project(self._principal, run_metrics) & run_metrics.c.run_id.in_(run_ids)
        await self._session.execute(delete(run_metrics).where(summaries))
        await self._session.execute(delete(runs).where(in_project(self._principal, runs), runs.c.id.in_(run_ids)))
        await remember(self._session, self._principal, run_ids, PURGED, now)
        return [holder(row.run_id, row.path) for row in gone], sum(row.size for row in gone), models

    async def experiment(self, experiment_id: str) -> list[str]:
        """Remove an experiment that has no runs any more; the holders of what its logged models are made of."""
        its = in_project(self._principal, logged_models) & (logged_models.c.experiment_id == experiment_id)
        files = in_project(self._principal, logged_model_artifacts) & logged_model_artifacts.c.model_id.in_(
            select(logged_models.c.id).where(its)
        )
        gone = await self._session.all(delete(logged_model_artifacts).where(files).returning(*logged_model_artifacts.c))
        models = await self._session.all(select(logged_models.c.id).where(its))
        await self._forget_imports("model", [row.id for row in models])
        await self._forget_imports("experiment", [experiment_id])
        for table, column in _referring(experiments):
            await self._session.execute(delete(table).where(in_project(self._principal, table), column == experiment_id))
        mine = in_project(self._principal, experiments)
        await self._session.execute(delete(experiments).where(mine, experiments.c.id == experiment_id))
        return [MODELS.holder(row.model_id, row.path) for row in gone]

    async def _forget_imports(self, kind: str, ids: Collection[str]) -> None:
        mine = in_project(self._principal, imports) & (imports.c.kind == kind) & imports.c.target_id.in_(ids)
        await self._session.execute(delete(imports).where(mine))


async def contents(session: ReadSession, principal: Principal, experiment_id: str) -> Record | None:
    """What an experiment holds: live and deleted runs, artifacts with their bytes, metric points."""
    its = visible_to(principal, runs).where(runs.c.experiment_id == experiment_id).subquery("its_runs")
    files = (
        select(func.count().label("artifacts"), func.coalesce(func.sum(run_artifacts.c.size), 0).label("bytes"))
        .where(in_project(principal, run_artifacts), run_artifacts.c.run_id == its.c.id)
        .subquery("files")
    )
    points = select(cast(func.coalesce(func.sum(run_metrics.c.count), 0), BigInteger)).where(
        in_project(principal, run_metrics), run_metrics.c.experiment_id == experiment_id
    )
    counted = select(
        func.count().filter(its.c.deleted_at.is_(None)).label("runs"),
        func.count().filter(its.c.deleted_at.is_not(None)).label("deleted_runs"),
        select(files.c.artifacts).scalar_subquery().label("artifacts"),
        select(cast(files.c.bytes, BigInteger)).scalar_subquery().label("bytes"),
        points.scalar_subquery().label("metric_points"),
    ).select_from(its)
    return await session.first(counted)


async def claim_outlived(session: WriteSession, now: datetime, limit: int) -> Sequence[Record]:
    """Runs to be removed, held: deleted for longer than their experiment keeps them, or of an experiment that goes."""
    kept = cast(func.concat(experiments.c.retention_days, literal(" days")), INTERVAL)
    statement = (
        select(runs)
        .join(experiments, experiments.c.id == runs.c.experiment_id)
        .where(runs.c.deleted_at.is_not(None), experiments.c.retention_days.is_not(None), runs.c.deleted_at + kept < now)
        .limit(limit)
        .with_for_update(of=runs, skip_locked=True)
    )
    outlived = await session.all(statement)
    if outlived:
        return outlived
    going = (
        select(runs)
        .join(experiments, experiments.c.id == runs.c.experiment_id)
        .where(experiments.c.purged_at.is_not(None))
        .limit(limit)
        .with_for_update(of=runs, skip_locked=True)
    )
    return await session.all(going)


async def claim_emptied(session: WriteSession, limit: int) -> Sequence[Record]:
    """Experiments that go and have no runs any more, held."""
    has_runs = exists().where(runs.c.experiment_id == experiments.c.id)
    statement = select(experiments).where(experiments.c.purged_at.is_not(None), ~has_runs).limit(limit)
    return await session.all(statement.with_for_update(skip_locked=True))


async def settle(session: WriteSession, now: datetime) -> bool:
    """Do what changes left for later; whether there was anything to do at once."""
    chores = await session.all(
        select(run_chores).order_by(run_chores.c.since).limit(_CHORES_AT_ONCE).with_for_update(skip_locked=True)
    )
    settled = [row for row in chores if row.since < now - SETTLED_AFTER]
    await session.execute(_RESTATE, {"runs": [row.run_id for row in settled if _is(row, MOVED)]})
    purged = [row for row in chores if _is(row, PURGED)]
    going = {"runs": [row.run_id for row in purged], "projects": [row.project_id for row in purged]}
    removed = (await session.execute(_REMOVE_POINTS, {**going, "limit": _POINTS_AT_ONCE})).rowcount
    await session.execute(_REMOVE_SUMMARIES, going)
    done = [row for row in settled if _is(row, MOVED) or removed < _POINTS_AT_ONCE]
    for row in done:
        await session.execute(delete(run_chores).where(run_chores.c.run_id == row.run_id, run_chores.c.kind == row.kind))
    return removed == _POINTS_AT_ONCE or len(settled) == _CHORES_AT_ONCE


def _is(chore: Record, kind: str) -> bool:
    return str(chore.kind).partition(":")[0] == kind


_RUNS = bindparam("runs", type_=ARRAY(UUID(as_uuid=False)))
_PROJECTS = bindparam("projects", type_=ARRAY(UUID(as_uuid=False)))
# A statement that took points in may have read the experiment of its run just before the run was moved.
_RESTATE = text("""
    UPDATE tracking.run_metrics m SET experiment_id = r.experiment_id
    FROM tracking.runs r
    WHERE m.run_id = ANY(:runs) AND r.id = m.run_id AND r.project_id = m.project_id
        AND m.experiment_id <> r.experiment_id
""").bindparams(_RUNS)
# With the project: the run may have come into another one since, by an import, under its id.
_REMOVE_POINTS = text("""
    DELETE FROM tracking.metric_points WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM tracking.metric_points
        WHERE run_id = ANY(:runs) AND (project_id, run_id) IN (SELECT * FROM unnest(:projects, :runs))
        LIMIT :limit))
""").bindparams(_RUNS, _PROJECTS)
_REMOVE_SUMMARIES = text("""
    DELETE FROM tracking.run_metrics
    WHERE run_id = ANY(:runs) AND (project_id, run_id) IN (SELECT * FROM unnest(:projects, :runs))
""").bindparams(_RUNS, _PROJECTS)

"""Statements that move runs to another experiment, and copy them: points and artifacts never leave the database."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Text, cast, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.schema import HexId
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.tables import (
    experiments,
    metric_points,
    run_artifacts,
    run_chores,
    run_inputs,
    run_metrics,
    run_params,
    run_tags,
    runs,
)

MOVED = "moved"
# Everything that repeats the experiment of its run, so that one index serves a filter and an order.
_REPEATING = (run_params, run_tags, run_metrics, run_inputs)


class Transfer:
    """Moves and copies within one project."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def move(self, run_ids: Collection[str], experiment_id: str, now: datetime) -> None:
        """Give runs to another experiment."""
        mine = in_project(self._principal, runs)
        values = {"experiment_id": experiment_id, "updated_at": now}
        await self._session.execute(update(runs).where(mine, runs.c.id.in_(run_ids)).values(values))
        for table in _REPEATING:
            theirs = in_project(self._principal, table) & table.c.run_id.in_(run_ids)
            await self._session.execute(update(table).where(theirs).values(experiment_id=experiment_id))
        await self.forget_baselines(run_ids)
        await remember(self._session, self._principal, run_ids, MOVED, now)

    async def forget_baselines(self, run_ids: Collection[str]) -> None:
        """These are no longer what their experiments are compared with."""
        mine = in_project(self._principal, experiments) & experiments.c.baseline_run_id.in_(run_ids)
        await self._session.execute(update(experiments).where(mine).values(baseline_run_id=None))

    async def tag(self, run_ids: Collection[str], tags: Mapping[str, str]) -> None:
        """Set these tags on each of these runs, in one statement."""
        pairs = (
            func.unnest(_array(list(tags)), _array(list(tags.values()))).table_valued("key", "value").render_derived("pair")
        )
        each = (
            select(runs.c.project_id, runs.c.experiment_id, runs.c.id, pairs.c.key, pairs.c.value)
            .join(pairs, literal(value=True))
            .where(in_project(self._principal, runs), runs.c.id.in_(run_ids))
        )
        statement = upsert(run_tags).from_select(["project_id", "experiment_id", "run_id", "key", "value"], each)
        await self._session.execute(
            statement.on_conflict_do_update(index_elements=["run_id", "key"], set_={"value": statement.excluded.value})
        )

    async def untag(self, run_ids: Collection[str], keys: Collection[str]) -> None:
        """Remove these tags from each."""
        mine = in_project(self._principal, run_tags)
        await self._session.execute(delete(run_tags).where(mine, run_tags.c.run_id.in_(run_ids), run_tags.c.key.in_(keys)))

    async def point_count(self, run_id: str) -> int:
        """How many points a run has, without reading them."""
        counted = visible_to(self._principal, run_metrics).where(run_metrics.c.run_id == run_id).subquery()
        return int(await self._session.scalar(select(cast(func.coalesce(func.sum(counted.c.count), 0), BigInteger))))

    async def copy(self, old: str, new: str, experiment_id: str, *, with_metrics: bool) -> None:
        """Copy what hangs on a run to one that was just made. Points and their summaries are of one snapshot."""
        replaced: dict[str, Any] = {"run_id": new, "experiment_id": experiment_id}
        for table in (run_params, run_tags, run_inputs):
            await self._session.execute(self._again(table, old, replaced))
        if with_metrics:
            points = self._again(metric_points, old, {"run_id": new}).cte("points")
            await self._session.execute(self._again(run_metrics, old, replaced).add_cte(points))

    async def copy_artifacts(self, old: str, new: str) -> Sequence[str]:
        """Copy the names of a run's artifacts; their paths."""
        copied = self._again(run_artifacts, old, {"run_id": new}).returning(run_artifacts.c.path)
        return [row.path for row in await self._session.all(copied)]

    def _again(self, table: Any, run_id: str, replaced: Mapping[str, Any]) -> Any:
        columns = [
            literal(replaced[column.name], HexId).label(column.name) if column.name in replaced else column
            for column in table.c
        ]
        rows = visible_to(self._principal, table).where(table.c.run_id == run_id).with_only_columns(*columns)
        return insert(table).from_select([column.name for column in table.c], rows)


async def remember(session: WriteSession, principal: Principal, run_ids: Collection[str], kind: str, now: datetime) -> None:
    """Note what is left to do when statements that began before this change have ended."""
    left = list(run_ids)
    for spelling in spellings(kind, principal):
        rows = [{"project_id": principal.project, "run_id": run_id, "kind": spelling, "since": now} for run_id in left]
        if rows:
            statement = upsert(run_chores).values(rows)
            noted = statement.on_conflict_do_update(
                index_elements=["run_id", "kind"],
                set_={"since": statement.excluded.since},
                where=in_project(principal, run_chores),
            )
            done = {row.run_id for row in await session.all(noted.returning(run_chores.c.run_id))}
            left = [run_id for run_id in left if run_id not in done]


def spellings(kind: str, principal: Principal) -> tuple[str, str]:
    """How a chore's kind is written; the second way where another project has one for a run of the same id."""
    return kind, f"{kind}:{principal.project}"


def _array(values: list[str]) -> Any:
    return cast(values, ARRAY(Text))

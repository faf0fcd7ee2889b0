"""Which values of a metric are better, as each experiment declares it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.tables import metric_goals


async def of_experiment(session: ReadSession, principal: Principal, experiment_id: str) -> Sequence[Record]:
    """Every goal of an experiment, by key."""
    statement = visible_to(principal, metric_goals).where(metric_goals.c.experiment_id == experiment_id)
    return await session.all(statement.order_by(metric_goals.c.key))


async def declared(
    session: ReadSession, principal: Principal, names: Collection[str], experiment_ids: Collection[str] = ()
) -> dict[str, dict[str, str]]:
    """For each of the names, the goal by experiment: in these, or in all."""
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    if not names:
        return found
    statement = visible_to(principal, metric_goals).where(metric_goals.c.key.in_(names))
    if experiment_ids:
        statement = statement.where(metric_goals.c.experiment_id.in_(experiment_ids))
    for row in await session.all(statement):
        found[row.key][row.experiment_id] = row.goal
    return found


async def put(session: WriteSession, principal: Principal, values: Mapping[str, Any]) -> None:
    """Declare or change a goal."""
    statement = upsert(metric_goals).values({**values, "project_id": principal.project})
    changed = {column: statement.excluded[column] for column in ("goal", "updated_at")}
    await session.execute(statement.on_conflict_do_update(index_elements=["experiment_id", "key"], set_=changed))


async def remove(session: WriteSession, principal: Principal, experiment_id: str, key: str) -> None:
    """Declare none."""
    mine = in_project(principal, metric_goals)
    await session.execute(
        delete(metric_goals).where(mine, metric_goals.c.experiment_id == experiment_id, metric_goals.c.key == key)
    )

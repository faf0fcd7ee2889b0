"""Removing points from a step on, and keeping the summaries true.

The rows of `run_metrics` are locked first, in the order in which ingest folds into them. A request that is stored meanwhile
waits there with its points not yet visible, and folds them into what is written here, so nothing is counted twice or lost.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import BigInteger, Integer, Row, bindparam, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from mlops_platform.core.auth.visibility import in_project
from mlops_platform.core.db.schema import HexId
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.keys import key_parts
from mlops_platform.tracking.repository.metrics import kept
from mlops_platform.tracking.tables import metric_keys, metric_points, run_metrics

_RECOMPUTE = text("""
    UPDATE tracking.run_metrics AS m SET
        last_step = latest.step, last_timestamp = latest.timestamp, last_value = latest.value,
        min_value = folded.min_value, max_value = folded.max_value, total = folded.total, count = folded.count,
        nan_count = folded.nan_count
    FROM (
        SELECT key_id, min(value) FILTER (WHERE value <> 'NaN') AS min_value,
               max(value) FILTER (WHERE value <> 'NaN') AS max_value,
               coalesce(sum(CASE WHEN value > 1e290 THEN 'Infinity' WHEN value < -1e290 THEN '-Infinity' ELSE value END)
                   FILTER (WHERE value <> 'NaN'), 0) AS total,
               count(*) AS count, count(*) FILTER (WHERE value = 'NaN') AS nan_count
        FROM tracking.metric_points WHERE project_id = :project AND run_id = :run AND key_id = ANY(:keys) GROUP BY key_id
    ) AS folded, LATERAL (
        SELECT step, timestamp, value FROM tracking.metric_points
        WHERE project_id = :project AND run_id = :run AND key_id = folded.key_id
        ORDER BY step DESC, timestamp DESC, value DESC LIMIT 1
    ) AS latest
    WHERE m.project_id = :project AND m.run_id = :run AND m.key_id = folded.key_id
    RETURNING m.key_id, m.count AS points
""").bindparams(
    bindparam("project", type_=HexId),
    bindparam("run", type_=HexId),
    bindparam("keys", type_=ARRAY(Integer)),
)


async def hold_metrics(
    session: WriteSession, principal: Principal, run_id: str, keys: Collection[str] | None
) -> Sequence[Row[Any]]:
    """What is kept of these metrics (of all), held until the commit."""
    statement = kept(principal).where(run_metrics.c.run_id == run_id)
    if keys is not None:
        statement = statement.where(tuple_(metric_keys.c.name, metric_keys.c.context).in_([key_parts(key) for key in keys]))
    return await session.all(statement.order_by(run_metrics.c.key_id).with_for_update(of=run_metrics))


async def remove_points(
    session: WriteSession, principal: Principal, run_id: str, key_ids: Sequence[int], *, from_step: int
) -> dict[int, int]:
    """Delete the points from a step on; how many of each key."""
    gone = (
        delete(metric_points)
        .where(
            in_project(principal, metric_points),
            metric_points.c.run_id == run_id,
            metric_points.c.key_id.in_(key_ids),
            metric_points.c.step >= bindparam("from_step", from_step, type_=BigInteger),
        )
        .returning(metric_points.c.key_id)
        .cte("gone")
    )
    rows = await session.all(select(gone.c.key_id, func.count().label("removed")).group_by(gone.c.key_id))
    return {row.key_id: row.removed for row in rows}


async def recompute(session: WriteSession, principal: Principal, run_id: str, key_ids: Sequence[int]) -> dict[int, int]:
    """Fold the summaries of these keys anew; how many points each has. A key without points is no metric of the run."""
    parameters = {"project": principal.project, "run": run_id, "keys": list(key_ids)}
    left = {row.key_id: row.points for row in await session.all(_RECOMPUTE, parameters)}
    empty = [key_id for key_id in key_ids if key_id not in left]
    if empty:
        mine = in_project(principal, run_metrics)
        await session.execute(
            delete(run_metrics).where(mine, run_metrics.c.run_id == run_id, run_metrics.c.key_id.in_(empty))
        )
    return left

"""Metric points and what is kept of each metric: the bulk insert of the hot path, and the reads.

One statement stores any number of requests: it joins the live runs, inserts the points that are new, and folds exactly
those into `run_metrics`. Everything is sorted by key first, so that replicas that write to the same run wait for each
other in one order and never deadlock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, Text, and_, bindparam, func, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.keys import key_parts
from mlops_platform.tracking.domain.points import Points, joined
from mlops_platform.tracking.repository.keyset import beyond
from mlops_platform.tracking.tables import metric_goals, metric_keys, metric_points, run_metrics


@dataclass(frozen=True, slots=True)
class IngestItem:
    """The points of one request, for one run of one project; `experiment_id` when the path named it."""

    project_id: str
    run_id: str
    experiment_id: str | None
    points: Points


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """What became of one item: was its run found, was it live, how many of its points were new."""

    found: bool
    live: bool
    stored: int


KeyIds = dict[tuple[str, str], int]
"""(project, metric key) to the key's number."""

_INTERN = text("""
    WITH given AS (
        SELECT DISTINCT g.project_id, g.name, g.context
        FROM unnest(:projects, :runs, :names, :contexts) AS g(project_id, run_id, name, context)
        JOIN tracking.runs r ON r.id = g.run_id AND r.project_id = g.project_id AND r.deleted_at IS NULL
        LEFT JOIN tracking.metric_keys k ON k.project_id = g.project_id AND k.name = g.name AND k.context = g.context
        WHERE k.id IS NULL
    )
    INSERT INTO tracking.metric_keys (project_id, name, context)
    SELECT project_id, name, context FROM given ORDER BY project_id, name, context
    ON CONFLICT DO NOTHING
""").bindparams(
    bindparam("projects", type_=ARRAY(UUID(as_uuid=False))),
    bindparam("runs", type_=ARRAY(UUID(as_uuid=False))),
    bindparam("names", type_=ARRAY(Text)),
    bindparam("contexts", type_=ARRAY(Text)),
)
_KEYS = text("""
    SELECT k.project_id, g.number, k.id
    FROM unnest(:projects, :names, :contexts) WITH ORDINALITY AS g(project_id, name, context, number)
    JOIN tracking.metric_keys k ON k.project_id = g.project_id AND k.name = g.name COLLATE "C"
        AND k.context = g.context COLLATE "C"
""").bindparams(
    bindparam("projects", type_=ARRAY(UUID(as_uuid=False))),
    bindparam("names", type_=ARRAY(Text)),
    bindparam("contexts", type_=ARRAY(Text)),
)

# PostgreSQL settles on one plan for batches of every size, and guesses ten rows where there are ten thousand. So nothing
# here joins two things that grow with the batch: they are looked up by hash (IN inside an expression) or by index.
_STORE = """
    WITH items AS (
        SELECT i.item::int AS item, r.id IS NOT NULL AS found, r.deleted_at IS NULL AND e.deleted_at IS NULL AS live
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS i(project_id, run_id, experiment_id, item)
        LEFT JOIN tracking.runs r ON r.id = i.run_id AND r.project_id = i.project_id
            AND r.experiment_id = coalesce(i.experiment_id, r.experiment_id)
        LEFT JOIN tracking.experiments e ON e.id = r.experiment_id
    ), given AS (
        SELECT g.item, ($1::uuid[])[g.item] AS project_id, ($2::uuid[])[g.item] AS run_id,
               g.key_id, g.step, g.timestamp, g.value, g.arrived
        FROM unnest($4::int[], $5::int[], $6::bigint[], $7::timestamptz[], $8::float8[], $9::bool[])
            AS g(item, key_id, step, timestamp, value, arrived)
        WHERE g.key_id > 0 AND (g.item IN (SELECT item FROM items WHERE found AND live)) IS TRUE
    ), unique_points AS (
        SELECT DISTINCT ON (run_id, key_id, step, timestamp, value) *
        FROM given ORDER BY run_id, key_id, step, timestamp, value, item
    ), fresh AS (
        INSERT INTO tracking.metric_points AS p (project_id, run_id, key_id, step, timestamp, value, arrived)
        SELECT project_id, run_id, key_id, step, timestamp, value, arrived FROM unique_points
        ORDER BY run_id, key_id, step, timestamp, value
        ON CONFLICT DO NOTHING
        RETURNING p.project_id, p.run_id, p.key_id, p.step, p.timestamp, p.value
    ), folded AS (
        INSERT INTO tracking.run_metrics AS m (project_id, experiment_id, run_id, key_id, last_step, last_timestamp,
            last_value, min_value, max_value, total, count, nan_count)
        SELECT project_id, (SELECT r.experiment_id FROM tracking.runs r WHERE r.id = run_id), run_id, key_id,
               (array_agg(step ORDER BY step DESC, timestamp DESC, value DESC))[1],
               (array_agg(timestamp ORDER BY step DESC, timestamp DESC, value DESC))[1],
               (array_agg(value ORDER BY step DESC, timestamp DESC, value DESC))[1],
               min(value) FILTER (WHERE value <> 'NaN'), max(value) FILTER (WHERE value <> 'NaN'),
               coalesce(sum(CASE WHEN value > 1e290 THEN 'Infinity' WHEN value < -1e290 THEN '-Infinity' ELSE value END)
                   FILTER (WHERE value <> 'NaN'), 0),
               count(*), count(*) FILTER (WHERE value = 'NaN')
        FROM fresh GROUP BY project_id, run_id, key_id ORDER BY run_id, key_id
        ON CONFLICT (run_id, key_id) DO UPDATE SET
            last_step = CASE WHEN (excluded.last_step, excluded.last_timestamp, excluded.last_value)
                > (m.last_step, m.last_timestamp, m.last_value) THEN excluded.last_step ELSE m.last_step END,
            last_timestamp = CASE WHEN (excluded.last_step, excluded.last_timestamp, excluded.last_value)
                > (m.last_step, m.last_timestamp, m.last_value) THEN excluded.last_timestamp ELSE m.last_timestamp END,
            last_value = CASE WHEN (excluded.last_step, excluded.last_timestamp, excluded.last_value)
                > (m.last_step, m.last_timestamp, m.last_value) THEN excluded.last_value ELSE m.last_value END,
            min_value = least(m.min_value, excluded.min_value),
            max_value = greatest(m.max_value, excluded.max_value),
            total = m.total + excluded.total,
            count = m.count + excluded.count,
            nan_count = m.nan_count + excluded.nan_count
    )
    SELECT item, found, live, 0 AS stored FROM items
    UNION ALL
    SELECT item, NULL, NULL, count(*) FILTER (WHERE (run_id, key_id, step, timestamp, value) IN (
        SELECT run_id, key_id, step, timestamp, value FROM fresh))
    FROM unique_points GROUP BY item
"""


async def intern_keys(session: WriteSession, items: Sequence[IngestItem], known: Mapping[tuple[str, str], int]) -> KeyIds:
    """The numbers of the keys that `known` lacks. Only a live run brings a new key into its project."""
    wanted = sorted({(item.project_id, item.run_id, key) for item in items for key in item.points.keys})
    wanted = [each for each in wanted if (each[0], each[2]) not in known]
    if not wanted:
        return {}
    projects, runs, keys = ([each[part] for each in wanted] for part in range(3))
    names, contexts = zip(*map(key_parts, keys), strict=True)
    given = {"projects": projects, "names": list(names), "contexts": list(contexts)}
    await session.execute(_INTERN, {**given, "runs": runs})
    return {(row.project_id.hex, keys[row.number - 1]): row.id for row in await session.all(_KEYS, given)}


async def store(
    session: WriteSession, items: Sequence[IngestItem], ids: Mapping[tuple[str, str], int]
) -> list[IngestOutcome]:
    """Store the points of all items in one statement; one outcome an item, in their order."""
    origins, points = joined([item.points for item in items])
    projects = [item.project_id for item in items]
    # A key without a number belongs to no live run, and the statement drops its points for that reason.
    keys = [ids.get((projects[origin], key), 0) for origin, key in zip(origins, points.keys, strict=True)]
    rows = await session.fetch(
        _STORE,
        projects,
        [item.run_id for item in items],
        [item.experiment_id for item in items],
        [origin + 1 for origin in origins],
        keys,
        points.steps,
        points.timestamps,
        points.values,
        points.arrived,
    )
    # A key is missing only where a run was not live a moment ago; if it is by now, it still was not for this request.
    unnumbered = {origin for origin, key in zip(origins, keys, strict=True) if key == 0}
    stored: dict[int, int] = dict.fromkeys(range(len(items)), 0)
    states: dict[int, tuple[bool, bool]] = {}
    for row in rows:
        number = row["item"] - 1
        stored[number] += row["stored"]
        if row["found"] is not None:
            states[number] = row["found"], row["live"] and number not in unnumbered
    return [IngestOutcome(*states[number], stored=stored[number]) for number in range(len(items))]


async def key_ids(session: ReadSession, principal: Principal, keys: Collection[str]) -> dict[str, int]:
    """The numbers of those keys that the project knows."""
    if not keys:
        return {}
    by_parts = {key_parts(key): key for key in keys}
    statement = visible_to(principal, metric_keys).where(tuple_(metric_keys.c.name, metric_keys.c.context).in_(by_parts))
    return {by_parts[row.name, row.context]: row.id for row in await session.all(statement)}


def kept(principal: Principal) -> Select[Any]:
    """What is kept of each metric, with the key's name as `key`, and its `context`."""
    joined_tables = run_metrics.join(metric_keys, metric_keys.c.id == run_metrics.c.key_id)
    return (
        visible_to(principal, run_metrics)
        .select_from(joined_tables)
        .with_only_columns(
            *run_metrics.c, metric_keys.c.name.label("key"), metric_keys.c.context, maintain_column_froms=True
        )
    )


async def of_run(session: ReadSession, principal: Principal, run_id: str) -> Sequence[Row[Any]]:
    """Everything kept of a run's metrics, by key, with the goal that the experiment declares for it."""
    goal = (
        select(metric_goals.c.goal)
        .where(
            in_project(principal, metric_goals),
            metric_goals.c.experiment_id == run_metrics.c.experiment_id,
            metric_goals.c.key == metric_keys.c.name,
        )
        .scalar_subquery()
    )
    statement = kept(principal).add_columns(goal.label("goal")).where(run_metrics.c.run_id == run_id)
    return await session.all(statement.order_by(metric_keys.c.name, metric_keys.c.context))


async def history(
    session: ReadSession,
    principal: Principal,
    run_id: str,
    ids: Sequence[int],
    *,
    limit: int,
    after: tuple[Any, ...] | None = None,
) -> Sequence[Row[Any]]:
    """Points of the given keys in the order (key, step, timestamp, value), after the given place."""
    place = (metric_points.c.key_id, metric_points.c.step, metric_points.c.timestamp, metric_points.c.value)
    statement = (
        visible_to(principal, metric_points)
        .with_only_columns(*place)  # of a hundred thousand rows each column costs
        .where(and_(metric_points.c.run_id == run_id, metric_points.c.key_id.in_(ids)))
    )
    if after is not None:
        statement = statement.where(beyond(place, after))
    return await session.all(statement.order_by(*place).limit(limit))


async def sampled(
    session: ReadSession,
    principal: Principal,
    run_ids: Sequence[str],
    ids: Sequence[int],
    *,
    most: int,
    steps: tuple[int, int] | None = None,
) -> Sequence[Row[Any]]:
    """At most so many points of each run, evenly spread over its points, the first and the last among them."""
    place = (metric_points.c.step, metric_points.c.timestamp, metric_points.c.value)
    within = visible_to(principal, metric_points).where(
        metric_points.c.run_id.in_(run_ids), metric_points.c.key_id.in_(ids)
    )
    if steps is not None:
        within = within.where(metric_points.c.step.between(*steps))
    numbered = within.add_columns(
        func.row_number().over(partition_by=metric_points.c.run_id, order_by=place).label("number"),
        func.count().over(partition_by=metric_points.c.run_id).label("total"),
    ).subquery()
    number, total = numbered.c.number - 1, func.greatest(numbered.c.total - 1, 1)
    chosen = or_(numbered.c.total <= most, number == 0)
    if most > 1:
        # A point is chosen where its share of the way passes the next of `most - 1` equal parts.
        parts = most - 1
        chosen = or_(chosen, number * parts // total > (number - 1) * parts // total)
    statement = select(numbered).where(chosen)
    return await session.all(statement.order_by(*(numbered.c[name] for name in ("run_id", "step", "timestamp", "value"))))

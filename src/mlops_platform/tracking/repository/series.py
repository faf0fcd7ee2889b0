"""Series for charts, reduced where they lie: an index-only scan of each series, and only what is shown leaves the database.

Each series is cut into fine parts, of which the scan learns the least and the greatest value. Several fine parts make one
of those that are shown; the points themselves are then looked up within the one fine part that holds the extreme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Double, Integer, Row, bindparam, func, select, text, true
from sqlalchemy.dialects.postgresql import UUID

from mlops_platform.core.auth.visibility import visible_to
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.series import Columns
from mlops_platform.tracking.repository.experiments import readable
from mlops_platform.tracking.tables import experiments, run_metrics, runs

FINE_PARTS = 4


@dataclass(frozen=True, slots=True)
class Extent:
    """One series as it lies in the database: how many points, and the place of the first and of the last of them."""

    run_id: str
    key_id: int
    points: int
    has_nan: bool
    first_step: int
    last_step: int
    first_ms: int
    last_ms: int


# Who may see the runs was decided before; only the columns of the primary key are read, so that no row is fetched.
_EXTENTS = text("""
    SELECT a.number, first.step AS first_step, last.step AS last_step,
           floor(date_part('epoch', first.timestamp) * 1000)::bigint AS first_ms,
           floor(date_part('epoch', last.timestamp) * 1000)::bigint AS last_ms
    FROM unnest(:runs, :keys) WITH ORDINALITY AS a(run_id, key_id, number),
    LATERAL (SELECT step, timestamp FROM tracking.metric_points WHERE run_id = a.run_id AND key_id = a.key_id
        ORDER BY step, timestamp, value LIMIT 1) AS first,
    LATERAL (SELECT step, timestamp FROM tracking.metric_points WHERE run_id = a.run_id AND key_id = a.key_id
        ORDER BY step DESC, timestamp DESC, value DESC LIMIT 1) AS last
""").bindparams(bindparam("runs", type_=ARRAY(UUID(as_uuid=False))), bindparam("keys", type_=ARRAY(Integer)))

_WHOLE = """
    SELECT a.number, array_agg({x} ORDER BY {order}) AS x, array_agg(value ORDER BY {order}) AS y
    FROM unnest(:runs, :keys) WITH ORDINALITY AS a(run_id, key_id, number)
    JOIN tracking.metric_points AS p ON p.run_id = a.run_id AND p.key_id = a.key_id
    GROUP BY a.number
"""
_REDUCED = """
    WITH asked AS (
        SELECT * FROM unnest(:runs, :keys, :lows, :highs) WITH ORDINALITY AS a(run_id, key_id, low, high, number)
    ), fine AS MATERIALIZED (
        SELECT asked.number, asked.run_id, asked.key_id, (part.bucket - 1) / :fine AS shown, part.*
        FROM asked, LATERAL (
            SELECT width_bucket({position}, asked.low, asked.high, :parts) AS bucket,
                   min(step) AS from_step, max(step) AS to_step, {from_time} AS from_time, {to_time} AS to_time,
                   min(value) AS least, max(value) FILTER (WHERE value < 'NaN') AS greatest,
                   bool_or(value = 'NaN') AS has_nan
            FROM tracking.metric_points AS p WHERE p.run_id = asked.run_id AND p.key_id = asked.key_id GROUP BY 1
        ) AS part
    ), picked AS (
        (SELECT DISTINCT ON (number, shown) number, run_id, key_id, from_step, to_step, from_time, to_time, least AS value
         FROM fine WHERE least < 'NaN' ORDER BY number, shown, least, bucket)
        UNION ALL
        (SELECT DISTINCT ON (number, shown) number, run_id, key_id, from_step, to_step, from_time, to_time, greatest
         FROM fine WHERE greatest IS NOT NULL ORDER BY number, shown, greatest DESC, bucket)
        UNION ALL
        (SELECT DISTINCT ON (number, shown) number, run_id, key_id, from_step, to_step, from_time, to_time, 'NaN'
         FROM fine WHERE has_nan ORDER BY number, shown, bucket)
    ), points AS (
        SELECT picked.number, found.step, found.timestamp, picked.value
        FROM picked, LATERAL (
            SELECT step, timestamp FROM tracking.metric_points AS p
            WHERE p.run_id = picked.run_id AND p.key_id = picked.key_id
                AND (p.step, p.timestamp) >= (picked.from_step, picked.from_time)
                AND (p.step, p.timestamp) <= (picked.to_step, picked.to_time) AND p.value = picked.value
            ORDER BY step, timestamp LIMIT 1
        ) AS found
        UNION
        SELECT asked.number, ends.step, ends.timestamp, ends.value
        FROM asked, LATERAL (
            (SELECT step, timestamp, value FROM tracking.metric_points WHERE run_id = asked.run_id AND key_id = asked.key_id
             ORDER BY step, timestamp, value LIMIT 1)
            UNION ALL
            (SELECT step, timestamp, value FROM tracking.metric_points WHERE run_id = asked.run_id AND key_id = asked.key_id
             ORDER BY step DESC, timestamp DESC, value DESC LIMIT 1)
        ) AS ends
    )
    SELECT number, array_agg({x} ORDER BY {order}) AS x, array_agg(value ORDER BY {order}) AS y FROM points GROUP BY number
"""
_BY_STEP = {
    "x": "step",
    "order": "step, timestamp, value",
    "position": "step::float8",
    "from_time": "'-infinity'::timestamptz",
    "to_time": "'infinity'::timestamptz",
}
_BY_TIME = {
    "x": "floor(date_part('epoch', timestamp) * 1000)::bigint",
    "order": "timestamp, step, value",
    "position": "date_part('epoch', timestamp) * 1000",
    "from_time": "min(timestamp)",
    "to_time": "max(timestamp)",
}


# Parts are few and points many: hash them, do not sort them, however the planner guesses. Until the end of the transaction.
_HASHING = select(func.set_config("enable_sort", "off", true()))
_SORTING = select(func.set_config("enable_sort", "on", true()))
_PAIRS = (bindparam("runs", type_=ARRAY(UUID(as_uuid=False))), bindparam("keys", type_=ARRAY(Integer)))
_RANGES = (
    bindparam("lows", type_=ARRAY(Double)),
    bindparam("highs", type_=ARRAY(Double)),
    bindparam("parts", type_=Integer),
    bindparam("fine", type_=Integer),
)
WHOLE_BY_STEP = text(_WHOLE.format(**_BY_STEP)).bindparams(*_PAIRS)
WHOLE_BY_TIME = text(_WHOLE.format(**_BY_TIME)).bindparams(*_PAIRS)
REDUCED_BY_STEP = text(_REDUCED.format(**_BY_STEP)).bindparams(*_PAIRS, *_RANGES)
REDUCED_BY_TIME = text(_REDUCED.format(**_BY_TIME)).bindparams(*_PAIRS, *_RANGES)


async def extents(
    session: ReadSession, principal: Principal, run_ids: Sequence[str], key_ids: Sequence[int]
) -> list[Extent]:
    """The series that exist among these runs and keys, as far as the principal may read the runs."""
    statement = (
        visible_to(principal, run_metrics)
        .join(runs, runs.c.id == run_metrics.c.run_id)
        .join(experiments, experiments.c.id == runs.c.experiment_id)
        .where(run_metrics.c.run_id.in_(run_ids), run_metrics.c.key_id.in_(key_ids), readable(principal))
        .with_only_columns(
            run_metrics.c.run_id, run_metrics.c.key_id, run_metrics.c.count.label("points"), run_metrics.c.nan_count
        )
    )
    found = await session.all(statement)
    ends = await session.all(_EXTENTS, {"runs": [row.run_id for row in found], "keys": [row.key_id for row in found]})
    return [_extent(found[row.number - 1], row) for row in ends]


def _extent(kept: Row[Any], ends: Row[Any]) -> Extent:
    return Extent(
        run_id=kept.run_id,
        key_id=kept.key_id,
        points=kept.points,
        has_nan=kept.nan_count > 0,
        first_step=ends.first_step,
        last_step=ends.last_step,
        first_ms=ends.first_ms,
        last_ms=ends.last_ms,
    )


async def whole(session: ReadSession, series: Sequence[Extent], *, by_time: bool) -> list[tuple[Extent, Columns]]:
    """All points of these series."""
    if not series:
        return []
    statement = WHOLE_BY_TIME if by_time else WHOLE_BY_STEP
    return _columns(series, await session.all(statement, _pairs(series)))


async def reduced(
    session: ReadSession, series: Sequence[Extent], parts: int, *, by_time: bool
) -> list[tuple[Extent, Columns]]:
    """The first and last point of each series, and of each part of it the least, the greatest, and a NaN if it has one."""
    if not series:
        return []
    lows = [float(one.first_ms if by_time else one.first_step) for one in series]
    highs = [float(one.last_ms if by_time else one.last_step) for one in series]
    parameters = {
        **_pairs(series),
        "lows": lows,
        # A range must not be empty, also where two large numbers are one float.
        "highs": [high if high > low else math.nextafter(low, math.inf) for low, high in zip(lows, highs, strict=True)],
        "parts": parts * FINE_PARTS,
        "fine": FINE_PARTS,
    }
    async with session.together():
        await session.scalar(_HASHING)
        rows = await session.all(REDUCED_BY_TIME if by_time else REDUCED_BY_STEP, parameters)
        await session.scalar(_SORTING)
    return _columns(series, rows)


def _pairs(series: Sequence[Extent]) -> dict[str, Any]:
    return {"runs": [one.run_id for one in series], "keys": [one.key_id for one in series]}


def _columns(series: Sequence[Extent], rows: Sequence[Row[Any]]) -> list[tuple[Extent, Columns]]:
    return [(series[row.number - 1], Columns(row.x, row.y)) for row in rows]

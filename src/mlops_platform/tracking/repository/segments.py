"""Statements of segments: reading them with what follows them, and building them behind the ingest.

`run_metrics.count` counts every point in the snapshot that reads it. So segments are true when their points and those after
the last of them make up that count: a point that came late, among those that a segment stands for, makes one too many.
Truncation is the only thing that takes points away, and a trigger on the shrinking count removes the segments with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ARRAY, Integer, bindparam, delete, text
from sqlalchemy.dialects.postgresql import UUID, insert

from mlops_platform.core.db.schema import HexId
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.tracking.domain.segments import POINTS, Stretch, packed
from mlops_platform.tracking.tables import metric_segments

TAIL = 8 * POINTS
"""More exact points than this after the last segment are left to the statement that folds them in the database."""
SETTLED = POINTS
"""So many of the latest points stay out of segments: processes that write one series come at slightly different times."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Covered:
    """A series as segments and the exact points after them; `is_true` when they are all of its points."""

    segments: Sequence[bytes]
    tail: Stretch
    last: tuple[int, int, float]
    is_true: bool


# One statement, one snapshot: the count, the segments and the points after them agree or they do not.
_COVERED = text("""
    SELECT a.number, m.count AS points, s.points AS covered, s.segments, l.step AS last_step,
           date_part('epoch', l.timestamp) AS last_seconds, l.value AS last_value, t.steps, t.seconds, t.values
    FROM unnest(:runs, :keys) WITH ORDINALITY AS a(run_id, key_id, number)
    JOIN tracking.run_metrics AS m ON m.run_id = a.run_id AND m.key_id = a.key_id,
    LATERAL (SELECT coalesce(sum(points), 0)::bigint AS points, array_agg(blocks ORDER BY number) AS segments
        FROM tracking.metric_segments WHERE run_id = a.run_id AND key_id = a.key_id) AS s
    LEFT JOIN LATERAL (SELECT last_step AS step, last_timestamp AS timestamp, last_value AS value
        FROM tracking.metric_segments WHERE run_id = a.run_id AND key_id = a.key_id ORDER BY number DESC LIMIT 1) AS l
        ON true
    LEFT JOIN LATERAL (SELECT array_agg(step) AS steps, array_agg(date_part('epoch', timestamp)) AS seconds,
               array_agg(value) AS values
        FROM (SELECT step, timestamp, value FROM tracking.metric_points AS p
            WHERE p.run_id = a.run_id AND p.key_id = a.key_id
                AND (p.step, p.timestamp, p.value) > (l.step, l.timestamp, l.value)
            ORDER BY step, timestamp, value LIMIT :most) AS after) AS t ON true
""").bindparams(
    bindparam("runs", type_=ARRAY(UUID(as_uuid=False))),
    bindparam("keys", type_=ARRAY(Integer)),
    bindparam("most", TAIL + 1, type_=Integer),
)

# A lock that truncation waits for, as that of its own waits for this one, and ingest does not.
_SERIES = (bindparam("run", type_=HexId), bindparam("key", type_=Integer))
_FIND = "SELECT project_id FROM tracking.run_metrics WHERE run_id = :run AND key_id = :key FOR "
_HELD = text(_FIND + "KEY SHARE").bindparams(*_SERIES).columns(project_id=HexId)
_ALONE = text(_FIND + "UPDATE").bindparams(*_SERIES).columns(project_id=HexId)
_LAST = """
    (SELECT 1) AS one LEFT JOIN LATERAL (SELECT number, last_step, last_timestamp, last_value
        FROM tracking.metric_segments WHERE run_id = :run AND key_id = :key ORDER BY number DESC LIMIT 1) AS l ON true
"""
_BEYOND = """
    p.run_id = :run AND p.key_id = :key AND (p.step, p.timestamp, p.value) > (
        coalesce(l.last_step, -9223372036854775808), coalesce(l.last_timestamp, '-infinity'),
        coalesce(l.last_value, '-infinity'))
"""
_COUNTED_WHERE = """
    SELECT (SELECT count FROM tracking.run_metrics WHERE run_id = :run AND key_id = :key) AS points,
        (SELECT coalesce(sum(points), 0)::bigint FROM tracking.metric_segments WHERE run_id = :run AND key_id = :key)
        + (SELECT count(*) FROM tracking.metric_points AS p WHERE {beyond}) AS reached
    FROM {last}
"""
_AFTER_WHERE = """
    SELECT coalesce(l.number, 0) AS number, t.steps, t.seconds, t.values
    FROM {last}, LATERAL (
        SELECT array_agg(step) AS steps, array_agg(date_part('epoch', timestamp)) AS seconds, array_agg(value) AS values
        FROM (SELECT step, timestamp, value FROM tracking.metric_points AS p WHERE {beyond}
            ORDER BY step, timestamp, value LIMIT :most) AS after
    ) AS t
"""
_COUNTED = text(_COUNTED_WHERE.format(beyond=_BEYOND, last=_LAST)).bindparams(*_SERIES)
_AFTER = text(_AFTER_WHERE.format(beyond=_BEYOND, last=_LAST)).bindparams(*_SERIES, bindparam("most", type_=Integer))


async def covered(session: ReadSession, series: Sequence[tuple[str, int]]) -> list[Covered | None]:
    """What stands for each (run, key); None where there is no segment, or too much after the last."""
    pairs = {"runs": [run_id for run_id, _ in series], "keys": [key_id for _, key_id in series]}
    found: list[Covered | None] = [None] * len(series)
    for row in await session.all(_COVERED, pairs):
        if row.segments is not None and len(row.steps or ()) <= TAIL:
            tail = Stretch.of(row.steps or (), row.seconds or (), row.values or ())
            ends = (row.last_step, round(row.last_seconds * 1e6), row.last_value)
            last = (int(tail.steps[-1]), int(tail.times[-1]), float(tail.values[-1])) if len(tail) else ends
            is_true = row.covered + len(tail) == row.points
            found[row.number - 1] = Covered(row.segments, tail, last, is_true=is_true)
    return found


async def hold(session: WriteSession, run_id: str, key_id: int, *, alone: bool = False) -> str | None:
    """Keep truncation away until the commit, and other builders when `alone`; the project, or None when it is gone."""
    project: str | None = await session.scalar(_ALONE if alone else _HELD, {"run": run_id, "key": key_id})
    return project


async def counted(session: ReadSession, run_id: str, key_id: int) -> tuple[int, bool]:
    """How many points a series has, and whether the segments and what follows them are all of those."""
    row = await session.first(_COUNTED, {"run": run_id, "key": key_id})
    return (0, False) if row is None or row.points is None else (row.points, row.points == row.reached)


async def extend(session: WriteSession, project_id: str, run_id: str, key_id: int) -> int:
    """Add the next segments of a series that is held; how many."""
    most = TAIL + SETTLED
    row = await session.first(_AFTER, {"run": run_id, "key": key_id, "most": most})
    if row is None or row.steps is None or len(row.steps) < POINTS + SETTLED:
        return 0
    points = Stretch.of(row.steps[:-SETTLED], row.seconds[:-SETTLED], row.values[:-SETTLED])
    rows = [
        {
            "project_id": project_id,
            "run_id": run_id,
            "key_id": key_id,
            "number": row.number + place,
            "points": POINTS,
            "last_step": row.steps[place * POINTS - 1],
            "last_timestamp": _EPOCH + timedelta(microseconds=int(points.times[place * POINTS - 1])),
            "last_value": row.values[place * POINTS - 1],
            "blocks": content,
        }
        for place, content in enumerate(packed(points), 1)
    ]
    # Whoever has the first has the others: another replica that builds the same waits here, and finds it taken.
    first = insert(metric_segments).values(rows[0]).on_conflict_do_nothing().returning(metric_segments.c.number)
    if await session.scalar(first) is None:
        return 0
    if rows[1:]:
        await session.execute(insert(metric_segments), rows[1:])
    return len(rows)


async def forget(session: WriteSession, project_id: str, run_id: str, key_id: int) -> None:
    """Remove the segments of a series."""
    mine = (metric_segments.c.project_id == project_id) & (metric_segments.c.run_id == run_id)
    await session.execute(delete(metric_segments).where(mine, metric_segments.c.key_id == key_id))

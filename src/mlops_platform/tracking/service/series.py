"""Series for charts: which are wanted, how far each is reduced, and the answer."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlops_platform.contracts.tracking_metrics import SeriesMethod, SeriesRequest, SeriesX
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.keys import context_of, key_parts, read_key
from mlops_platform.tracking.domain.segments import BLOCK, reduced, unpacked
from mlops_platform.tracking.domain.series import PRESELECTED, Columns, buckets, largest_triangles, spelled
from mlops_platform.tracking.repository import series
from mlops_platform.tracking.repository.metrics import key_ids
from mlops_platform.tracking.repository.segments import SETTLED, TAIL, Covered, covered
from mlops_platform.tracking.repository.series import Extent
from mlops_platform.tracking.service.segments import WORTHWHILE, SegmentBuilder

MAX_ANSWERED = 250_000
"""Points of one answer, over all of its series."""
READ_AT_ONCE = 200_000
"""Blocks, and exact points after the last segment, that may be in memory at once: some tens of megabytes."""


async def read_series(
    session: ReadSession, principal: Principal, asked: SeriesRequest, builder: SegmentBuilder
) -> list[dict[str, Any]]:
    """The series that exist, in the order of the request, as `contracts.tracking_metrics.Series` describes them."""
    keys = [read_key(key, f"keys[{number}]") for number, key in enumerate(dict.fromkeys(asked.keys))]
    ids = await key_ids(session, principal, keys)
    extents = await series.extents(session, principal, list(dict.fromkeys(asked.runs)), list(ids.values()))
    _check_size(extents, asked.max_points)
    by_time = asked.x is not SeriesX.STEP
    short = [extent for extent in extents if extent.points <= asked.max_points]
    long = [extent for extent in extents if extent.points > asked.max_points]
    wanted = asked.max_points * (PRESELECTED if asked.method is SeriesMethod.LTTB else 1)
    parts = buckets(wanted, has_nan=any(extent.has_nan for extent in long))
    by_segments, others = await _by_segments(session, long, parts, builder, by_time=by_time)
    found = await series.whole(session, short, by_time=by_time)
    found += by_segments + await series.reduced(session, others, parts, by_time=by_time)
    places = {(run_id, ids.get(key)): number for number, (run_id, key) in enumerate(_pairs(asked.runs, keys))}
    found.sort(key=lambda each: places[each[0].run_id, each[0].key_id])
    names = {number: key for key, number in ids.items()}
    return await asyncio.to_thread(_answer, found, names, asked)


async def _by_segments(
    session: ReadSession, long: Sequence[Extent], parts: int, builder: SegmentBuilder, *, by_time: bool
) -> tuple[list[tuple[Extent, Columns]], list[Extent]]:
    """The series that segments stand for, reduced, and those that have to be read; asks to build what was missing."""
    worthwhile = [extent for extent in long if extent.points >= max(WORTHWHILE, parts * BLOCK)]
    if not worthwhile:
        return [], list(long)
    drawn: list[tuple[Extent, Columns]] = []
    tails: dict[int, int] = {}
    for few in _portions(worthwhile):
        found = await covered(session, [(extent.run_id, extent.key_id) for extent in few])
        true = [(extent, each) for extent, each in zip(few, found, strict=True) if each is not None and each.is_true]
        tails |= {id(extent): len(each.tail) for extent, each in true}
        drawn += await asyncio.to_thread(_drawn, true, parts, by_time=by_time)
    builder.want(
        (extent.run_id, extent.key_id) for extent in worthwhile if tails.get(id(extent), WORTHWHILE) >= 2 * SETTLED
    )
    return drawn, [extent for extent in long if id(extent) not in tails]


def _portions(extents: Sequence[Extent]) -> Iterator[list[Extent]]:
    """A few series at a time: the segments of thousands would not fit into memory at once."""
    portion: list[Extent] = []
    read = 0
    for extent in extents:
        most = extent.points // BLOCK + TAIL
        if portion and read + most > READ_AT_ONCE:
            yield portion
            portion, read = [], 0
        portion.append(extent)
        read += most
    if portion:
        yield portion


def _drawn(true: Sequence[tuple[Extent, Covered]], parts: int, *, by_time: bool) -> list[tuple[Extent, Columns]]:
    return [
        (extent, reduced(unpacked(each.segments), each.tail, each.last, parts, by_time=by_time)) for extent, each in true
    ]


def _pairs(runs: Sequence[str], keys: Sequence[str]) -> list[tuple[str, str]]:
    return [(run_id, key) for run_id in dict.fromkeys(runs) for key in keys]


def _check_size(extents: Sequence[Extent], max_points: int) -> None:
    points = sum(min(extent.points, max_points) for extent in extents)
    if points > MAX_ANSWERED:
        raise InvalidInput.of(
            "max_points",
            f"{len(extents)} series of so many points are {points} points; one answer holds at most {MAX_ANSWERED}",
            max_points,
            hint=f"Ask for {max(4, MAX_ANSWERED // len(extents))} points of each, or for fewer runs or keys.",
        )


def _answer(
    found: Sequence[tuple[Extent, Columns]], names: Mapping[int, str], asked: SeriesRequest
) -> list[dict[str, Any]]:
    starts: dict[str, int] = {}
    for extent, columns in found:
        first = int(min(columns.x, default=0))
        starts[extent.run_id] = min(starts.get(extent.run_id, first), first)
    answer = []
    for extent, columns in found:
        shown = columns
        if asked.method is SeriesMethod.LTTB:
            shown = largest_triangles(columns, asked.max_points)
        x = [int(value) for value in shown.x]
        if asked.x is SeriesX.RELATIVE_TIME:
            x = [value - starts[extent.run_id] for value in x]
        name, context = key_parts(names[extent.key_id])
        answer.append(
            {
                "run_id": extent.run_id,
                "key": name,
                "context": context_of(context),
                "points": extent.points,
                "is_reduced": extent.points > len(x),
                "x": x,
                "y": spelled(shown.y),
            }
        )
    return answer

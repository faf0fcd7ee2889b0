"""Segments: what a chart needs of many points, in few bytes.

A segment stands for `POINTS` consecutive points of one series (by step, timestamp, value). It holds a record for each
`BLOCK` of them: where the block begins, and its least and greatest point and its first NaN, each with its place. A chart is
drawn from those, and from the exact points after the last segment. See docs/adr/0018-segments-of-series.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_platform.tracking.domain.series import Columns, Floats

BLOCK = 64
POINTS = 1024
NONE = np.iinfo(np.int64).min
"""The time of an extreme that a block does not have: one of NaN alone has no least point."""

RECORD = np.dtype(
    [
        ("first_step", "<i8"),
        ("first_time", "<i8"),
        ("first", "<f8"),
        ("least_step", "<i8"),
        ("least_time", "<i8"),
        ("least", "<f8"),
        ("greatest_step", "<i8"),
        ("greatest_time", "<i8"),
        ("greatest", "<f8"),
        ("nan_step", "<i8"),
        ("nan_time", "<i8"),
    ]
)
"""One block. Times are microseconds since 1970."""

Integers = NDArray[np.int64]
Records = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive points of a series as columns; times are microseconds since 1970."""

    steps: Integers
    times: Integers
    values: Floats

    @classmethod
    def of(cls, steps: Sequence[int], seconds: Sequence[float], values: Sequence[float]) -> "Stretch":
        """From what the database gives; a double holds the microseconds of any century exactly."""
        times = np.rint(np.asarray(seconds, dtype=np.float64) * 1e6).astype(np.int64)
        return cls(np.asarray(steps, dtype=np.int64), times, np.asarray(values, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.steps)


def packed(points: Stretch) -> list[bytes]:
    """The segments of as many points as fill whole ones; what is over is left.

    >>> one = Stretch.of(range(1024), range(1024), range(1024))
    >>> len(packed(one)), len(packed(one)[0]) == POINTS // BLOCK * RECORD.itemsize
    (1, True)
    """
    whole = len(points) // POINTS
    records = blocks(points, whole * POINTS, BLOCK)
    each = POINTS // BLOCK
    return [records[first : first + each].tobytes() for first in range(0, len(records), each)]


def blocks(points: Stretch, count: int, size: int) -> Records:
    """A record for each `size` of the first `count` points; `count` is a multiple of it."""
    steps, times, values = (column[:count].reshape(-1, size) for column in (points.steps, points.times, points.values))
    found = np.zeros(len(values), dtype=RECORD)
    found["first_step"], found["first_time"], found["first"] = steps[:, 0], times[:, 0], values[:, 0]
    missing = np.isnan(values)
    rows = np.arange(len(values))
    for name, extreme in (
        ("least", np.where(missing, np.inf, values).argmin(axis=1)),
        ("greatest", np.where(missing, -np.inf, values).argmax(axis=1)),
    ):
        # In a block of NaN and of infinities alone, the place that was found may hold the NaN.
        chosen = np.where(missing[rows, extreme], missing.argmin(axis=1), extreme)
        has = ~missing[rows, chosen]
        found[f"{name}_step"], found[name] = steps[rows, chosen], values[rows, chosen]
        found[f"{name}_time"] = np.where(has, times[rows, chosen], NONE)
    first_nan = missing.argmax(axis=1)
    found["nan_step"] = steps[rows, first_nan]
    found["nan_time"] = np.where(missing.any(axis=1), times[rows, first_nan], NONE)
    return found


def unpacked(segments: Sequence[bytes]) -> Records:
    """The records of segments, one after the other."""
    return np.frombuffer(b"".join(segments), dtype=RECORD)


def reduced(records: Records, tail: Stretch, last: tuple[int, int, float], parts: int, *, by_time: bool) -> Columns:
    """The first and the last point, and of each part its least, its greatest and a NaN if it has one.

    A part is the blocks that begin in it, so each extreme that is shown is that of all points of its blocks. `x` are
    steps, or milliseconds. `last` is the last point of the series: step, microseconds, value.
    """
    every = np.concatenate([records, blocks(tail, len(tail), 1)])
    begins = every["first_time" if by_time else "first_step"].astype(np.float64)
    low, high = float(begins.min()), float(begins.max())
    part = np.minimum((begins - low) / max(high - low, 1.0) * parts, parts - 1).astype(np.int64)
    found = [_extreme(every, part, "least", 1), _extreme(every, part, "greatest", -1)]
    nan = np.flatnonzero(every["nan_time"] != NONE)
    nan = nan[np.unique(part[nan], return_index=True)[1]]
    found.append((every["nan_step"][nan], every["nan_time"][nan], np.full(len(nan), np.nan)))
    found.append((np.array([last[0]]), np.array([last[1]]), np.array([last[2]])))
    found.append((every["first_step"][:1], every["first_time"][:1], every["first"][:1]))
    steps, times, values = (np.concatenate([each[column] for each in found]) for column in range(3))
    order = np.lexsort((values, steps, times) if by_time else (values, times, steps))
    steps, times, values = steps[order], times[order], values[order]
    # A point may be first and least; NaN is not equal to itself.
    again = (np.diff(steps) == 0) & (np.diff(times) == 0)
    again &= (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    kept = np.concatenate([[True], ~again])
    x = times[kept] // 1000 if by_time else steps[kept]
    return Columns(x.tolist(), values[kept].tolist())


def _extreme(every: Records, part: Integers, name: str, sign: int) -> tuple[Integers, Integers, Floats]:
    """The extreme block of each part, the first of equal ones."""
    has = np.flatnonzero(every[f"{name}_time"] != NONE)
    order = has[np.lexsort((has, sign * every[name][has], part[has]))]
    chosen = order[np.unique(part[order], return_index=True)[1]]
    return every[f"{name}_step"][chosen], every[f"{name}_time"][chosen], every[name][chosen]

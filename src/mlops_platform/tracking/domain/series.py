"""Reducing a series for a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_BUCKETS = 1
PRESELECTED = 4
"""How many times the wanted points the second method chooses from: Donckt et al., MinMaxLTTB, IEEE VIS 2023."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """A series as two columns."""

    x: Sequence[float]
    y: Sequence[float]


def buckets(max_points: int, *, has_nan: bool) -> int:
    """Into how many parts a series is cut, when each keeps its least and greatest value and, if it has one, a NaN.

    The first and the last point are kept besides, and the last lies in a part of its own.
    """
    each = 3 if has_nan else 2
    return max(LEAST_BUCKETS, (max_points - 2 - each) // each)


def largest_triangles(columns: Columns, points: int) -> Columns:
    """At most `points` of a series: the first, the last, and of each part between them the one that shapes the line most.

    Largest-Triangle-Three-Buckets (Steinarsson 2013). What is not finite has no area: it is kept besides, up to half.

    >>> largest_triangles(Columns([0, 1, 2, 3, 4], [0.0, 0.0, 9.0, 0.0, 0.0]), 3).x
    array([0., 2., 4.])
    """
    x, y = np.asarray(columns.x, dtype=np.float64), np.asarray(columns.y, dtype=np.float64)
    if len(x) <= points:
        return columns
    finite = np.flatnonzero(np.isfinite(y))
    others = np.flatnonzero(~np.isfinite(y))
    if len(others) > points // 2:
        others = others[np.linspace(0, len(others) - 1, points // 2).astype(np.int64)]
    chosen = finite[_chosen(x[finite], y[finite], points - len(others))]
    kept = np.sort(np.concatenate([chosen, others]))
    return Columns(x[kept], y[kept])


def _chosen(x: Floats, y: Floats, points: int) -> NDArray[np.int64]:
    if len(x) <= points or points < 3:
        return np.arange(len(x))[: max(points, 0)]
    # Beyond this no area is told from another, and none may overflow.
    scale = max(float(np.abs(y).max()), math.ulp(0.0))
    x, y = (x - x[0]) / max(float(x[-1] - x[0]), math.ulp(0.0)), y / scale
    edges = np.linspace(1, len(x) - 1, points - 1).astype(np.int64)
    chosen = np.zeros(points, dtype=np.int64)
    chosen[-1] = len(x) - 1
    for place in range(1, points - 1):
        start, end = edges[place - 1], edges[place]
        after = edges[place + 1] if place + 1 < len(edges) else len(x)
        next_x, next_y = x[end : max(after, end + 1)].mean(), y[end : max(after, end + 1)].mean()
        last = chosen[place - 1]
        areas = np.abs((x[last] - next_x) * (y[start:end] - y[last]) - (x[last] - x[start:end]) * (next_y - y[last]))
        chosen[place] = start + int(areas.argmax()) if len(areas) else start
    return chosen


def spelled(values: Sequence[float]) -> list[Any]:
    """Numbers as the wire has them: NaN and infinities as texts."""
    return [value if math.isfinite(value) else _SPELLED[str(value)] for value in map(float, values)]


_SPELLED = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

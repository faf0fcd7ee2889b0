"""Runs side by side: columns of values, axes for plots, correlations. Pure, and run in a thread: it may take a while."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_platform.contracts.tracking_compare import Axis, ComparedMetric, ComparedParam, ParamCorrelation
from mlops_platform.tracking.domain.params import ParamKind

CUT = 200
"""Texts of parameters are compared in full, and shown up to here."""
_LOG_SPAN = 100.0
_FEWEST = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ParamCells:
    """One parameter as it is kept: the places of the runs that have it, and kind, text and number of each."""

    key: str
    places: Sequence[int]
    kinds: Sequence[str]
    texts: Sequence[str]
    numbers: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class MetricCells:
    """The values of one metric, likewise."""

    key: str
    places: Sequence[int]
    values: Sequence[float | None]


def param_column(cells: ParamCells, runs: int) -> ComparedParam:
    """The values in the order of the runs."""
    values: list[Any] = [None] * runs
    for place, kind, text in zip(cells.places, cells.kinds, cells.texts, strict=True):
        values[place] = _shown(ParamKind(kind), text)
    present = set(cells.places)
    return ComparedParam(key=cells.key, values=values, absent=[place for place in range(runs) if place not in present])


def metric_column(cells: MetricCells, runs: int) -> ComparedMetric:
    """The values in the order of the runs, with their range."""
    values: list[float | None] = [None] * runs
    for place, value in zip(cells.places, cells.values, strict=True):
        values[place] = value
    known = [value for value in values if value is not None and not math.isnan(value)]
    return ComparedMetric(key=cells.key, values=values, min=min(known, default=None), max=max(known, default=None))


def numeric(cells: ParamCells, runs: int) -> Floats | None:
    """The parameter as numbers, NaN where a run lacks it; true and false are 1 and 0. None when some value is a text."""
    column = np.full(runs, np.nan)
    for place, kind, text, number in zip(cells.places, cells.kinds, cells.texts, cells.numbers, strict=True):
        if number is None and kind != ParamKind.BOOL:
            return None
        column[place] = float(text == "true") if number is None else number
    return column


def metric_numbers(cells: MetricCells, runs: int) -> Floats:
    """The metric as numbers; NaN where a run lacks it, or where it is not finite."""
    column = np.full(runs, np.nan)
    for place, value in zip(cells.places, cells.values, strict=True):
        if value is not None and math.isfinite(value):
            column[place] = value
    return column


def codes(cells: ParamCells, runs: int) -> Floats:
    """A parameter for a tree: its numbers, or else the rank of each text; NaN where a run lacks it."""
    numbers = numeric(cells, runs)
    if numbers is not None:
        return numbers
    rank = {text: float(number) for number, text in enumerate(sorted(set(cells.texts)))}
    column = np.full(runs, np.nan)
    for place, text in zip(cells.places, cells.texts, strict=True):
        column[place] = rank[text]
    return column


def number_axis(field: str, column: Floats) -> Axis:
    """The axis of numbers. What is not finite crosses it nowhere."""
    known = column[np.isfinite(column)]
    if not known.size:
        return Axis(field=field, scale="linear", positions=[None] * column.size)
    low, high = float(known.min()), float(known.max())
    is_log = low > 0 and high / low >= _LOG_SPAN
    # Halved, so that the span of two huge numbers of different sign does not overflow.
    scaled = np.log(column) if is_log else column / 2
    start, end = (math.log(low), math.log(high)) if is_log else (low / 2, high / 2)
    places = (scaled - start) / (end - start) if end > start else np.where(np.isfinite(column), 0.5, np.nan)
    positions = [float(place) if math.isfinite(place) else None for place in places]
    return Axis(field=field, scale="log" if is_log else "linear", min=low, max=high, positions=positions)


def category_axis(field: str, cells: ParamCells, runs: int) -> Axis:
    """The axis of texts, in their order."""
    categories = sorted(set(cells.texts))
    step = 1 / (len(categories) - 1) if len(categories) > 1 else 0.0
    place_of = {text: number * step if step else 0.5 for number, text in enumerate(categories)}
    positions: list[float | None] = [None] * runs
    for place, text in zip(cells.places, cells.texts, strict=True):
        positions[place] = place_of[text]
    return Axis(field=field, scale="category", categories=[_cut(text) for text in categories], positions=positions)


def param_axis(cells: ParamCells, runs: int) -> Axis:
    """The axis of a parameter."""
    column = numeric(cells, runs)
    field = f"params.{cells.key}"
    return category_axis(field, cells, runs) if column is None else number_axis(field, column)


def correlations(columns: Mapping[str, Floats], target: Floats) -> list[ParamCorrelation]:
    """Of each numeric parameter with the target, the strongest first."""
    found = [_correlation(key, column, target) for key, column in columns.items()]
    return sorted(found, key=lambda each: (-abs(each.spearman or 0.0), each.key))


def _correlation(key: str, column: Floats, target: Floats) -> ParamCorrelation:
    both = np.isfinite(column) & np.isfinite(target)
    x, y = column[both], target[both]
    return ParamCorrelation(
        key=key, pearson=pearson(x, y), spearman=pearson(ranks(x), ranks(y)), runs=int(np.count_nonzero(both))
    )


def pearson(x: Floats, y: Floats) -> float | None:
    """Pearson's correlation (Pearson 1895); None when fewer than three pairs, or when one side never varies.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    1.0
    """
    if x.size < _FEWEST or x.min() == x.max() or y.min() == y.max():
        return None
    # Scaled first: squares of 1e200 are no floats, and a correlation does not depend on the scale.
    a, b = _standard(x), _standard(y)
    if not (a.any() and b.any()):
        return None
    value = float(np.dot(a, b) / math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b))))
    return max(-1.0, min(1.0, value)) if math.isfinite(value) else None


def ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs, as in Spearman's correlation (Spearman 1904).

    >>> ranks(np.array([10.0, 20.0, 10.0])).tolist()
    [1.5, 3.0, 1.5]
    """
    if not values.size:
        return values
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: Floats = (last - (counts - 1) / 2)[inverse]
    return shared


def _standard(values: Floats) -> Floats:
    scaled = values / np.abs(values).max()
    centred: Floats = scaled - scaled.mean()
    widest = np.abs(centred).max()
    return centred / widest if widest else centred


def _shown(kind: ParamKind, text: str) -> Any:
    match kind:
        case ParamKind.INT:
            return int(text)
        case ParamKind.FLOAT:
            return float(text)
        case ParamKind.BOOL:
            return text == "true"
        case ParamKind.JSON if len(text) <= CUT:
            return json.loads(text)
        case _:
            return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}…"

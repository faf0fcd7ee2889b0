"""The use case that lays runs side by side. It only reads, and decides what is read."""

import asyncio
from collections.abc import Sequence
from typing import Any

from mlops_platform.contracts.tracking_compare import (
    MAX_COMPARED_KEYS,
    MAX_COMPARED_RUNS,
    Compare,
    ComparedRun,
    Comparison,
    Importance,
    ParamImportance,
)
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.backends.forest import Forest, Weighed
from mlops_platform.tracking.domain import comparison as rules
from mlops_platform.tracking.domain.comparison import Floats, MetricCells, ParamCells
from mlops_platform.tracking.errors import MetricNotFound, RunNotFound, TooManyRuns
from mlops_platform.tracking.repository.compare import Comparing
from mlops_platform.tracking.repository.experiments import ExperimentReader
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.repository.search import find
from mlops_platform.tracking.service.searching import read_search

_FEWEST_RUNS = 10


class _Read:
    """What was read, before anything is computed of it."""

    def __init__(self, rows: Sequence[Record], baseline: str | None, equal_params: int) -> None:
        self.rows = rows
        self.baseline = baseline
        self.equal_params = equal_params
        self.params: list[ParamCells] = []
        self.omitted_params = 0
        self.metrics: list[MetricCells] = []
        self.omitted_metrics = 0
        self.target: MetricCells | None = None


async def compare(database: Database, principal: Principal, asked: Compare, forest: Forest) -> bytes:
    """The comparison, as the JSON that goes out: a table of 200,000 values is not written on the event loop either."""
    if asked.importance:
        if asked.target is None:
            raise InvalidInput.of("target", "name the metric for which parameters are important")
        forest.require()
    # The connection is given back before anything is computed.
    async with database.read() as session:
        read = await _read(session, principal, asked)
    weighed = None
    if asked.importance and read.target is not None:
        weighed = await _importance(read, read.target, forest)
    return await asyncio.to_thread(_written, read, weighed)


async def _read(session: ReadSession, principal: Principal, asked: Compare) -> _Read:
    ids = await _wanted(session, principal, asked)
    rows = await _visible(session, principal, ids)
    found = Comparing(session, principal, ids)
    differing, equal = await found.differing(asked.params)
    read = _Read(rows, await _baseline(session, principal, asked, rows), equal)
    shown = differing[:MAX_COMPARED_KEYS]
    read.params = await found.params(shown) if shown else []
    read.omitted_params = len(differing) - len(shown)
    read.metrics, read.omitted_metrics = await found.metrics(asked.metrics, asked.summary)
    if asked.target is not None:
        targets, _ = await found.metrics([asked.target], asked.summary)
        if not targets:
            raise MetricNotFound(f"None of these runs has the metric {asked.target!r}.")
        read.target = targets[0]
    return read


async def _wanted(session: ReadSession, principal: Principal, asked: Compare) -> list[str]:
    matching = asked.search
    if (asked.run_ids is None) == (matching is None):
        raise InvalidInput.of("run_ids", "give either run_ids or a search", asked.run_ids)
    if matching is None:
        return list(dict.fromkeys(asked.run_ids or ()))
    search = await read_search(
        session, principal, matching.filter, experiment_ids=matching.experiment_ids, deleted=matching.deleted
    )
    found = await find(session, principal, search, limit=MAX_COMPARED_RUNS + 1)
    if len(found) > MAX_COMPARED_RUNS:
        raise TooManyRuns(
            f"The search finds more than {MAX_COMPARED_RUNS} runs, the most that are compared at once.",
            hint="Narrow the filter.",
        )
    return [place.run_id for place in found]


async def _visible(session: ReadSession, principal: Principal, ids: Sequence[str]) -> Sequence[Record]:
    """The runs, in their order; one that is not the caller's to read is one that is not there."""
    rows = await RunReader(session, principal).readable_runs(ids)
    if len(rows) < len(ids):
        known = {row.id for row in rows}
        raise RunNotFound.of(next(run_id for run_id in ids if run_id not in known))
    return rows


async def _baseline(session: ReadSession, principal: Principal, asked: Compare, rows: Sequence[Record]) -> str | None:
    """The run that was named, or the pinned one of the only experiment, if it is among these."""
    ids = {row.id for row in rows}
    if asked.baseline_run_id is not None:
        if asked.baseline_run_id not in ids:
            raise InvalidInput.of("baseline_run_id", "is none of the compared runs", asked.baseline_run_id)
        return asked.baseline_run_id
    experiments = {row.experiment_id for row in rows}
    if len(experiments) != 1:
        return None
    row = await ExperimentReader(session, principal).experiment(experiments.pop())
    return str(row.baseline_run_id) if row is not None and row.baseline_run_id in ids else None


async def _importance(read: _Read, target: MetricCells, forest: Forest) -> Importance:
    columns, values = await asyncio.to_thread(_features, read, target)
    if len(values) < _FEWEST_RUNS or not columns:
        raise InvalidInput.of(
            "importance",
            f"needs at least {_FEWEST_RUNS} runs with a finite {target.key!r}, and a parameter in which they differ",
            len(values),
        )
    weighed: Weighed = await forest.weigh(columns, values)
    ranked = [
        ParamImportance(
            key=cells.key,
            importance=importance,
            permutation=weighed.permutations[number][0] if number in weighed.permutations else None,
            permutation_std=weighed.permutations[number][1] if number in weighed.permutations else None,
        )
        for number, (cells, importance) in enumerate(zip(read.params, weighed.importances, strict=True))
    ]
    ranked.sort(key=lambda each: (-each.importance, each.key))
    return Importance(score=weighed.score, runs=len(values), params=ranked)


def _features(read: _Read, target: MetricCells) -> tuple[list[list[float]], list[float]]:
    runs = len(read.rows)
    y = rules.metric_numbers(target, runs)
    known = y == y  # noqa: PLR0124  # NaN is not itself: the runs that have the metric
    return [rules.codes(cells, runs)[known].tolist() for cells in read.params], y[known].tolist()


def _written(read: _Read, importance: Importance | None) -> bytes:
    runs = len(read.rows)
    axes = [rules.param_axis(cells, runs) for cells in read.params]
    correlations: list[Any] = []
    if read.target is not None:
        y = rules.metric_numbers(read.target, runs)
        axes.append(rules.number_axis(f"metrics.{read.target.key}", y))
        numbers: dict[str, Floats | None] = {cells.key: rules.numeric(cells, runs) for cells in read.params}
        correlations = rules.correlations({key: column for key, column in numbers.items() if column is not None}, y)
    found = Comparison(
        runs=[_run(row) for row in read.rows],
        baseline_run_id=read.baseline,
        params=[rules.param_column(cells, runs) for cells in read.params],
        equal_params=read.equal_params,
        omitted_params=read.omitted_params,
        metrics=[rules.metric_column(cells, runs) for cells in read.metrics],
        omitted_metrics=read.omitted_metrics,
        axes=axes,
        correlations=correlations,
        importance=importance,
    )
    return found.model_dump_json().encode()


def _run(row: Record) -> ComparedRun:
    has_ended = row.start_time is not None and row.end_time is not None
    return ComparedRun(
        id=row.id,
        experiment_id=row.experiment_id,
        run_name=row.name,
        status=row.status,
        group=row.group_name,
        start_time=row.start_time,
        duration_seconds=(row.end_time - row.start_time).total_seconds() if has_ended else None,
    )

"""Outcomes and client-side exposures: checked against their test, written in one statement, safe to send again."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from mlops_platform.ab_testing.domain import lifecycle
from mlops_platform.ab_testing.domain.definition import Definition
from mlops_platform.ab_testing.errors import ABTestNotFound, NotRecording
from mlops_platform.ab_testing.repository import records
from mlops_platform.ab_testing.repository.definitions import ABTestRepository
from mlops_platform.ab_testing.repository.records import ExposureRow, OutcomeRow
from mlops_platform.contracts.ab_testing import (
    MAX_METRICS,
    ExposureCreate,
    Goal,
    MetricKind,
    OutcomeCreate,
    OutcomeMetric,
    Recorded,
)
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork

FUTURE = timedelta(hours=1)
"""How far a client's clock may be ahead."""


class Recording:
    """Takes data for one test. Neither audited nor told as events: there may be millions of them."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._tests = ABTestRepository(work.session, work.principal)

    async def outcomes(self, name: str, batch: Sequence[OutcomeCreate]) -> Recorded:
        """Record a batch of outcomes; those that were recorded before change nothing."""
        test = await self._recording_test(name)
        metrics = await self._metrics(test, batch)
        now = self._work.clock.now()
        rows = [_outcome(i, item, metrics[item.metric], now) for i, item in enumerate(batch)]
        recorded = await records.put_outcomes(self._work.session, test, rows, now)
        return Recorded(recorded=recorded, duplicates=len(batch) - recorded)

    async def exposures(self, name: str, batch: Sequence[ExposureCreate]) -> Recorded:
        """Record exposures of units that a client has assigned by itself."""
        test = await self._recording_test(name)
        now = self._work.clock.now()
        rows = records.merged(_exposure(i, item, test, now) for i, item in enumerate(batch))
        recorded = await records.put_exposures(self._work.session, rows)
        return Recorded(recorded=recorded, duplicates=len(batch) - recorded)

    async def _recording_test(self, name: str) -> Definition:
        test = await self._tests.test(name)
        if test is None:
            raise ABTestNotFound.named(name)
        if test.status not in lifecycle.RECORDING:
            raise NotRecording(
                f"The test {name!r} is {test.status} and takes no data.", hint="Start it, or send to a running test."
            )
        return test

    async def _metrics(self, test: Definition, batch: Sequence[OutcomeCreate]) -> dict[str, OutcomeMetric]:
        """The metrics by name. A test made without metrics learns them from its outcomes."""
        known = await self._known_metrics(test)
        unknown = {item.metric: (i, item) for i, item in reversed(list(enumerate(batch))) if item.metric not in known}
        if not unknown:
            return known
        if not test.has_open_metrics:
            i, item = min(unknown.values(), key=lambda pair: pair[0])
            raise InvalidInput.of(
                f"{i}.metric",
                f"is not a metric of the test {test.name!r}, which has {', '.join(sorted(known))}",
                item.metric,
                hint="Add it with PATCH /api/experiments/{name}.",
            )
        if len(known) + len(unknown) > MAX_METRICS:
            raise InvalidInput.of("metric", f"would be one of more than {MAX_METRICS} metrics of this test", min(unknown))
        learned = [_learned(item) for _, item in unknown.values()]
        await self._tests.declare_metrics(test, learned)
        return await self._known_metrics(test)

    async def _known_metrics(self, test: Definition) -> dict[str, OutcomeMetric]:
        return {metric.name: metric for metric in await self._tests.metrics(test.id)}


def _learned(item: OutcomeCreate) -> OutcomeMetric:
    kind = MetricKind.PROPORTION if isinstance(item.value, bool) else MetricKind.MEAN
    return OutcomeMetric(name=item.metric, kind=kind, goal=Goal.INCREASE, is_primary=False)


def _outcome(i: int, item: OutcomeCreate, metric: OutcomeMetric, now: datetime) -> OutcomeRow:
    value = float(item.value)
    if metric.kind is MetricKind.PROPORTION and value not in {0.0, 1.0}:
        raise InvalidInput.of(f"{i}.value", f"must be 0, 1, true or false: {metric.name!r} is a proportion", value)
    if metric.kind is MetricKind.COUNT and value < 0:
        raise InvalidInput.of(f"{i}.value", f"must not be negative: {metric.name!r} is a count", value)
    return OutcomeRow(_identity(item), item.unit_id, item.metric, value, _moment(i, item.timestamp, now))


def _exposure(i: int, item: ExposureCreate, test: Definition, now: datetime) -> ExposureRow:
    position = test.position(item.variant)
    if position is None:
        names = ", ".join(arm.name for arm in test.arms)
        raise InvalidInput.of(f"{i}.variant", f"must be one of the variants: {names}", item.variant)
    version = item.allocation_version or test.allocation_version
    if version > test.allocation_version:
        raise InvalidInput.of(
            f"{i}.allocation_version", f"must be at most {test.allocation_version}, the current one", version
        )
    moment = _moment(i, item.timestamp, now)
    return ExposureRow(test.project_id, test.id, item.unit_id, position, version, moment, moment)


def _moment(i: int, timestamp: datetime | None, now: datetime) -> datetime:
    if timestamp is not None and timestamp > now + FUTURE:
        raise InvalidInput.of(f"{i}.timestamp", "must not lie in the future", timestamp.isoformat())
    return timestamp or now


def _identity(item: OutcomeCreate) -> str:
    """What makes an outcome the same when it is sent again, as an id. Without anything to go by it is always new."""
    if item.outcome_id is not None:
        parts: list[str] = ["id", item.outcome_id]
    elif item.timestamp is not None:
        parts = ["at", item.unit_id, item.metric, item.timestamp.isoformat()]
    else:
        return new_id()
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]

"""What a test is, and what may change about it in which state."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mlops_platform.ab_testing.domain import lifecycle
from mlops_platform.ab_testing.domain.assignment import Allocation, allocate, reallocate, weights_problem
from mlops_platform.ab_testing.errors import IllegalTransition
from mlops_platform.contracts.ab_testing import (
    MAX_VARIANTS,
    ABTest,
    ABTestCreate,
    ABTestStatus,
    OutcomeMetric,
    OutcomeMetricCreate,
    Variant,
    VariantCreate,
    VariantWeight,
)
from mlops_platform.core.errors import InvalidInput

_REGISTRY_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}/[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
DEFAULT_CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant as it is kept. Its position among the arms of its test never changes."""

    name: str
    weight: float
    model_version: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A test as it is kept."""

    id: str
    project_id: str
    name: str
    description: str
    status: ABTestStatus
    unit_type: str
    salt: str
    control: str
    arms: tuple[Arm, ...]
    traffic_share: float
    allocation_version: int
    allocation: Allocation
    has_open_metrics: bool
    winner: str | None
    note: str
    created_by: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None

    def position(self, variant: str) -> int | None:
        """Where a variant stands, by name."""
        return next((i for i, arm in enumerate(self.arms) if arm.name == variant), None)

    def fallback(self) -> Arm:
        """Whose model version everyone gets when the test does not split."""
        name = self.winner or self.control
        return next(arm for arm in self.arms if arm.name == name)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a new test gets from its surroundings."""

    id: str
    project_id: str
    salt: str
    created_by: str
    now: datetime


def define(body: ABTestCreate, origin: Origin) -> Definition:
    """A new test, or `InvalidInput` naming what is wrong."""
    names = [variant.name for variant in body.variants]
    _check_unique("variants", names)
    _check_weights(body.variants)
    check_metrics(body.metrics)
    if body.status not in lifecycle.STARTABLE:
        raise InvalidInput.of("status", "must be draft or running for a new test", body.status.value)
    control = body.control or (DEFAULT_CONTROL if DEFAULT_CONTROL in names else names[0])
    if control not in names:
        raise InvalidInput.of("control", f"must be one of the variants: {', '.join(names)}", control)
    return Definition(
        id=origin.id,
        project_id=origin.project_id,
        name=body.name,
        description=body.description,
        status=body.status,
        unit_type=body.unit_type,
        salt=origin.salt,
        control=control,
        arms=tuple(Arm(variant.name, variant.weight, variant.model_version) for variant in body.variants),
        traffic_share=body.traffic_share,
        allocation_version=1,
        allocation=allocate([variant.weight for variant in body.variants]),
        has_open_metrics=not body.metrics,
        winner=None,
        note="",
        created_by=origin.created_by,
        created_at=origin.now,
        updated_at=origin.now,
        started_at=origin.now if body.status is ABTestStatus.RUNNING else None,
        stopped_at=None,
    )


def reweigh(test: Definition, variants: Sequence[VariantWeight] | None, traffic_share: float | None) -> Definition:
    """The test with new weights and traffic share, and the next allocation when anything of that changed.

    Every variant must be named; new ones come last. Only a draft may change a variant's model version: later, outcomes of
    two models would be counted as one.
    """
    if test.status in {ABTestStatus.STOPPED, ABTestStatus.ARCHIVED}:
        raise IllegalTransition(
            f"The test {test.name!r} is {test.status}: its weights and traffic share are history.",
            hint="Make a new test.",
        )
    arms = test.arms if variants is None else _arms(test, variants)
    share = test.traffic_share if traffic_share is None else traffic_share
    weights = [arm.weight for arm in arms]
    if share == test.traffic_share and weights == [arm.weight for arm in test.arms]:
        return replace(test, arms=arms)
    return replace(
        test,
        arms=arms,
        traffic_share=share,
        allocation=reallocate(test.allocation, weights),
        allocation_version=test.allocation_version + 1,
    )


def move(test: Definition, to: ABTestStatus, now: datetime) -> Definition:
    """The test in its next state, or `IllegalTransition`."""
    if not lifecycle.may_move(test.status, to):
        allowed = ", ".join(sorted(lifecycle.TRANSITIONS[test.status])) or "nothing else"
        raise IllegalTransition(
            f"The test {test.name!r} is {test.status} and cannot become {to}.", hint=f"From here it can become: {allowed}."
        )
    started = test.started_at or now if to is ABTestStatus.RUNNING else test.started_at
    stopped = now if to is ABTestStatus.STOPPED else test.stopped_at
    return replace(test, status=to, started_at=started, stopped_at=stopped, updated_at=now)


def conclude(test: Definition, winner: str | None, note: str, now: datetime) -> Definition:
    """The stopped test, with its winner when there is one. The winner of a stopped test is given once."""
    if winner is not None and test.position(winner) is None:
        raise InvalidInput.of("winner", f"must be one of the variants: {', '.join(a.name for a in test.arms)}", winner)
    is_late_winner = test.status is ABTestStatus.STOPPED and test.winner is None and winner is not None
    stopped = replace(test, updated_at=now) if is_late_winner else move(test, ABTestStatus.STOPPED, now)
    return replace(stopped, winner=winner, note=note or test.note)


def check_metrics(metrics: Sequence[OutcomeMetricCreate]) -> None:
    """Refuse a metric that is named twice, and two primary ones."""
    _check_unique("metrics", [metric.name for metric in metrics])
    primary = [metric.name for metric in metrics if metric.is_primary]
    if len(primary) > 1:
        raise InvalidInput.of("metrics", f"only one metric can be primary, not {', '.join(primary)}", primary)


def registry_version(model_version: str) -> str | None:
    """The `model/version` of the registry that this text names, if it does.

    >>> registry_version("churn/1.2.0"), registry_version("v1.0"), registry_version("churn@champion")
    ('churn/1.2.0', None, None)
    """
    return model_version if _REGISTRY_VERSION.fullmatch(model_version) else None


def to_contract(test: Definition, metrics: Iterable[OutcomeMetric]) -> ABTest:
    """The test as the wire has it."""
    return ABTest(
        id=test.id,
        name=test.name,
        description=test.description,
        status=test.status,
        unit_type=test.unit_type,
        traffic_share=test.traffic_share,
        allocation_version=test.allocation_version,
        variants=[
            Variant(name=arm.name, weight=arm.weight, model_version=arm.model_version, is_control=arm.name == test.control)
            for arm in test.arms
        ],
        metrics=list(metrics),
        winner=test.winner,
        note=test.note,
        created_by=test.created_by,
        created_at=test.created_at,
        updated_at=test.updated_at,
        started_at=test.started_at,
        stopped_at=test.stopped_at,
    )


def _arms(test: Definition, variants: Sequence[VariantWeight]) -> tuple[Arm, ...]:
    given = {variant.name: variant for variant in variants}
    _check_unique("variants", [variant.name for variant in variants])
    missing = [arm.name for arm in test.arms if arm.name not in given]
    if missing:
        raise InvalidInput.of(
            "variants",
            f"must name every variant; {', '.join(missing)} is missing",
            sorted(given),
            hint="A weight of 0 sends a variant no more units.",
        )
    _check_weights(variants, zero_allowed=test.status is not ABTestStatus.DRAFT)
    known = [_changed(test, arm, given.pop(arm.name)) for arm in test.arms]
    added = [_added(variant) for variant in variants if variant.name in given]
    if len(known) + len(added) > MAX_VARIANTS:
        raise InvalidInput.of("variants", f"must be at most {MAX_VARIANTS}", len(known) + len(added))
    return (*known, *added)


def _changed(test: Definition, arm: Arm, change: VariantWeight) -> Arm:
    version = change.model_version or arm.model_version
    if version != arm.model_version and test.status is not ABTestStatus.DRAFT:
        raise IllegalTransition(
            f"The variant {arm.name!r} serves {arm.model_version!r}, and the test is {test.status}: outcomes of two models "
            "would be counted as one.",
            hint="Add a variant with the new model version, or make a new test.",
        )
    return replace(arm, weight=change.weight, model_version=version)


def _added(variant: VariantWeight) -> Arm:
    if variant.model_version is None:
        raise InvalidInput.of("variants", f"the new variant {variant.name!r} needs a model_version")
    return Arm(variant.name, variant.weight, variant.model_version)


def _check_weights(variants: Sequence[VariantCreate] | Sequence[VariantWeight], *, zero_allowed: bool = False) -> None:
    weights = [variant.weight for variant in variants]
    problem = weights_problem(weights, zero_allowed=zero_allowed)
    if problem:
        raise InvalidInput.of("variants", problem, weights)


def _check_unique(field: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidInput.of(field, f"the name {repeated[0]!r} is there twice", repeated[0])

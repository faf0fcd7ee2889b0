"""What a sweep makes of its trials: where each stands, which are best, how it went, and when it is over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.contracts.tracking_metrics import MetricGoal
from mlops_platform.contracts.tracking_sweeps import (
    Objective,
    Pruner,
    PrunerKind,
    SweepCreate,
    SweepMethod,
    TrialOutcome,
    TrialState,
)
from mlops_platform.core.errors import InvalidInput
from mlops_platform.tracking.domain.keys import key_parts, read_key
from mlops_platform.tracking.domain.points import KEY
from mlops_platform.tracking.domain.spaces import Space

DEFAULT_TRIALS = 100
MAX_REMEMBERED = 200_000
REMEMBERING = frozenset({SweepMethod.TPE})
MAX_BEST = 1000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trial, as its run and its row say."""

    number: int
    slot: int
    run_id: str
    state: TrialState
    values: tuple[float | None, ...]


def state_of(status: str, outcome: str | None, values: Sequence[float | None]) -> TrialState:
    """Where a trial stands, from its run. What was told counts; a run that only ended is judged by what it logged.

    A complete trial has a number for each objective: whose metric is gone or NaN has failed.
    """
    if outcome == TrialOutcome.PRUNED:
        return TrialState.PRUNED
    if outcome == TrialOutcome.FAILED:
        return TrialState.FAILED
    if outcome is None and status in {RunStatus.RUNNING, RunStatus.SCHEDULED}:
        return TrialState.RUNNING
    if outcome is None and status in {RunStatus.FAILED, RunStatus.KILLED}:
        return TrialState.LOST
    is_whole = all(value is not None and not math.isnan(value) for value in values)
    return TrialState.COMPLETE if is_whole else TrialState.FAILED


def check_sweep(new: SweepCreate, space: Space) -> None:
    """What of a new sweep does not go together."""
    names = [read_key(objective.metric, "objectives.metric") for objective in new.objectives]
    for name in names:
        if KEY.fullmatch(key_parts(name)[0]) is None:
            raise InvalidInput.of("objectives.metric", "must have 1 to 250 characters and no control characters", name[:60])
    if len(set(names)) < len(names):
        raise InvalidInput.of("objectives", "name a metric twice", names)
    if len(names) > 1 and new.pruner.kind is not PrunerKind.NONE:
        raise InvalidInput.of("pruner", "compares values of one objective, and this sweep has several", new.pruner.kind)
    check_limit(new.method, new.max_trials, space)
    _check_pruner(new.pruner)


def check_limit(method: SweepMethod, max_trials: int | None, space: Space) -> None:
    """A method that remembers reads every parameter of every trial for each new one: that has a bound."""
    if method in REMEMBERING and (max_trials or DEFAULT_TRIALS) * len(space) > MAX_REMEMBERED:
        raise InvalidInput.of(
            "max_trials",
            f"times {len(space)} parameters is more than {MAX_REMEMBERED}, the most that {method} looks back on",
            max_trials,
            hint="Ask for fewer trials, or use random or qmc, which remember nothing.",
        )


def _check_pruner(pruner: Pruner) -> None:
    if pruner.kind is PrunerKind.HYPERBAND and pruner.max_resource is None:
        raise InvalidInput.of("pruner.max_resource", "hyperband needs it: the step at which a whole training ends")
    if pruner.max_resource is not None and pruner.max_resource < pruner.min_resource:
        raise InvalidInput.of("pruner.max_resource", "is below min_resource", pruner.max_resource)


def reaches(objective: Objective, value: float | None) -> bool:
    """Whether a value is as good as the sweep wants."""
    if objective.target is None or value is None:
        return False
    return value <= objective.target if objective.goal is MetricGoal.MINIMIZE else value >= objective.target


def target_reached(attempts: Sequence[Attempt], objectives: Sequence[Objective]) -> str | None:
    """Why the target ends the sweep: one complete trial reaches the target of each objective that has one."""
    wanted = [(number, objective) for number, objective in enumerate(objectives) if objective.target is not None]
    if not wanted:
        return None
    for attempt in attempts:
        if attempt.state is TrialState.COMPLETE and all(reaches(it, attempt.values[number]) for number, it in wanted):
            said = ", ".join(f"{objective.metric} = {objective.target:g}" for _, objective in wanted)
            return f"Trial {attempt.number} reached the target {said}."
    return None


def best_of(attempts: Sequence[Attempt], objectives: Sequence[Objective]) -> list[Attempt]:
    """The best complete trial; of several objectives all that no other one beats, in the order of the first."""
    complete = [attempt for attempt in attempts if attempt.state is TrialState.COMPLETE]
    ranked = sorted(complete, key=lambda attempt: (_losses(attempt, objectives), attempt.number))
    if len(objectives) == 1:
        return ranked[:1]
    front: list[Attempt] = []
    kept: list[tuple[float, ...]] = []
    for attempt in ranked:
        losses = _losses(attempt, objectives)
        # Sorted: whoever beats this one stands before it.
        if not any(_beats(other, losses) for other in kept):
            front.append(attempt)
            kept.append(losses)
        if len(front) == MAX_BEST:
            break
    return front


def history(
    attempts: Sequence[Attempt], objectives: Sequence[Objective], number: int
) -> list[tuple[Attempt, float, float]]:
    """Each complete trial with its value, and the best value until then, of one objective."""
    goal = objectives[number].goal
    found: list[tuple[Attempt, float, float]] = []
    best: float | None = None
    for attempt in attempts:
        value = attempt.values[number]
        if attempt.state is not TrialState.COMPLETE or value is None:
            continue
        best = value if best is None else min(best, value) if goal is MetricGoal.MINIMIZE else max(best, value)
        found.append((attempt, value, best))
    return found


def _losses(attempt: Attempt, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Its values, turned so that less is better."""
    return tuple(
        math.inf if value is None else value if objective.goal is MetricGoal.MINIMIZE else -value
        for value, objective in zip(attempt.values, objectives, strict=True)
    )


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True)) and tuple(one) != tuple(other)

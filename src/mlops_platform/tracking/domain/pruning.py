"""Whether a trial is given up early. The rules are those of Optuna's pruners, which the tests hold against them.

They are written out here since they are asked after every epoch of every worker, where neither a process nor a rebuilt
study has a place: `percentile` needs the values of other trials at one step, the halving ones at one step a rung.

- Golovin et al. 2017, "Google Vizier" (the median rule); Li et al. 2018, "A System for Massively Parallel Hyperparameter
  Tuning" (ASHA, `asha`); Li et al. 2017, "Hyperband" (brackets, `hyperband`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from mlops_platform.contracts.tracking_metrics import MetricGoal
from mlops_platform.contracts.tracking_sweeps import Pruner, PrunerKind

LARGEST_STEP = 2**62


@dataclass(frozen=True, slots=True)
class Reported:
    """What a trial has reported: its last step, the step before, and its best value (None when all were NaN)."""

    step: int
    previous_step: int | None
    value: float
    best: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to give up, and why."""

    reason: str
    should_prune: bool = False


def is_judged(pruner: Pruner, reported: Reported) -> bool:
    """Whether `percentile` looks at this step: the first that was reported in each interval after the warm-up."""
    if reported.step < pruner.warmup_steps:
        return False
    since = (reported.step - pruner.warmup_steps) // pruner.interval_steps * pruner.interval_steps + pruner.warmup_steps
    return (-1 if reported.previous_step is None else reported.previous_step) < since


def by_percentile(
    pruner: Pruner, goal: MetricGoal, reported: Reported, others: Sequence[float], *, complete: int
) -> Decision:
    """Give up when the best value so far is worse than the percentile of `others`: complete trials, at the same step."""
    if complete == 0 or complete < pruner.startup_trials:
        return Decision(f"{complete} of {max(pruner.startup_trials, 1)} trials are complete.")
    if reported.best is None:
        return Decision("Everything that it reported is NaN.", should_prune=True)
    known = sorted(value for value in others if not math.isnan(value))
    if len(others) < pruner.least_trials or not known:
        return Decision(f"{len(others)} complete trials reported step {reported.step}.")
    share = 50.0 if pruner.kind is PrunerKind.MEDIAN else pruner.percentile
    bar = _percentile(known, share if goal is MetricGoal.MINIMIZE else 100.0 - share)
    is_worse = reported.best > bar if goal is MetricGoal.MINIMIZE else reported.best < bar
    said = (
        f"Its best value {reported.best:g} against {bar:g}, percentile {share:g} of {len(known)} at step {reported.step}."
    )
    return Decision(said, should_prune=is_worse)


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the closest ranks.

    >>> _percentile([1.0, 2.0, 4.0], 75)
    3.0
    """
    place = share / 100 * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    if low == high:
        return low
    part = place - math.floor(place)
    # From the nearer end, as numpy does: the same bits, so the same decision.
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def brackets(pruner: Pruner) -> int:
    """How many brackets Hyperband has; one for `asha`."""
    if pruner.kind is not PrunerKind.HYPERBAND or pruner.max_resource is None:
        return 1
    count = 1
    while pruner.min_resource * pruner.reduction_factor**count <= pruner.max_resource:
        count += 1
    return count


def bracket_of(pruner: Pruner, sweep_id: str, slot: int) -> int:
    """The bracket of a trial: drawn by the share that the paper gives each, always the same for the same trial."""
    count = brackets(pruner)
    shares = [
        math.ceil(count * pruner.reduction_factor ** (count - 1 - number) / (count - number)) for number in range(count)
    ]
    place = crc32(f"{sweep_id}_{slot}".encode()) % sum(shares)
    for number, share in enumerate(shares):
        place -= share
        if place < 0:
            return number
    raise AssertionError(place)


def rung_steps(pruner: Pruner, bracket: int, step: int, since: int | None) -> list[int]:
    """The steps of the rungs that were reached after the step `since`, up to `step`.

    >>> rung_steps(Pruner(kind=PrunerKind.ASHA, min_resource=1, reduction_factor=3), 0, 9, 2)
    [3, 9]
    """
    reached = []
    at = pruner.min_resource * pruner.reduction_factor ** (pruner.early_stopping_rate + bracket)
    while at <= min(step, LARGEST_STEP):
        if since is None or at > since:
            reached.append(at)
        at *= pruner.reduction_factor
    return reached


def by_rung(pruner: Pruner, goal: MetricGoal, value: float, rung_step: int, competing: Sequence[float]) -> Decision:
    """Give up unless the value is among the best `1/reduction_factor` of all that reached the rung; itself included."""
    if math.isnan(value):
        return Decision(f"Its value at step {rung_step} is NaN.", should_prune=True)
    ordered = sorted((each for each in competing if not math.isnan(each)), reverse=goal is MetricGoal.MAXIMIZE)
    # Nobody is suspended: of the first few the best one goes on.
    bar = ordered[max(len(ordered) // pruner.reduction_factor - 1, 0)]
    is_worse = value > bar if goal is MetricGoal.MINIMIZE else value < bar
    return Decision(
        f"Its value {value:g} against {bar:g}, the bar of {len(ordered)} at step {rung_step}.", should_prune=is_worse
    )

"""From counts to answers: what a test's evidence says about each metric and each variant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlops_platform.ab_testing.domain import statistics
from mlops_platform.ab_testing.domain.statistics import Bounds, Sample, Split, TestResult
from mlops_platform.contracts.ab_testing import (
    Comparison,
    Goal,
    Interval,
    MetricKind,
    MetricResult,
    OutcomeMetric,
    ResultWarning,
    SrmCheck,
    VariantSummary,
    Verdict,
)

FEW = 5
"""Below this many expected successes or failures the score test's normal approximation is rough."""


@dataclass(frozen=True, slots=True)
class UnitOutcomes:
    """One metric in one variant: the exposed units, and the aggregates over those of them that have an outcome."""

    exposed: int
    present: Sample


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant's name and its sample for one metric, with the units that the sample must count."""

    variant: str
    sample: Sample

    @property
    def successes(self) -> int:
        return round(self.sample.mean * self.sample.n)


def judge(
    metric: OutcomeMetric,
    arms: Sequence[tuple[str, UnitOutcomes]],
    *,
    control: str,
    confidence: float,
) -> MetricResult:
    """One metric: each variant's summary, and each variant against the control with Holm's correction."""
    samples = [Arm(name, _sample(metric.kind, outcomes)) for name, outcomes in arms]
    base = next(arm for arm in samples if arm.variant == control)
    raw = [_compare(metric, base, arm, confidence) for arm in samples if arm is not base]
    adjusted = statistics.holm([comparison.p_value for comparison in raw])
    return MetricResult(
        metric=metric.name,
        kind=metric.kind,
        goal=metric.goal,
        is_primary=metric.is_primary,
        variants=[_summary(metric.kind, arm, confidence) for arm in samples],
        comparisons=[
            _with_verdict(comparison, p, goal=metric.goal, alpha=1 - confidence)
            for comparison, p in zip(raw, adjusted, strict=True)
        ],
    )


def _sample(kind: MetricKind, outcomes: UnitOutcomes) -> Sample:
    """A unit without an outcome is a 0 for a proportion and a count, and unknown for a mean."""
    if kind is MetricKind.MEAN:
        return outcomes.present
    return statistics.with_zeros(outcomes.exposed, outcomes.present)


def _summary(kind: MetricKind, arm: Arm, confidence: float) -> VariantSummary:
    sample = arm.sample
    if sample.n == 0:
        return VariantSummary(
            variant=arm.variant, n=0, sum=0.0, mean=None, variance=None, mean_interval=None, reason="no units yet"
        )
    if kind is MetricKind.PROPORTION:
        bounds: Bounds | None = statistics.proportion_interval(arm.successes, sample.n, confidence)
    else:
        bounds = statistics.mean_interval(sample, confidence)
    return VariantSummary(
        variant=arm.variant,
        n=sample.n,
        sum=sample.mean * sample.n,
        mean=sample.mean,
        variance=sample.variance if sample.n > 1 else None,
        mean_interval=_interval(bounds),
        reason=None if sample.n > 1 else "one unit has no variance",
    )


def _compare(metric: OutcomeMetric, control: Arm, arm: Arm, confidence: float) -> Comparison:
    if metric.kind is MetricKind.PROPORTION:
        return _compare_proportions(control, arm, confidence)
    return _compare_means(control, arm, confidence)


def _compare_proportions(control: Arm, arm: Arm, confidence: float) -> Comparison:
    sizes = control.sample.n, arm.sample.n
    if min(sizes) == 0:
        return _empty(control, arm, "two_proportion_score", reason="a variant has no units yet")
    successes = control.successes, arm.successes
    result = statistics.two_proportions(successes, sizes)
    critical = statistics.normal_quantile(confidence)
    return _comparison(
        control,
        arm,
        test="two_proportion_score",
        result=result,
        difference=statistics.difference_of_proportions(successes, sizes, confidence),
        lift=statistics.relative_lift_interval(control.sample, arm.sample, critical),
        reason=None if result else "all units have the same value",
    )


def _compare_means(control: Arm, arm: Arm, confidence: float) -> Comparison:
    if min(control.sample.n, arm.sample.n) < 2:
        return _empty(control, arm, "welch_t", reason="each variant needs at least two units")
    result = statistics.welch(control.sample, arm.sample)
    if result is None or result.degrees_of_freedom is None:
        return _comparison(control, arm, test="welch_t", result=None, reason="the values of the units do not vary")
    critical = statistics.t_quantile(confidence, result.degrees_of_freedom)
    return _comparison(
        control,
        arm,
        test="welch_t",
        result=result,
        difference=statistics.difference_of_means(control.sample, arm.sample, critical),
        lift=statistics.relative_lift_interval(control.sample, arm.sample, critical),
    )


def _comparison(
    control: Arm,
    arm: Arm,
    *,
    test: str,
    result: TestResult | None,
    difference: Bounds | None = None,
    lift: Bounds | None = None,
    reason: str | None = None,
) -> Comparison:
    gap = arm.sample.mean - control.sample.mean
    relative = statistics.relative_lift(control.sample, arm.sample)
    if reason is None and relative is None:
        reason = "the control's mean is 0: there is no relative lift"
    elif reason is None and lift is None:
        reason = "the control's mean is not distinct from 0: the relative lift has no bounded interval"
    return _empty(control, arm, test, reason=reason).model_copy(
        update={
            "difference": gap if math.isfinite(gap) else None,
            "difference_interval": _interval(difference),
            "relative_lift": relative,
            "relative_lift_interval": _interval(lift),
            "statistic": result.statistic if result else None,
            "degrees_of_freedom": result.degrees_of_freedom if result else None,
            "p_value": result.p_value if result else None,
        }
    )


def _empty(control: Arm, arm: Arm, test: str, *, reason: str | None) -> Comparison:
    return Comparison(
        variant=arm.variant,
        control=control.variant,
        test=test,
        difference=None,
        difference_interval=None,
        relative_lift=None,
        relative_lift_interval=None,
        statistic=None,
        degrees_of_freedom=None,
        p_value=None,
        p_value_adjusted=None,
        is_significant=None,
        verdict=Verdict.NOT_ENOUGH_DATA,
        reason=reason,
    )


def _with_verdict(comparison: Comparison, p_value: float | None, *, goal: Goal, alpha: float) -> Comparison:
    if p_value is None or comparison.difference is None:
        return comparison
    significant = p_value < alpha
    verdict = Verdict.NO_DIFFERENCE_SHOWN
    if significant:
        verdict = Verdict.BETTER if (comparison.difference > 0) == (goal is Goal.INCREASE) else Verdict.WORSE
    return comparison.model_copy(update={"p_value_adjusted": p_value, "is_significant": significant, "verdict": verdict})


def _interval(bounds: Bounds | None) -> Interval | None:
    return Interval(low=bounds.low, high=bounds.high) if bounds else None


def check_ratio(splits: Sequence[Split]) -> SrmCheck:
    """Whether units fell to the variants as the weights say."""
    result = statistics.sample_ratio(splits)
    if result is None or result.degrees_of_freedom is None:
        return SrmCheck(
            chi_square=None,
            degrees_of_freedom=None,
            p_value=None,
            is_mismatch=None,
            reason=f"each variant needs at least {statistics.SRM_LEAST_EXPECTED:.0f} expected units",
        )
    return SrmCheck(
        chi_square=result.statistic,
        degrees_of_freedom=int(result.degrees_of_freedom),
        p_value=result.p_value,
        is_mismatch=result.p_value < statistics.SRM_ALPHA,
    )


def warnings(
    srm: SrmCheck, metrics: Sequence[MetricResult], *, units: int, crossover_units: int, allocations: int
) -> list[ResultWarning]:
    """What a reader must know before believing the numbers."""
    found: list[ResultWarning] = []
    if srm.is_mismatch:
        found.append(
            ResultWarning(
                code="sample_ratio_mismatch",
                message=f"Units did not fall to the variants as weighted (p = {srm.p_value:.2g}): something loses or adds "
                "units of one variant, and the comparison is not to be trusted until it is found.",
            )
        )
    if crossover_units:
        found.append(
            ResultWarning(
                code="crossover_units",
                message=f"{crossover_units} of {units} units met more than one variant; they count for their first.",
            )
        )
    if allocations > 1:
        found.append(
            ResultWarning(
                code="allocation_changed",
                message="The weights or the traffic share changed during the test: if the metric also changes over time, "
                "the variants' periods differ, and so may their means.",
            )
        )
    if any(_is_small(metric) for metric in metrics):
        found.append(
            ResultWarning(
                code="small_counts",
                message=f"A proportion has fewer than {FEW} successes or failures in a variant: its p-value is rough.",
            )
        )
    return found


def _is_small(metric: MetricResult) -> bool:
    return metric.kind is MetricKind.PROPORTION and any(
        arm.n > 0 and min(arm.sum, arm.n - arm.sum) < FEW for arm in metric.variants
    )

"""Tests and intervals for two groups of units, from their counts, means and variances.

Every function is a pure function of aggregates. What cannot be computed is None, never NaN: the caller says why.
`scipy.special` carries the distributions; `scipy.stats` would carry the same ones at ten times the memory.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlops_platform.ab_testing.domain import distributions


@dataclass(frozen=True, slots=True)
class Sample:
    """Units of one variant: how many, their mean, and the variance with n - 1 in the denominator."""

    n: int
    mean: float
    variance: float

    @property
    def squared_error(self) -> float:
        """The variance of the mean."""
        return self.variance / self.n


@dataclass(frozen=True, slots=True)
class Bounds:
    """A two-sided confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TestResult:
    """A test statistic with its two-sided p-value; `degrees_of_freedom` is None for a normal statistic."""

    statistic: float
    p_value: float
    degrees_of_freedom: float | None = None


def with_zeros(n: int, present: Sample) -> Sample:
    """The sample of `n` units when only those in `present` have a value and all others are 0.

    Chan, Golub, LeVeque (1983), merging with a group whose mean and variance are 0.

    >>> with_zeros(4, Sample(2, 3.0, 2.0))  # 2, 4, 0, 0
    Sample(n=4, mean=1.5, variance=3.6666666666666665)
    """
    if n == 0:
        return Sample(0, 0.0, 0.0)
    mean = present.mean * present.n / n
    squares = present.variance * max(present.n - 1, 0) + present.mean * present.mean * present.n * (n - present.n) / n
    return Sample(n, mean, squares / (n - 1) if n > 1 else 0.0)


def normal_quantile(confidence: float) -> float:
    """The two-sided critical value of the normal distribution.

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    return distributions.normal_quantile((1 + confidence) / 2)


def t_quantile(confidence: float, degrees_of_freedom: float) -> float:
    """The two-sided critical value of Student's distribution.

    >>> round(t_quantile(0.95, 10), 6)
    2.228139
    """
    return distributions.t_quantile(degrees_of_freedom, (1 + confidence) / 2)


def two_proportions(successes: tuple[int, int], sizes: tuple[int, int]) -> TestResult | None:
    """The score test of equal proportions: z with the pooled variance. The second group minus the first.

    None when all units of both groups have the same value. The example is the one in statsmodels' documentation.

    >>> result = two_proportions((12, 5), (99, 83))
    >>> round(result.statistic, 6), round(result.p_value, 6)
    (-1.40783, 0.159181)
    """
    (x1, x2), (n1, n2) = successes, sizes
    pooled = (x1 + x2) / (n1 + n2)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    if error == 0:
        return None
    z = (x2 / n2 - x1 / n1) / error
    return TestResult(z, 2 * distributions.normal_cdf(-abs(z)))


def difference_of_proportions(successes: tuple[int, int], sizes: tuple[int, int], confidence: float) -> Bounds:
    """The score interval of Mee (1984) for the second proportion minus the first.

    It inverts the test above: it leaves out 0 exactly when that test rejects. The example is the first one of Newcombe,
    "Interval estimation for the difference between independent proportions" (1998), method 5.

    >>> bounds = difference_of_proportions((48, 56), (80, 70), 0.95)
    >>> round(bounds.low, 4), round(bounds.high, 4)
    (0.0533, 0.3377)
    """
    (x1, x2), (n1, n2) = successes, sizes
    critical = normal_quantile(confidence)
    observed = x2 / n2 - x1 / n1

    def distance(difference: float) -> float:
        first = _constrained_proportion(successes, sizes, difference)
        second = min(max(first + difference, 0.0), 1.0)
        error = math.sqrt(first * (1 - first) / n1 + second * (1 - second) / n2)
        gap = observed - difference
        return gap / error if error > 0 else math.copysign(math.inf, gap) if gap else 0.0

    return Bounds(
        low=_falling_root(lambda d: distance(d) - critical, -1.0, observed),
        high=_falling_root(lambda d: distance(d) + critical, observed, 1.0),
    )


def _constrained_proportion(successes: tuple[int, int], sizes: tuple[int, int], difference: float) -> float:
    """The first proportion's maximum likelihood estimate, given the difference.

    The closed root of the cubic of Miettinen and Nurminen, "Comparative analysis of two rates" (1985), appendix 1.
    """
    (x1, x2), (n1, n2) = successes, sizes
    n, x, d = n1 + n2, x1 + x2, difference
    a = ((n2 + 2 * n1) * d - n - x) / (3 * n)
    b = ((n1 * d - n - 2 * x1) * d + x) / n
    c = x1 * d * (1 - d) / n
    q = a**3 - a * b / 2 + c / 2
    p = math.copysign(math.sqrt(max(a * a - b / 3, 0.0)), q)
    angle = (math.pi + math.acos(min(max(q / p**3, -1.0), 1.0))) / 3 if p else 0.0
    return min(max(2 * p * math.cos(angle) - a, 0.0, -d), 1.0, 1 - d)


def _falling_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0, by bisection to the precision of a float."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def proportion_interval(successes: int, n: int, confidence: float) -> Bounds:
    """The score interval of Wilson (1927) for one proportion.

    >>> bounds = proportion_interval(81, 263, 0.95)  # Newcombe (1998), one proportion, example a
    >>> round(bounds.low, 4), round(bounds.high, 4)
    (0.2553, 0.3662)
    """
    z2 = normal_quantile(confidence) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and at n successes the exact end is 0 or 1; rounding must not step past it.
    return Bounds(0.0 if successes == 0 else max(centre - half, 0.0), 1.0 if successes == n else min(centre + half, 1.0))


def welch(first: Sample, second: Sample) -> TestResult | None:
    """The unequal-variances t-test of Welch (1947), second minus first. None without variance or with fewer than two units.

    >>> sleep = Sample(10, 0.75, 3.200556), Sample(10, 2.33, 4.009)  # Student (1908)
    >>> result = welch(*sleep)
    >>> round(result.statistic, 4), round(result.degrees_of_freedom, 3), round(result.p_value, 4)
    (1.8608, 17.776, 0.0794)
    """
    if first.n < 2 or second.n < 2:
        return None
    total = first.squared_error + second.squared_error
    if total == 0 or not math.isfinite(total):
        return None
    statistic = (second.mean - first.mean) / math.sqrt(total)
    freedom = welch_degrees_of_freedom(first, second)
    return TestResult(statistic, 2 * distributions.t_cdf(freedom, -abs(statistic)), freedom)


def welch_degrees_of_freedom(first: Sample, second: Sample) -> float:
    """Satterthwaite's (1946) approximation, in shares, so that huge variances do not overflow."""
    total = first.squared_error + second.squared_error
    one, two = first.squared_error / total, second.squared_error / total
    return 1 / (one * one / (first.n - 1) + two * two / (second.n - 1))


def difference_of_means(first: Sample, second: Sample, critical: float) -> Bounds | None:
    """Second minus first, plus and minus `critical` standard errors."""
    half = critical * math.sqrt(first.squared_error + second.squared_error)
    middle = second.mean - first.mean
    return finite_bounds(middle - half, middle + half)


def mean_interval(sample: Sample, confidence: float) -> Bounds | None:
    """Student's interval for one mean; None with fewer than two units."""
    if sample.n < 2:
        return None
    half = t_quantile(confidence, sample.n - 1) * math.sqrt(sample.squared_error)
    return finite_bounds(sample.mean - half, sample.mean + half)


def relative_lift(control: Sample, treatment: Sample) -> float | None:
    """(treatment - control) / |control|; None when the control's mean is 0.

    >>> relative_lift(Sample(10, 2.0, 1.0), Sample(10, 2.5, 1.0))
    0.25
    """
    if control.mean == 0:
        return None
    lift = (treatment.mean - control.mean) / abs(control.mean)
    return lift if math.isfinite(lift) else None


def relative_lift_interval(control: Sample, treatment: Sample, critical: float) -> Bounds | None:
    """The delta method for a ratio of means (Deng, Knoblich, Lu 2018, eq. 2): variance r^2 (seC/mC)^2 + (seT/mC)^2.

    None when the control's mean is not itself distinct from 0: then no bounded interval is right (Fieller 1954).

    >>> bounds = relative_lift_interval(Sample(100, 2.0, 1.0), Sample(100, 2.5, 1.0), 1.959964)
    >>> round(bounds.low, 4), round(bounds.high, 4)
    (0.0931, 0.4069)
    """
    lift = relative_lift(control, treatment)
    control_error = math.sqrt(control.squared_error)
    if lift is None or critical * control_error >= abs(control.mean):
        return None
    ratio = treatment.mean / control.mean
    half = critical * math.hypot(ratio * (control_error / control.mean), math.sqrt(treatment.squared_error) / control.mean)
    return finite_bounds(lift - half, lift + half)


def finite_bounds(low: float, high: float) -> Bounds | None:
    """The interval, unless the numbers overflowed."""
    return Bounds(low, high) if math.isfinite(low) and math.isfinite(high) else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down adjustment: the family-wise error stays below alpha. None stays None and counts for nothing.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


SRM_ALPHA = 0.001
"""Fabijan et al. (2019) use 0.0005 to 0.001: an SRM check runs often, and its alarm must mean something."""

SRM_LEAST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class Split:
    """How many units first met each variant under one version of the allocation, and the weights of that version."""

    units: tuple[int, ...]
    weights: tuple[float, ...]


def sample_ratio(splits: Sequence[Split]) -> TestResult | None:
    """Pearson's chi-square of the unit counts against the weights; None while too few units are expected anywhere.

    Each version of the allocation is its own stratum, so a test whose weights changed is checked as strictly as any other.
    The example is of Kohavi, Tang, Xu, "Trustworthy Online Controlled Experiments" (2020), chapter 3.

    >>> result = sample_ratio([Split((821588, 815482), (0.5, 0.5))])
    >>> round(result.statistic, 4), f"{result.p_value:.2e}"
    (22.7744, '1.82e-06')
    """
    statistic, freedom = 0.0, 0
    for split in splits:
        total = sum(split.units)
        expected = [total * weight for weight in split.weights]
        tested = [(got, want) for got, want in zip(split.units, expected, strict=True) if want > 0]
        if total == 0 or min(want for _, want in tested) < SRM_LEAST_EXPECTED:
            continue
        statistic += math.fsum((got - want) ** 2 / want for got, want in tested)
        freedom += len(tested) - 1
    return TestResult(statistic, distributions.chi_square_tail(freedom, statistic), freedom) if freedom else None

"""How many units a test needs before it starts."""

import math

from mlops_platform.ab_testing.domain.distributions import noncentral_t_cdf, normal_quantile, t_quantile
from mlops_platform.contracts.ab_testing import MetricKind, SampleSize, SampleSizeQuery
from mlops_platform.core.errors import InvalidInput

MOST_UNITS = 1e12
_NORMAL_FROM = 1e6  # beyond it the t and the normal distribution agree to more digits than anybody plans with


def sample_size(query: SampleSizeQuery) -> SampleSize:
    """The units that a planned test needs, or `InvalidInput` when the plan makes no sense."""
    alpha = (1 - query.confidence) / (query.variants - 1)
    if query.minimum_effect == 0:
        raise InvalidInput.of("minimum_effect", "must not be 0", 0)
    if query.kind is MetricKind.PROPORTION:
        needed = _for_proportion(query, alpha)
    elif query.standard_deviation is None:
        raise InvalidInput.of("standard_deviation", f"is needed for a {query.kind}")
    else:
        needed = units_for_means(query.minimum_effect, query.standard_deviation, alpha=alpha, power=query.power)
    if needed > MOST_UNITS:
        raise InvalidInput.of("minimum_effect", f"needs more than {MOST_UNITS:.0e} units", query.minimum_effect)
    units = math.ceil(needed)
    return SampleSize(
        kind=query.kind,
        units_per_variant=units,
        units_total=units * query.variants,
        variants=query.variants,
        baseline=query.baseline,
        minimum_effect=query.minimum_effect,
        power=query.power,
        confidence_level=query.confidence,
    )


def _for_proportion(query: SampleSizeQuery, alpha: float) -> float:
    treatment = query.baseline + query.minimum_effect
    if not 0 < query.baseline < 1:
        raise InvalidInput.of("baseline", "must be above 0 and below 1 for a proportion", query.baseline)
    if not 0 < treatment < 1 or treatment == query.baseline:
        raise InvalidInput.of(
            "minimum_effect", "must lead from the baseline to another proportion above 0 and below 1", query.minimum_effect
        )
    return units_for_proportions(query.baseline, treatment, alpha=alpha, power=query.power)


def units_for_proportions(baseline: float, treatment: float, *, alpha: float, power: float) -> float:
    """Units in each of two variants, as R's `power.prop.test` (pooled variance under the null, Fleiss 1981).

    >>> round(units_for_proportions(0.5, 0.75, alpha=0.05, power=0.9), 2)
    76.71
    """
    middle = (baseline + treatment) / 2
    null = normal_quantile(1 - alpha / 2) * math.sqrt(2 * middle * (1 - middle))
    alternative = normal_quantile(power) * math.sqrt(baseline * (1 - baseline) + treatment * (1 - treatment))
    return ((null + alternative) / (treatment - baseline)) ** 2


def units_for_means(difference: float, standard_deviation: float, *, alpha: float, power: float) -> float:
    """Units in each of two variants, as R's `power.t.test`: the noncentral t distribution, solved for n.

    >>> round(units_for_means(1.0, 1.0, alpha=0.05, power=0.9), 3)
    22.021
    """
    effect = abs(difference) / standard_deviation
    quantiles = normal_quantile(1 - alpha / 2) + normal_quantile(power)
    if effect == 0 or 2 * (quantiles / effect) * (quantiles / effect) > _NORMAL_FROM:
        return 2 * (quantiles / effect) * (quantiles / effect) if effect else math.inf
    # The normal approximation is a little low; the true n stands between it and a few units more.
    low = max(2.0, 2 * (quantiles / effect) ** 2 - 1)
    high = low + 1
    while power_of_t(high, effect, alpha) < power:
        high = low + 2 * (high - low)
    if power_of_t(low, effect, alpha) >= power:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of_t(middle, effect, alpha) < power else (low, middle)
    return (low + high) / 2


def power_of_t(n: float, effect: float, alpha: float) -> float:
    """The chance that a two-sample t-test of `n` units each finds a difference of `effect` standard deviations.

    >>> round(power_of_t(22.02110, 1.0, 0.05), 4)
    0.9
    """
    freedom = 2 * (n - 1)
    critical = t_quantile(freedom, 1 - alpha / 2)
    return 1 - noncentral_t_cdf(freedom, effect * math.sqrt(n / 2), critical)

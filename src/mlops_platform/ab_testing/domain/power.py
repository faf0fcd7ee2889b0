"""How many units a test needs before it starts."""

import math

from scipy.special import nctdtr, ndtri, stdtrit


def units_for_proportions(baseline: float, treatment: float, *, alpha: float, power: float) -> float:
    """Units in each of two variants, as R's `power.prop.test` (pooled variance under the null, Fleiss 1981).

    >>> round(units_for_proportions(0.5, 0.75, alpha=0.05, power=0.9), 2)
    76.71
    """
    middle = (baseline + treatment) / 2
    null = float(ndtri(1 - alpha / 2)) * math.sqrt(2 * middle * (1 - middle))
    alternative = float(ndtri(power)) * math.sqrt(baseline * (1 - baseline) + treatment * (1 - treatment))
    return ((null + alternative) / (treatment - baseline)) ** 2


def units_for_means(difference: float, standard_deviation: float, *, alpha: float, power: float) -> float:
    """Units in each of two variants, as R's `power.t.test`: the noncentral t distribution, solved for n.

    >>> round(units_for_means(1.0, 1.0, alpha=0.05, power=0.9), 3)
    22.021
    """
    effect = abs(difference) / standard_deviation
    # The normal approximation is a little low; the true n stands between it and a few units more.
    low = max(2.0, 2 * ((float(ndtri(1 - alpha / 2)) + float(ndtri(power))) / effect) ** 2 - 1)
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
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    return 1 - float(nctdtr(freedom, effect * math.sqrt(n / 2), critical))

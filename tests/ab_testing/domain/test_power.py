"""Sample sizes: against the published ones, and by checking that the promised power is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.ab_testing.domain import power, statistics


@pytest.mark.parametrize(
    ("baseline", "treatment", "wanted", "units"), [(0.5, 0.75, 0.9, 76.707), (0.2, 0.25, 0.8, 1093.74)]
)
def test_proportions_need_what_r_says(baseline, treatment, wanted, units):
    assert power.units_for_proportions(baseline, treatment, alpha=0.05, power=wanted) == pytest.approx(units, abs=0.006)


def test_means_need_what_r_says():
    assert power.units_for_means(1.0, 1.0, alpha=0.05, power=0.9) == pytest.approx(22.0211, abs=1e-4)


@given(effect=st.floats(0.01, 3), wanted=st.floats(0.5, 0.99), alpha=st.floats(0.001, 0.2))
@settings(max_examples=60, deadline=None)
def test_the_units_for_means_have_the_power_asked_for(effect, wanted, alpha):
    units = power.units_for_means(effect, 1.0, alpha=alpha, power=wanted)
    assert units >= 2
    assert power.power_of_t(units, effect, alpha) >= wanted - 1e-6


def test_tests_of_that_size_find_the_effect_as_often_as_promised():
    n = round(power.units_for_proportions(0.2, 0.25, alpha=0.05, power=0.8))
    rng = np.random.default_rng(21)
    pairs = zip(rng.binomial(n, 0.2, 3000).tolist(), rng.binomial(n, 0.25, 3000).tolist(), strict=True)
    results = [statistics.two_proportions(pair, (n, n)) for pair in pairs]
    found = sum(result is not None and result.p_value < 0.05 for result in results)
    assert found / 3000 == pytest.approx(0.8, abs=0.022)

"""Sample sizes: against the published ones, and by checking that the promised power is there."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.ab_testing.domain import power, statistics
from mlops_platform.contracts.ab_testing import MetricKind, SampleSize, SampleSizeQuery
from mlops_platform.core.errors import InvalidInput


def planned(**plan) -> SampleSize:
    return power.sample_size(SampleSizeQuery(**plan))


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


class TestSampleSize:
    def test_a_plan_for_a_proportion_gives_whole_units_for_each_variant_and_for_all(self):
        plan = planned(kind=MetricKind.PROPORTION, baseline=0.5, minimum_effect=0.25, power=0.9)
        assert (plan.units_per_variant, plan.units_total, plan.variants) == (77, 154, 2)

    def test_a_plan_for_a_mean_gives_what_r_says(self):
        plan = planned(kind=MetricKind.MEAN, minimum_effect=1.0, standard_deviation=1.0, power=0.9)
        assert (plan.units_per_variant, plan.units_total) == (23, 46)

    def test_the_answer_repeats_the_question(self):
        plan = planned(kind=MetricKind.PROPORTION, baseline=0.2, minimum_effect=0.05, power=0.7, confidence=0.9)
        assert (plan.kind, plan.baseline, plan.minimum_effect) == (MetricKind.PROPORTION, 0.2, 0.05)
        assert (plan.power, plan.confidence_level) == (0.7, 0.9)

    def test_several_treatments_share_the_chance_of_a_false_alarm(self):
        plan = planned(kind=MetricKind.PROPORTION, baseline=0.5, minimum_effect=0.25, power=0.9, variants=3)
        each = power.units_for_proportions(0.5, 0.75, alpha=0.05 / 2, power=0.9)
        assert (plan.units_per_variant, plan.units_total) == (math.ceil(each), 3 * math.ceil(each))

    def test_a_fall_needs_as_many_units_as_the_rise_back(self):
        falls = planned(kind=MetricKind.PROPORTION, baseline=0.75, minimum_effect=-0.25, power=0.9)
        assert falls.units_per_variant == 77
        falls = planned(kind=MetricKind.MEAN, minimum_effect=-1.0, standard_deviation=1.0, power=0.9)
        assert falls.units_per_variant == 23

    @pytest.mark.parametrize(
        ("field", "plan"),
        [
            ("minimum_effect", {"minimum_effect": 0.0}),
            ("minimum_effect", {"minimum_effect": 0.5}),
            ("minimum_effect", {"minimum_effect": 0.6}),
            ("minimum_effect", {"minimum_effect": -0.5}),
            ("minimum_effect", {"minimum_effect": 1e-20}),
            ("minimum_effect", {"minimum_effect": 1e-7}),
            ("baseline", {"baseline": 0.0}),
            ("baseline", {"baseline": 1.0, "minimum_effect": -0.5}),
            ("baseline", {"baseline": 7.0}),
            ("standard_deviation", {"kind": MetricKind.MEAN}),
            ("minimum_effect", {"kind": MetricKind.MEAN, "standard_deviation": 1e9, "minimum_effect": 1e-9}),
        ],
    )
    def test_a_plan_that_makes_no_sense_is_refused_with_the_field(self, field, plan):
        given_plan = {"kind": MetricKind.PROPORTION, "baseline": 0.5, "minimum_effect": 0.1} | plan
        with pytest.raises(InvalidInput) as caught:
            planned(**given_plan)
        assert [error.field for error in caught.value.errors] == [field]

    @pytest.mark.parametrize("kind", [MetricKind.PROPORTION, MetricKind.MEAN])
    def test_an_effect_of_zero_is_called_by_its_name(self, kind):
        with pytest.raises(InvalidInput, match="must not be 0"):
            planned(kind=kind, baseline=0.5, minimum_effect=0.0, standard_deviation=1.0)

    def test_a_tiny_effect_is_planned_while_its_units_can_be_written_down(self):
        plan = planned(kind=MetricKind.MEAN, minimum_effect=1e-5, standard_deviation=1.0)
        assert plan.units_per_variant == pytest.approx(2 * (1.959964 + 0.841621) ** 2 * 1e10, rel=1e-5)
        assert plan.units_per_variant < power.MOST_UNITS == 1e12


@pytest.mark.parametrize("effect", [0.01, 0.0056, 0.0057, 0.1])
def test_the_exact_and_the_normal_answer_meet(effect):
    units = power.units_for_means(effect, 1.0, alpha=0.05, power=0.8)
    assert units == pytest.approx(2 * (1.9599640 + 0.8416212) ** 2 / effect**2, rel=2e-3)


def test_no_fewer_than_two_units_can_show_anything():
    assert power.units_for_means(1e6, 1.0, alpha=0.05, power=0.5) == 2


def test_no_effect_needs_more_units_than_there_are():
    assert power.units_for_means(0.0, 1.0, alpha=0.05, power=0.5) == math.inf


def test_a_wider_spread_needs_the_square_of_it_more_units():
    narrow = power.units_for_means(0.01, 1.0, alpha=0.05, power=0.8)
    assert power.units_for_means(0.02, 2.0, alpha=0.05, power=0.8) == pytest.approx(narrow, rel=1e-9)
    assert power.units_for_means(0.01, 3.0, alpha=0.05, power=0.8) == pytest.approx(9 * narrow, rel=1e-3)

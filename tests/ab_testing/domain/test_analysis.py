"""Verdicts: from the aggregates of any data to an answer without NaN that says what is missing."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.ab_testing.domain import analysis
from mlops_platform.ab_testing.domain.analysis import UnitOutcomes
from mlops_platform.ab_testing.domain.statistics import Sample, Split
from mlops_platform.contracts.ab_testing import Goal, MetricKind, OutcomeMetric, Verdict

VALUES = st.floats(-1e100, 1e100)


def metric(kind=MetricKind.PROPORTION, goal=Goal.INCREASE):
    return OutcomeMetric(name="m", kind=kind, goal=goal, is_primary=True)


def hits(count, n):
    """`count` of `n` units converted, and nothing was recorded for the others."""
    return UnitOutcomes(n, Sample(count, 1.0 if count else 0.0, 0.0))


def judged(control, treatment, kind=MetricKind.PROPORTION, goal=Goal.INCREASE):
    arms = [("control", control), ("treatment", treatment)]
    return analysis.judge(metric(kind, goal), arms, control="control", confidence=0.95)


@st.composite
def unit_outcomes(draw):
    present = draw(st.integers(0, 1000))
    extra = draw(st.integers(0, 1000))
    variance = draw(st.floats(0, 1e200)) if present > 1 else 0.0
    return UnitOutcomes(present + extra, Sample(present, draw(VALUES) if present else 0.0, variance))


class TestJudge:
    @given(control=unit_outcomes(), treatment=unit_outcomes(), kind=st.sampled_from([MetricKind.MEAN, MetricKind.COUNT]))
    @settings(max_examples=300, deadline=None)
    def test_any_data_gives_an_answer_that_json_can_hold(self, control, treatment, kind):
        answer = judged(control, treatment, kind)
        json.dumps(answer.model_dump(mode="json"), allow_nan=False)
        comparison = answer.comparisons[0]
        assert comparison.p_value is not None or comparison.reason

    @given(n=st.tuples(st.integers(0, 300), st.integers(0, 300)), x=st.tuples(st.integers(0, 300), st.integers(0, 300)))
    @settings(max_examples=300, deadline=None)
    def test_any_counts_give_an_answer_that_json_can_hold(self, n, x):
        answer = judged(hits(min(x[0], n[0]), n[0]), hits(min(x[1], n[1]), n[1]))
        json.dumps(answer.model_dump(mode="json"), allow_nan=False)
        for arm in answer.variants:
            if arm.mean_interval is not None and arm.mean is not None:
                assert 0 <= arm.mean_interval.low <= arm.mean <= arm.mean_interval.high <= 1

    @pytest.mark.parametrize(("goal", "verdict"), [(Goal.INCREASE, Verdict.BETTER), (Goal.DECREASE, Verdict.WORSE)])
    def test_the_goal_decides_which_direction_is_better(self, goal, verdict):
        assert judged(hits(10, 100), hits(40, 100), goal=goal).comparisons[0].verdict is verdict

    def test_a_difference_that_may_be_chance_is_not_called_equality(self):
        comparison = judged(hits(10, 100), hits(12, 100)).comparisons[0]
        assert comparison.verdict is Verdict.NO_DIFFERENCE_SHOWN
        assert comparison.is_significant is False

    def test_units_without_an_outcome_count_as_zero_but_not_in_a_mean(self):
        outcomes = UnitOutcomes(10, Sample(4, 5.0, 1.0))
        counted = judged(outcomes, outcomes, MetricKind.COUNT).variants[0]
        averaged = judged(outcomes, outcomes, MetricKind.MEAN).variants[0]
        assert (counted.n, counted.mean, averaged.n, averaged.mean) == (10, 2.0, 4, 5.0)

    def test_a_control_without_successes_has_a_difference_and_no_lift(self):
        comparison = judged(hits(0, 100), hits(20, 100)).comparisons[0]
        assert comparison.verdict is Verdict.BETTER
        assert comparison.relative_lift is None
        assert "control's mean is 0" in (comparison.reason or "")


class TestSummary:
    def test_a_proportion_says_its_share_and_wilsons_interval(self):
        arm = judged(hits(81, 263), hits(81, 263)).variants[0]
        assert (arm.variant, arm.n, arm.sum, arm.reason) == ("control", 263, 81, None)
        assert arm.mean == pytest.approx(81 / 263)
        assert (arm.mean_interval.low, arm.mean_interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)

    @pytest.mark.parametrize("kind", [MetricKind.MEAN, MetricKind.COUNT])
    def test_a_mean_says_students_interval(self, kind):
        outcomes = UnitOutcomes(10, Sample(10, 0.75, 3.200556))  # Student (1908)
        arm = judged(outcomes, outcomes, kind).variants[1]
        assert (arm.variant, arm.n, arm.sum, arm.mean, arm.variance) == ("treatment", 10, 7.5, 0.75, 3.200556)
        assert (arm.mean_interval.low, arm.mean_interval.high) == pytest.approx((-0.5297804, 2.0297804), abs=1e-6)

    def test_a_variant_without_units_says_so_and_nothing_else(self):
        arm = judged(hits(0, 0), hits(1, 2)).variants[0]
        assert (arm.n, arm.sum, arm.mean, arm.variance, arm.mean_interval) == (0, 0.0, None, None, None)
        assert arm.reason == "no units yet"

    def test_one_unit_has_a_value_and_no_variance(self):
        one = UnitOutcomes(1, Sample(1, 4.0, 0.0))
        arm = judged(one, one, MetricKind.MEAN).variants[0]
        assert (arm.n, arm.mean, arm.variance, arm.mean_interval) == (1, 4.0, None, None)
        assert arm.reason == "one unit has no variance"

    def test_two_units_have_a_variance(self):
        two = UnitOutcomes(2, Sample(2, 4.0, 2.0))
        arm = judged(two, two, MetricKind.MEAN).variants[0]
        assert (arm.variance, arm.reason) == (2.0, None)
        assert arm.mean_interval is not None


class TestComparison:
    def test_proportions_are_compared_by_the_score_test(self):
        comparison = judged(hits(12, 99), hits(5, 83)).comparisons[0]
        assert (comparison.variant, comparison.control, comparison.test) == ("treatment", "control", "two_proportion_score")
        assert comparison.statistic == pytest.approx(-1.407830, abs=1e-6)
        assert comparison.p_value == pytest.approx(0.159181, abs=1e-6)
        assert comparison.difference == pytest.approx(5 / 83 - 12 / 99)
        assert comparison.degrees_of_freedom is None

    def test_means_are_compared_by_welchs_test(self):
        first, second = UnitOutcomes(10, Sample(10, 0.75, 3.200556)), UnitOutcomes(10, Sample(10, 2.33, 4.009))
        comparison = judged(first, second, MetricKind.MEAN).comparisons[0]
        assert comparison.test == "welch_t"
        assert comparison.statistic == pytest.approx(1.860813, abs=1e-5)
        assert comparison.degrees_of_freedom == pytest.approx(17.7765, abs=1e-3)
        assert comparison.difference == pytest.approx(1.58)
        interval = comparison.difference_interval
        assert (interval.low, interval.high) == pytest.approx((-0.20548, 3.36548), abs=1e-4)

    @pytest.mark.parametrize("kind", list(MetricKind))
    def test_a_sure_control_has_a_lift_and_its_interval_and_no_excuse(self, kind):
        if kind is MetricKind.PROPORTION:
            comparison = judged(hits(400, 1000), hits(500, 1000)).comparisons[0]
        else:
            first, second = UnitOutcomes(1000, Sample(1000, 4.0, 1.0)), UnitOutcomes(1000, Sample(1000, 5.0, 1.0))
            comparison = judged(first, second, kind).comparisons[0]
        assert comparison.relative_lift == pytest.approx(0.25)
        assert comparison.relative_lift_interval.low < 0.25 < comparison.relative_lift_interval.high
        assert comparison.reason is None
        assert comparison.is_significant is True

    def test_a_control_near_zero_says_why_its_lift_has_no_interval(self):
        first, second = UnitOutcomes(10, Sample(10, 0.1, 1.0)), UnitOutcomes(10, Sample(10, 5.0, 1.0))
        comparison = judged(first, second, MetricKind.MEAN).comparisons[0]
        assert comparison.relative_lift == pytest.approx(49.0)
        assert comparison.relative_lift_interval is None
        assert "not distinct from 0" in comparison.reason

    @pytest.mark.parametrize(
        ("control", "treatment", "kind", "reason"),
        [
            (hits(0, 0), hits(1, 2), MetricKind.PROPORTION, "no units yet"),
            (hits(1, 2), hits(0, 0), MetricKind.PROPORTION, "no units yet"),
            (hits(0, 9), hits(0, 9), MetricKind.PROPORTION, "same value"),
            (hits(9, 9), hits(9, 9), MetricKind.PROPORTION, "same value"),
            (UnitOutcomes(1, Sample(1, 1.0, 0.0)), UnitOutcomes(5, Sample(5, 1.0, 1.0)), MetricKind.MEAN, "two units"),
            (UnitOutcomes(5, Sample(5, 1.0, 1.0)), UnitOutcomes(1, Sample(1, 1.0, 0.0)), MetricKind.MEAN, "two units"),
            (UnitOutcomes(5, Sample(5, 1.0, 0.0)), UnitOutcomes(5, Sample(5, 2.0, 0.0)), MetricKind.MEAN, "do not vary"),
        ],
    )
    def test_what_cannot_be_tested_has_a_reason_and_no_verdict(self, control, treatment, kind, reason):
        comparison = judged(control, treatment, kind).comparisons[0]
        assert (comparison.p_value, comparison.p_value_adjusted, comparison.is_significant) == (None, None, None)
        assert comparison.verdict is Verdict.NOT_ENOUGH_DATA
        assert reason in comparison.reason

    def test_two_units_each_are_enough_for_a_test_of_means(self):
        two = UnitOutcomes(2, Sample(2, 1.0, 1.0))
        assert judged(two, two, MetricKind.MEAN).comparisons[0].p_value == pytest.approx(1.0)

    def test_one_unit_each_is_enough_for_a_test_of_proportions(self):
        assert judged(hits(0, 1), hits(1, 1)).comparisons[0].p_value == pytest.approx(0.157299, abs=1e-6)

    def test_means_that_do_not_vary_still_show_their_difference(self):
        first, second = UnitOutcomes(5, Sample(5, 1.0, 0.0)), UnitOutcomes(5, Sample(5, 2.0, 0.0))
        comparison = judged(first, second, MetricKind.MEAN).comparisons[0]
        assert (comparison.difference, comparison.relative_lift) == (1.0, 1.0)
        assert (comparison.difference_interval, comparison.statistic) == (None, None)

    def test_each_variant_is_compared_with_the_control_and_holm_corrects_for_all(self):
        arms = [("a", hits(130, 1000)), ("base", hits(100, 1000)), ("b", hits(145, 1000))]
        comparisons = analysis.judge(metric(), arms, control="base", confidence=0.95).comparisons
        assert [(it.variant, it.control) for it in comparisons] == [("a", "base"), ("b", "base")]
        a, b = comparisons
        assert a.p_value_adjusted == pytest.approx(a.p_value)
        assert b.p_value is not None
        assert b.p_value_adjusted == pytest.approx(2 * b.p_value)

    def test_the_corrected_p_value_decides(self):
        arms = [("base", hits(100, 1000)), ("a", hits(129, 1000)), ("b", hits(101, 1000))]
        a, _ = analysis.judge(metric(), arms, control="base", confidence=0.95).comparisons
        assert (a.p_value, a.p_value_adjusted) == pytest.approx((0.0421, 0.0842), abs=1e-3)
        assert (a.is_significant, a.verdict) == (False, Verdict.NO_DIFFERENCE_SHOWN)

    @pytest.mark.parametrize(("confidence", "is_significant"), [(0.99, False), (0.95, True)])
    def test_the_confidence_asked_for_decides(self, confidence, is_significant):
        arms = [("control", hits(1000, 10_000)), ("treatment", hits(1100, 10_000))]  # p = 0.021
        comparison = analysis.judge(metric(), arms, control="control", confidence=confidence).comparisons[0]
        assert comparison.is_significant is is_significant
        assert comparison.difference_interval is not None
        assert (comparison.difference_interval.low > 0) is is_significant

    @pytest.mark.parametrize(("goal", "verdict"), [(Goal.INCREASE, Verdict.WORSE), (Goal.DECREASE, Verdict.BETTER)])
    def test_a_fall_is_better_only_where_less_is_wanted(self, goal, verdict):
        assert judged(hits(40, 100), hits(10, 100), goal=goal).comparisons[0].verdict is verdict


class TestWarnings:
    def found(self, *, splits=((500, 500),), metrics=(), units=1000, crossover_units=0, allocations=1):
        srm = analysis.check_ratio([Split(split, (0.5, 0.5)) for split in splits])
        given = analysis.warnings(srm, metrics, units=units, crossover_units=crossover_units, allocations=allocations)
        return {warning.code: warning.message for warning in given}

    def test_a_clean_test_has_none(self):
        assert self.found(metrics=[judged(hits(5, 10), hits(5, 10))]) == {}

    def test_a_split_that_is_not_as_weighted_is_told_with_its_p_value(self):
        assert "p = 1.8e-06" in self.found(splits=[(821588, 815482)])["sample_ratio_mismatch"]

    def test_units_that_met_two_variants_are_counted(self):
        assert self.found(crossover_units=1)["crossover_units"].startswith("1 of 1000 units")

    def test_a_changed_allocation_is_told(self):
        assert list(self.found(allocations=2)) == ["allocation_changed"]

    @pytest.mark.parametrize(
        ("control", "treatment", "is_told"),
        [
            (hits(4, 100), hits(50, 100), True),
            (hits(50, 100), hits(4, 100), True),
            (hits(96, 100), hits(50, 100), True),
            (hits(5, 100), hits(95, 100), False),
            (hits(0, 0), hits(50, 100), False),
            (hits(0, 1), hits(50, 100), True),
        ],
    )
    def test_fewer_than_five_successes_or_failures_are_told(self, control, treatment, is_told):
        assert ("small_counts" in self.found(metrics=[judged(control, treatment)])) is is_told

    def test_means_have_no_successes_to_count(self):
        few = UnitOutcomes(3, Sample(3, 1.0, 1.0))
        assert self.found(metrics=[judged(few, few, MetricKind.MEAN)]) == {}

    def test_one_metric_of_several_is_enough(self):
        metrics = [judged(hits(50, 100), hits(50, 100)), judged(hits(1, 100), hits(50, 100))]
        assert list(self.found(metrics=metrics)) == ["small_counts"]


class TestCheckRatio:
    def test_a_mismatch_is_called_one(self):
        check = analysis.check_ratio([Split((821588, 815482), (0.5, 0.5))])
        assert check.is_mismatch is True
        assert check.chi_square == pytest.approx(22.7744, abs=1e-4)
        assert check.degrees_of_freedom == 1

    @pytest.mark.parametrize(("units", "is_mismatch"), [((5164, 4836), False), ((5165, 4835), True)])
    def test_the_alarm_is_one_in_a_thousand(self, units, is_mismatch):
        assert analysis.check_ratio([Split(units, (0.5, 0.5))]).is_mismatch is is_mismatch

    def test_few_units_give_a_reason_and_no_alarm(self):
        check = analysis.check_ratio([Split((3, 1), (0.5, 0.5))])
        assert (check.is_mismatch, check.p_value) == (None, None)
        assert check.reason

    def test_a_fair_split_is_no_mismatch(self):
        check = analysis.check_ratio([Split((510, 490), (0.5, 0.5))])
        assert check.is_mismatch is False
        assert check.p_value is not None
        assert math.isclose(check.p_value, 0.5270892568, rel_tol=1e-6)

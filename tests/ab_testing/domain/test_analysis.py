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


class TestCheckRatio:
    def test_few_units_give_a_reason_and_no_alarm(self):
        check = analysis.check_ratio([Split((3, 1), (0.5, 0.5))])
        assert (check.is_mismatch, check.p_value) == (None, None)
        assert check.reason

    def test_a_fair_split_is_no_mismatch(self):
        check = analysis.check_ratio([Split((510, 490), (0.5, 0.5))])
        assert check.is_mismatch is False
        assert check.p_value is not None
        assert math.isclose(check.p_value, 0.5270892568, rel_tol=1e-6)

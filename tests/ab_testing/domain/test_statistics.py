"""Statistics: against published values, against scipy, and by simulation of what the intervals promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlops_platform.ab_testing.domain import statistics
from mlops_platform.ab_testing.domain.statistics import Sample, Split

SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def known(value):
    """The value, which the test expects to be there."""
    assert value is not None
    return value


def sample_of(values):
    return Sample(len(values), float(np.mean(values)), float(np.var(values, ddof=1)))


@st.composite
def counts(draw):
    sizes = draw(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
    return tuple(draw(st.integers(0, n)) for n in sizes), sizes


class TestTwoProportions:
    @pytest.mark.parametrize(
        ("successes", "sizes", "z", "p"),
        [((12, 5), (99, 83), -1.407830, 0.159181), ((1000, 1100), (10_000, 10_000), 2.306635, 0.0210752)],
    )
    def test_published_values(self, successes, sizes, z, p):
        result = known(statistics.two_proportions(successes, sizes))
        assert result.statistic == pytest.approx(z, abs=1e-6)
        assert result.p_value == pytest.approx(p, abs=1e-6)

    @given(case=counts())
    def test_the_square_of_z_is_pearsons_chi_square(self, case):
        (x1, x2), (n1, n2) = case
        result = statistics.two_proportions(*case)
        if x1 + x2 in {0, n1 + n2}:
            assert result is None
            return
        result = known(result)
        reference = stats.chi2_contingency([[x1, n1 - x1], [x2, n2 - x2]], correction=False)
        assert result.statistic**2 == pytest.approx(reference.statistic, rel=1e-9, abs=1e-12)
        assert result.p_value == pytest.approx(reference.pvalue, rel=1e-9)

    @pytest.mark.parametrize(
        ("treatment", "control", "low", "high"),
        # Newcombe (1998), table II, method 5 (Mee); the third in closed form: 10 / (10 + 1.96^2).
        [
            ((56, 70), (48, 80), 0.0533, 0.3377),
            ((9, 10), (3, 10), 0.1821, 0.8370),
            ((10, 10), (0, 20), 0.7225, 1.0),
            ((0, 10), (0, 10), -0.2775, 0.2775),
        ],
    )
    def test_newcombes_examples(self, treatment, control, low, high):
        (x2, n2), (x1, n1) = treatment, control
        bounds = statistics.difference_of_proportions((x1, x2), (n1, n2), 0.95)
        assert bounds.low == pytest.approx(low, abs=1.1e-4)
        assert bounds.high == pytest.approx(high, abs=1.1e-4)

    @given(case=counts())
    @settings(max_examples=200, deadline=None)
    def test_the_interval_leaves_out_zero_exactly_when_the_test_rejects(self, case):
        result = statistics.two_proportions(*case)
        bounds = statistics.difference_of_proportions(case[0], case[1], 0.95)
        if result is None or abs(result.p_value - 0.05) < 1e-6:
            return
        assert (bounds.low > 0 or bounds.high < 0) == (result.p_value < 0.05)

    @given(case=counts())
    @settings(max_examples=200, deadline=None)
    def test_the_interval_holds_the_observed_difference_and_stays_in_range(self, case):
        (x1, x2), (n1, n2) = case
        bounds = statistics.difference_of_proportions(case[0], case[1], 0.95)
        assert -1 <= bounds.low <= x2 / n2 - x1 / n1 <= bounds.high <= 1

    @given(case=counts())
    @settings(max_examples=100, deadline=None)
    def test_swapping_the_groups_mirrors_the_interval(self, case):
        (x1, x2), (n1, n2) = case
        one = statistics.difference_of_proportions((x1, x2), (n1, n2), 0.95)
        other = statistics.difference_of_proportions((x2, x1), (n2, n1), 0.95)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-7)

    def test_large_counts_agree_with_the_normal_interval(self):
        n, x = 4_000_000, (400_000, 404_000)
        bounds = statistics.difference_of_proportions(x, (n, n), 0.95)
        p1, p2 = x[0] / n, x[1] / n
        half = 1.959964 * math.sqrt((p1 * (1 - p1) + p2 * (1 - p2)) / n)
        assert (bounds.low, bounds.high) == pytest.approx((0.001 - half, 0.001 + half), rel=1e-3)

    @given(x=st.integers(0, 400), extra=st.integers(0, 400))
    def test_wilsons_interval_is_scipys(self, x, extra):
        n = max(x + extra, 1)
        ours = statistics.proportion_interval(x, n, 0.95)
        theirs = stats.binomtest(x, n).proportion_ci(0.95, method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)

    def test_none_and_all_have_exact_ends(self):
        for n in range(1, 300):
            assert statistics.proportion_interval(0, n, 0.95).low == 0.0
            assert statistics.proportion_interval(n, n, 0.95).high == 1.0


class TestWelch:
    def test_students_sleep_data(self):
        result = known(statistics.welch(sample_of(SLEEP_2), sample_of(SLEEP_1)))
        assert result.statistic == pytest.approx(-1.860813, abs=1e-6)
        assert result.degrees_of_freedom == pytest.approx(17.7765, abs=1e-4)
        assert result.p_value == pytest.approx(0.0793941, abs=1e-7)
        critical = statistics.t_quantile(0.95, result.degrees_of_freedom)
        bounds = known(statistics.difference_of_means(sample_of(SLEEP_2), sample_of(SLEEP_1), critical))
        assert (bounds.low, bounds.high) == pytest.approx((-3.36548, 0.20548), abs=1e-5)

    @pytest.mark.parametrize("seed", range(8))
    def test_it_is_scipys_on_random_data(self, seed):
        rng = np.random.default_rng(seed)
        first, second = rng.normal(5, 2, rng.integers(2, 50)), rng.exponential(4, rng.integers(2, 50))
        ours = known(statistics.welch(sample_of(first), sample_of(second)))
        theirs = stats.ttest_ind(second, first, equal_var=False)
        assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (Sample(1, 1.0, 0.0), Sample(10, 1.0, 1.0)),
            (Sample(10, 1.0, 0.0), Sample(10, 2.0, 0.0)),
            (Sample(10, 1.0, 1.0), Sample(1, 1.0, 0.0)),
            (Sample(10, 1.0, math.inf), Sample(10, 1.0, 1.0)),
        ],
    )
    def test_without_variance_or_units_there_is_no_answer(self, first, second):
        assert statistics.welch(first, second) is None

    @given(
        scale=st.floats(1e-90, 1e90),
        sizes=st.tuples(st.integers(2, 10**6), st.integers(2, 10**6)),
    )
    def test_extreme_scales_never_give_nan(self, scale, sizes):
        first, second = Sample(sizes[0], scale, scale * scale), Sample(sizes[1], -scale, 2 * scale * scale)
        result = statistics.welch(first, second)
        assert result is None or (math.isfinite(result.statistic) and 0 <= result.p_value <= 1)

    def test_two_units_each_are_enough(self):
        result = known(statistics.welch(Sample(2, 1.0, 1.0), Sample(2, 2.0, 1.0)))
        assert (result.statistic, result.degrees_of_freedom) == (1.0, 2.0)
        assert result.p_value == pytest.approx(0.4226497, abs=1e-7)


class TestMeanInterval:
    @pytest.mark.parametrize(
        ("sample", "low", "high"),
        # R: t.test(extra[1:10]); and the table's 12.7062 for one degree of freedom.
        [(sample_of(SLEEP_1), -0.5297804, 2.0297804), (Sample(2, 1.0, 2.0), 1 - 12.7062047, 1 + 12.7062047)],
    )
    def test_it_is_students(self, sample, low, high):
        bounds = known(statistics.mean_interval(sample, 0.95))
        assert (bounds.low, bounds.high) == pytest.approx((low, high), abs=1e-6)

    @pytest.mark.parametrize("n", [0, 1])
    def test_fewer_than_two_units_have_none(self, n):
        assert statistics.mean_interval(Sample(n, 1.0, 0.0), 0.95) is None

    @pytest.mark.parametrize(("low", "high"), [(-math.inf, 1.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)])
    def test_what_overflowed_is_no_interval(self, low, high):
        assert statistics.finite_bounds(low, high) is None


class TestWithZeros:
    @given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), zeros=st.integers(0, 30))
    def test_padding_is_the_same_as_having_the_zeros(self, values, zeros):
        present = Sample(len(values), float(np.mean(values)), float(np.var(values, ddof=1)) if len(values) > 1 else 0.0)
        padded = statistics.with_zeros(len(values) + zeros, present)
        everything = np.array([*values, *([0.0] * zeros)])
        assert padded.mean == pytest.approx(float(everything.mean()), abs=1e-6)
        if len(everything) > 1:
            assert padded.variance == pytest.approx(float(everything.var(ddof=1)), rel=1e-6, abs=1e-6)

    def test_one_unit_alone_has_no_variance(self):
        assert statistics.with_zeros(1, Sample(1, 3.0, 0.0)) == Sample(1, 3.0, 0.0)
        assert statistics.with_zeros(1, Sample(0, 0.0, 0.0)) == Sample(1, 0.0, 0.0)

    def test_nobody_is_an_empty_sample(self):
        assert statistics.with_zeros(0, Sample(0, 0.0, 0.0)) == Sample(0, 0.0, 0.0)


class TestRelativeLift:
    def test_it_matches_a_bootstrap(self):
        rng = np.random.default_rng(7)
        control, treatment = rng.gamma(2, 2, 2000), rng.gamma(2, 2.2, 2000)
        bounds = known(statistics.relative_lift_interval(sample_of(control), sample_of(treatment), 1.96))
        draws = [rng.choice(treatment, 2000).mean() / rng.choice(control, 2000).mean() - 1 for _ in range(1000)]
        low, high = np.percentile(draws, [2.5, 97.5])
        assert bounds.low == pytest.approx(low, abs=0.02)
        assert bounds.high == pytest.approx(high, abs=0.02)

    def test_a_control_that_may_be_zero_has_no_interval(self):
        assert statistics.relative_lift_interval(Sample(10, 0.1, 1.0), Sample(10, 5.0, 1.0), 1.96) is None

    def test_a_control_of_zero_has_no_lift(self):
        assert statistics.relative_lift(Sample(10, 0.0, 0.0), Sample(10, 5.0, 1.0)) is None

    def test_a_control_whose_interval_reaches_zero_has_none_either(self):
        assert statistics.relative_lift_interval(Sample(4, 2.0, 4.0), Sample(4, 5.0, 1.0), 2.0) is None
        assert statistics.relative_lift_interval(Sample(4, 2.0, 4.0), Sample(4, 5.0, 1.0), 1.999) is not None

    def test_a_lift_that_overflows_is_none(self):
        control, treatment = Sample(10, 1e-300, 0.0), Sample(10, 1e300, 1.0)
        assert statistics.relative_lift(control, treatment) is None
        assert statistics.relative_lift_interval(control, treatment, 1.96) is None

    def test_a_rise_above_a_negative_control_is_a_positive_lift(self):
        assert statistics.relative_lift(Sample(10, -2.0, 1.0), Sample(10, -1.0, 1.0)) == 0.5


class TestHolm:
    def test_it_is_never_below_the_raw_value_nor_above_bonferronis(self):
        raw = [0.001, 0.02, 0.03, 0.5]
        adjusted = statistics.holm(raw)
        assert adjusted == pytest.approx([0.004, 0.06, 0.06, 0.5])

    @given(p_values=st.lists(st.none() | st.floats(0, 1), max_size=8))
    def test_order_is_kept_and_values_are_probabilities(self, p_values):
        adjusted = statistics.holm(p_values)
        pairs = sorted((p, q) for p, q in zip(p_values, adjusted, strict=True) if p is not None and q is not None)
        assert all(p <= q <= 1 for p, q in pairs)
        assert [q for _, q in pairs] == sorted(q for _, q in pairs)


class TestSampleRatio:
    def test_the_example_of_kohavi_tang_and_xu(self):
        result = known(statistics.sample_ratio([Split((821588, 815482), (0.5, 0.5))]))
        assert result.statistic == pytest.approx(22.7744, abs=1e-4)
        assert result.p_value == pytest.approx(1.82e-6, rel=1e-2)

    @given(units=st.lists(st.integers(20, 10_000), min_size=2, max_size=5))
    def test_it_is_scipys_chi_square(self, units):
        share = 1 / len(units)
        ours = known(statistics.sample_ratio([Split(tuple(units), (share,) * len(units))]))
        theirs = stats.chisquare(units)
        assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)

    def test_a_change_of_weights_is_not_a_mismatch(self):
        result = known(statistics.sample_ratio([Split((5000, 5000), (0.5, 0.5)), Split((9000, 1000), (0.9, 0.1))]))
        assert result.p_value == pytest.approx(1.0)
        assert result.degrees_of_freedom == 2

    @pytest.mark.parametrize(
        ("units", "weights"),
        [((4, 0), (0.5, 0.5)), ((4, 5), (0.5, 0.5)), ((500, 0), (0.999, 0.001)), ((0, 0), (0.5, 0.5))],
    )
    def test_few_units_are_no_evidence(self, units, weights):
        assert statistics.sample_ratio([Split(units, weights)]) is None

    def test_five_expected_in_each_variant_are(self):
        assert known(statistics.sample_ratio([Split((10, 0), (0.5, 0.5))])).statistic == 10.0

    def test_counts_without_their_weights_are_an_error(self):
        with pytest.raises(ValueError, match="zip"):
            statistics.sample_ratio([Split((10, 10, 10), (0.5, 0.5))])

    def test_the_alarm_is_raised_at_one_in_a_thousand(self):
        assert statistics.SRM_ALPHA == 0.001

    def test_a_variant_without_weight_expects_nobody(self):
        assert known(statistics.sample_ratio([Split((500, 500, 0), (0.5, 0.5, 0.0))])).degrees_of_freedom == 1


class TestPromises:
    """Seeded simulations: 4000 experiments each, so that a rate of 5 % is known to within 1.0 points (3 errors)."""

    RUNS = 4000
    THREE_ERRORS = 3 * math.sqrt(0.05 * 0.95 / RUNS)

    def test_equal_proportions_are_called_different_one_time_in_twenty(self):
        rng = np.random.default_rng(11)
        draws = rng.binomial(800, 0.12, (self.RUNS, 2))
        wrong = sum(known(statistics.two_proportions(tuple(x), (800, 800))).p_value < 0.05 for x in draws.tolist())
        assert wrong / self.RUNS == pytest.approx(0.05, abs=self.THREE_ERRORS)

    def test_the_difference_of_proportions_is_inside_its_interval(self):
        rng = np.random.default_rng(12)
        draws = np.stack([rng.binomial(150, 0.1, 1000), rng.binomial(300, 0.17, 1000)], axis=1)
        hits = 0
        for x in draws.tolist():
            bounds = statistics.difference_of_proportions(tuple(x), (150, 300), 0.95)
            hits += bounds.low <= 0.07 <= bounds.high
        assert hits / 1000 == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 1000))

    def test_equal_means_of_unequal_spread_are_called_different_one_time_in_twenty(self):
        rng = np.random.default_rng(13)
        first, second = rng.normal(3, 1, (self.RUNS, 20)), rng.normal(3, 5, (self.RUNS, 60))
        wrong = sum(
            known(statistics.welch(sample_of(a), sample_of(b))).p_value < 0.05 for a, b in zip(first, second, strict=True)
        )
        assert wrong / self.RUNS == pytest.approx(0.05, abs=self.THREE_ERRORS)

    def test_the_relative_lift_is_inside_its_interval(self):
        rng = np.random.default_rng(14)
        hits = 0
        for control, treatment in zip(rng.gamma(4, 1, (self.RUNS, 200)), rng.gamma(4, 1.1, (self.RUNS, 200)), strict=True):
            bounds = known(statistics.relative_lift_interval(sample_of(control), sample_of(treatment), 1.96))
            hits += bounds.low <= 0.1 <= bounds.high
        assert hits / self.RUNS == pytest.approx(0.95, abs=self.THREE_ERRORS)

    def test_one_of_three_equal_variants_is_called_different_one_time_in_twenty(self):
        rng = np.random.default_rng(15)
        wrong = 0
        for c, a, b, d in rng.binomial(500, 0.3, (self.RUNS, 4)).tolist():
            raw = [known(statistics.two_proportions((c, x), (500, 500))).p_value for x in (a, b, d)]
            wrong += min(known(p) for p in statistics.holm(raw)) < 0.05
        assert wrong / self.RUNS <= 0.05 + self.THREE_ERRORS

    def test_a_fair_split_is_called_a_mismatch_one_time_in_a_thousand(self):
        rng = np.random.default_rng(16)
        draws = rng.multinomial(3000, [0.2, 0.3, 0.5], 20_000)
        p = [known(statistics.sample_ratio([Split(tuple(x), (0.2, 0.3, 0.5))])).p_value for x in draws.tolist()]
        assert sum(v < statistics.SRM_ALPHA for v in p) / 20_000 == pytest.approx(0.001, abs=0.0007)

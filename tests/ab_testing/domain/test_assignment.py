"""Assignment: deterministic, uniform, independent between tests, and stable when weights change."""

import math
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from mlops_platform.ab_testing.domain import assignment
from mlops_platform.ab_testing.domain.assignment import SLOTS, allocate, moved_share, quotas, reallocate, unit_slots

SALT = "00112233445566778899aabbccddeeff"
UNITS = 60_000


@st.composite
def weight_lists(draw, *, size=None, least=0):
    count = size or draw(st.integers(2, 6))
    parts = draw(st.lists(st.integers(least, 1000), min_size=count, max_size=count).filter(lambda p: sum(p) > 0))
    return [part / sum(parts) for part in parts]


@st.composite
def reweightings(draw):
    """A fresh allocation, then a few changes of weights, some of which add variants."""
    steps = [draw(weight_lists())]
    for _ in range(draw(st.integers(1, 4))):
        size = min(len(steps[-1]) + draw(st.integers(0, 2)), 8)
        steps.append(draw(weight_lists(size=size)))
    return steps


class TestHash:
    @pytest.mark.parametrize(
        ("salt", "unit", "slots"),
        [
            (SALT, "user_123", (572565, 326715)),
            (SALT, "", (929340, 575646)),
            (SALT, "0", (606700, 806805)),
            (SALT, "юзер-42", (336299, 248122)),
            ("ffffffffffffffffffffffffffffffff", "user_123", (966197, 380156)),
        ],
    )
    def test_the_published_vectors_hold(self, salt, unit, slots):
        assert unit_slots(salt, unit) == slots

    @given(unit=st.text(max_size=50))
    def test_slots_are_in_range_and_the_same_each_time(self, unit):
        try:
            unit.encode()
        except UnicodeEncodeError:
            return
        first = unit_slots(SALT, unit)
        assert first == unit_slots(SALT, unit)
        assert all(0 <= slot < SLOTS for slot in first)

    def test_the_ends_of_the_hash_space_are_slots(self):
        assert assignment.digest_slots(b"\x00" * 32) == (0, 0)
        assert assignment.digest_slots(b"\xff" * 32) == (SLOTS - 1, SLOTS - 1)

    @pytest.mark.parametrize("bins", [10, 100, 1000])
    @pytest.mark.parametrize("which", [0, 1])
    def test_slots_are_uniform_over_sequential_ids(self, bins, which):
        counts = Counter(unit_slots(SALT, f"user_{i}")[which] * bins // SLOTS for i in range(UNITS))
        assert chisquare([counts[b] for b in range(bins)]).pvalue > 1e-4

    def test_two_tests_split_independently(self):
        table = Counter(
            (unit_slots(SALT, f"user_{i}")[1] < SLOTS // 2, unit_slots("another", f"user_{i}")[1] < SLOTS // 2)
            for i in range(UNITS)
        )
        assert chisquare(list(table.values())).pvalue > 1e-4

    def test_a_partial_roll_out_is_split_as_weighted(self):
        # One slot for traffic and variant together would give the whole tenth to the first variant.
        inside = [slots for i in range(UNITS) if (slots := unit_slots(SALT, f"user_{i}"))[0] < SLOTS // 10]
        first = sum(slot < SLOTS // 2 for _, slot in inside)
        assert chisquare([first, len(inside) - first]).pvalue > 1e-4


class TestQuotas:
    @given(weights=weight_lists())
    def test_quotas_sum_to_all_slots_and_are_within_one_of_the_weight(self, weights):
        whole = quotas(weights)
        assert sum(whole) == SLOTS
        total = math.fsum(weights)
        assert all(abs(q - w / total * SLOTS) <= 1 for q, w in zip(whole, weights, strict=True))

    @given(weights=weight_lists())
    def test_no_weight_means_no_slot(self, weights):
        assert all(q == 0 for q, w in zip(quotas(weights), weights, strict=True) if w == 0)


class TestReallocation:
    @given(steps=reweightings())
    @settings(max_examples=150, deadline=None)
    def test_each_change_moves_the_fewest_units_possible(self, steps):
        current = allocate(steps[0])
        for weights in steps[1:]:
            after = reallocate(current, weights)
            before_quotas, after_quotas = _owned(current, len(weights)), _owned(after, len(weights))
            assert after_quotas == quotas(weights)
            lost = sum(max(0, b - a) for b, a in zip(before_quotas, after_quotas, strict=True))
            assert round(moved_share(current, after) * SLOTS) == lost
            current = after

    @given(steps=reweightings())
    @settings(max_examples=100, deadline=None)
    def test_a_variant_that_does_not_shrink_loses_nobody(self, steps):
        current = allocate(steps[0])
        for weights in steps[1:]:
            after = reallocate(current, weights)
            had, has = _owned(current, len(weights)), _owned(after, len(weights))
            for start, end, owner in current.ranges():
                if has[owner] >= had[owner]:
                    assert after.owner(start) == owner
                    assert after.owner(end - 1) == owner
            current = after

    @given(weights=weight_lists())
    def test_the_same_weights_move_nobody(self, weights):
        current = allocate(weights)
        assert reallocate(current, weights) == current

    @given(weights=weight_lists(), steps=reweightings())
    @settings(max_examples=50, deadline=None)
    def test_ranges_cover_every_slot_once_and_neighbours_differ(self, weights, steps):
        current = allocate(steps[0])
        for change in steps[1:]:
            current = reallocate(current, change)
        assert current.ends[-1] == SLOTS
        assert list(current.ends) == sorted(set(current.ends))
        assert all(a != b for a, b in zip(current.owners, current.owners[1:], strict=False))

    def test_ranges_stay_few_when_weights_swing_for_long(self):
        current = allocate([0.25] * 4)
        for step in range(200):
            raw = [1 + (step * k) % 7 for k in (1, 2, 3, 5)]
            current = reallocate(current, [r / sum(raw) for r in raw])
        assert len(current.ends) < 400

    def test_raising_the_traffic_share_keeps_everyone_who_was_inside(self):
        shares = [0.01, 0.1, 0.5, 1.0]
        assert [assignment.traffic_slots(s) for s in shares] == sorted(assignment.traffic_slots(s) for s in shares)
        assert assignment.traffic_slots(1.0) == SLOTS


class TestWeights:
    @pytest.mark.parametrize(
        ("weights", "says"),
        [
            ([0.5, 0.4], "sum to 0.9"),
            ([0.5, 0.6], "sum to 1.1"),
            ([0.0, 1.0], "positive"),
            ([-0.5, 1.5], "positive"),
            ([1e-7, 1 - 1e-7], "at least 0.000001"),
        ],
    )
    def test_wrong_weights_are_named(self, weights, says):
        problem = assignment.weights_problem(weights)
        assert problem is not None
        assert says in problem

    @pytest.mark.parametrize("weights", [[0.5, 0.5], [0.1, 0.2, 0.7], [0.33333, 0.33333, 0.33333], [1 / 3] * 3])
    def test_weights_that_sum_to_one_but_for_rounding_pass(self, weights):
        assert assignment.weights_problem(weights) is None

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_weights_that_are_no_numbers_are_refused(self, value):
        assert assignment.weights_problem([value, 0.5], zero_allowed=True) is not None


def test_the_shares_of_a_large_crowd_follow_the_weights():
    allocation = allocate([0.2, 0.3, 0.5])
    counts = Counter(allocation.owner(unit_slots(SALT, f"user_{i}")[1]) for i in range(UNITS))
    expected = [UNITS * w for w in (0.2, 0.3, 0.5)]
    assert chisquare([counts[i] for i in range(3)], expected).pvalue > 1e-4
    assert statistics.fmean(counts.values()) == UNITS / 3


def _owned(allocation, variants):
    counts = [0] * variants
    for start, end, owner in allocation.ranges():
        counts[owner] += end - start
    return counts

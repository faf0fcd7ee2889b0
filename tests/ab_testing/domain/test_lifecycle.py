"""The lifecycle is closed: every pair of states is decided."""

from itertools import product

import pytest

from mlops_platform.ab_testing.domain import lifecycle
from mlops_platform.contracts.ab_testing import ABTestStatus, RouteReason

ALLOWED = {
    ("draft", "running"),
    ("draft", "archived"),
    ("running", "paused"),
    ("running", "stopped"),
    ("paused", "running"),
    ("paused", "stopped"),
    ("stopped", "archived"),
}


@pytest.mark.parametrize(("current", "to"), list(product(ABTestStatus, ABTestStatus)))
def test_only_the_listed_moves_are_allowed(current, to):
    assert lifecycle.may_move(current, to) == ((current.value, to.value) in ALLOWED)


def test_every_status_has_its_row():
    assert set(lifecycle.TRANSITIONS) == set(ABTestStatus)


@pytest.mark.parametrize(
    ("status", "has_winner", "reason"),
    [
        (ABTestStatus.DRAFT, False, RouteReason.NOT_STARTED),
        (ABTestStatus.PAUSED, False, RouteReason.PAUSED),
        (ABTestStatus.STOPPED, False, RouteReason.STOPPED),
        (ABTestStatus.STOPPED, True, RouteReason.CONCLUDED),
    ],
)
def test_a_test_that_does_not_split_says_why(status, has_winner, reason):
    assert lifecycle.fallback_reason(status, has_winner=has_winner) is reason

"""Where a test may go from where it stands, and what it answers on the way."""

from mlops_platform.contracts.ab_testing import ABTestStatus, RouteReason

TRANSITIONS: dict[ABTestStatus, frozenset[ABTestStatus]] = {
    ABTestStatus.DRAFT: frozenset({ABTestStatus.RUNNING, ABTestStatus.ARCHIVED}),
    ABTestStatus.RUNNING: frozenset({ABTestStatus.PAUSED, ABTestStatus.STOPPED}),
    ABTestStatus.PAUSED: frozenset({ABTestStatus.RUNNING, ABTestStatus.STOPPED}),
    ABTestStatus.STOPPED: frozenset({ABTestStatus.ARCHIVED}),
    ABTestStatus.ARCHIVED: frozenset(),
}
"""A stopped test never runs again: its results would mix two periods. Make a new one."""

STARTABLE = frozenset({ABTestStatus.DRAFT, ABTestStatus.RUNNING})
"""What a new test may begin as."""

RECORDING = frozenset({ABTestStatus.RUNNING, ABTestStatus.PAUSED, ABTestStatus.STOPPED})
"""Outcomes come late: a stopped test still takes them, a draft or an archived one does not."""


def may_move(current: ABTestStatus, to: ABTestStatus) -> bool:
    """Whether the transition table allows it.

    >>> may_move(ABTestStatus.DRAFT, ABTestStatus.RUNNING), may_move(ABTestStatus.STOPPED, ABTestStatus.RUNNING)
    (True, False)
    """
    return to in TRANSITIONS[current]


def fallback_reason(status: ABTestStatus, *, has_winner: bool) -> RouteReason:
    """Why a test that does not split gives everyone one model version."""
    if status is ABTestStatus.DRAFT:
        return RouteReason.NOT_STARTED
    if status is ABTestStatus.PAUSED:
        return RouteReason.PAUSED
    return RouteReason.CONCLUDED if has_winner else RouteReason.STOPPED

"""The state machines, each one table, and what follows from the end of an attempt."""

from dataclasses import dataclass

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState, TaskRunState
from mlops_platform.pipelines.errors import IllegalTransition

_T = TaskRunState
_R = PipelineRunState

MAX_LOSSES = 3
MAX_BACKOFF_SECONDS = 3600.0

TASK_TRANSITIONS: dict[TaskRunState, frozenset[TaskRunState]] = {
    _T.WAITING: frozenset({_T.READY, _T.UPSTREAM_FAILED, _T.CANCELLED}),
    _T.READY: frozenset({_T.RUNNING, _T.CANCELLED}),
    _T.RUNNING: frozenset({_T.SUCCEEDED, _T.FAILED, _T.RETRY_WAIT, _T.EXPANDED, _T.CANCELLED}),
    _T.RETRY_WAIT: frozenset({_T.RUNNING, _T.CANCELLED}),
    _T.EXPANDED: frozenset({_T.SUCCEEDED, _T.FAILED, _T.CANCELLED}),
    # Out of a terminal state leads only the retry of the whole run.
    _T.FAILED: frozenset({_T.READY, _T.EXPANDED}),
    _T.UPSTREAM_FAILED: frozenset({_T.WAITING}),
    _T.CANCELLED: frozenset({_T.WAITING, _T.READY, _T.EXPANDED}),
    _T.SUCCEEDED: frozenset(),
}

RUN_TRANSITIONS: dict[PipelineRunState, frozenset[PipelineRunState]] = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.CANCELLED}),
    _R.RUNNING: frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLING, _R.CANCELLED}),
    _R.CANCELLING: frozenset({_R.CANCELLED}),
    _R.FAILED: frozenset({_R.RUNNING}),
    _R.CANCELLED: frozenset({_R.RUNNING}),
    _R.SUCCEEDED: frozenset(),
}

OPEN_TASKS = frozenset({_T.WAITING, _T.READY, _T.RUNNING, _T.RETRY_WAIT, _T.EXPANDED})
CLAIMABLE_TASKS = frozenset({_T.READY, _T.RETRY_WAIT})
OPEN_RUNS = frozenset({_R.QUEUED, _R.RUNNING, _R.CANCELLING})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What the task's author allows."""

    retries: int = 0
    delay_seconds: float = 1.0
    retry_on_loss: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """How often the task has failed and been lost before, and whether its run is being cancelled."""

    failures: int = 0
    losses: int = 0
    is_cancelling: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where the task goes now. `delay_seconds` counts until its next attempt, when there is one."""

    state: TaskRunState
    failures: int
    losses: int
    delay_seconds: float | None = None


def check_run_move(current: PipelineRunState, target: PipelineRunState) -> None:
    """Raise `IllegalTransition` unless the table has the edge."""
    if target not in RUN_TRANSITIONS[current]:
        raise IllegalTransition("pipeline run", current, target)


def task_sources(target: TaskRunState) -> tuple[TaskRunState, ...]:
    """The states from which a task can come to `target`: the guard of the UPDATE that moves it."""
    return tuple(source for source, targets in TASK_TRANSITIONS.items() if target in targets)


def settle(ended: AttemptState, progress: Progress, policy: RetryPolicy, *, jitter: float) -> Settlement:
    """What follows from an attempt that ended. `jitter` is a chance in [0, 1).

    Failures count against the author's `retries`. Losses (the worker fell silent) do not, for they are the platform's
    fault; they have a bound of their own, so that a task that kills its machine cannot go round for ever.
    """
    failures, losses = progress.failures, progress.losses
    if ended is AttemptState.SUCCEEDED:
        return Settlement(_T.SUCCEEDED, failures, losses)
    if progress.is_cancelling or ended is AttemptState.CANCELLED:
        return Settlement(_T.CANCELLED, failures, losses)
    if ended is AttemptState.EXPANDED:
        return Settlement(_T.EXPANDED, failures, losses)
    if ended is AttemptState.LOST:
        losses += 1
        delay = 0.0 if policy.retry_on_loss and losses <= MAX_LOSSES else None
    else:
        failures += 1
        delay = backoff_seconds(policy.delay_seconds, failures, jitter) if failures <= policy.retries else None
    return Settlement(_T.FAILED if delay is None else _T.RETRY_WAIT, failures, losses, delay)


def backoff_seconds(delay_seconds: float, failures: int, jitter: float) -> float:
    """Doubles with each failure up to an hour; the upper half is chance, so that tasks that failed together part.

    >>> [backoff_seconds(10, n, 0.0) for n in (1, 2, 3)], backoff_seconds(10, 1, 0.5)
    ([5.0, 10.0, 20.0], 7.5)
    """
    longest = min(delay_seconds * 2.0 ** min(failures - 1, 30), max(MAX_BACKOFF_SECONDS, delay_seconds))
    return longest * (0.5 + jitter / 2)


def final_run_state(current: PipelineRunState, *, any_unsuccessful: bool) -> PipelineRunState:
    """How a run ends whose tasks are all terminal."""
    if current is _R.CANCELLING:
        return _R.CANCELLED
    return _R.FAILED if any_unsuccessful else _R.SUCCEEDED


def is_attempt_over(state: TaskRunState, *, latest: int, number: int) -> bool:
    """Whether an attempt will write nothing more: it has ended, or it will never be made."""
    if state not in OPEN_TASKS or number < latest:
        return True
    return 0 < number == latest and state is not _T.RUNNING

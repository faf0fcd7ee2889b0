"""The runs that are open here: in this thread, or in this asynchronous task."""

from contextvars import ContextVar
from typing import Any

_open_runs: ContextVar[tuple[Any, ...]] = ContextVar("mlops_open_runs", default=())


def enter(run: Any) -> None:
    """From now on this is the innermost run."""
    _open_runs.set((*_open_runs.get(), run))


def leave(run: Any) -> None:
    """The run is open no longer, whether or not others were opened since."""
    _open_runs.set(tuple(other for other in _open_runs.get() if other is not run))


def innermost(owner: object | None = None) -> Any | None:
    """The run that was opened last, of those that `owner` started when one is named."""
    runs = _open_runs.get()
    return next((run for run in reversed(runs) if owner is None or run.owner is owner), None)

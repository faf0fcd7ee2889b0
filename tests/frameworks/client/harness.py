"""A platform that records trainings by themselves, and a run around each check."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mlops_platform.sdk import Platform
from mlops_platform.sdk.autolog.patches import AutologWarning

# What was not recorded is a failure here; elsewhere it is a warning.
TROUBLE: list[str] = []
warnings.filterwarnings("always", category=AutologWarning)
_show = warnings.showwarning


def _noted(message, category, *rest, **named):
    if issubclass(category, AutologWarning):
        TROUBLE.append(str(message))
    _show(message, category, *rest, **named)


warnings.showwarning = _noted
platform = Platform()


@contextmanager
def recorded(name: str, **options) -> Iterator[str]:
    """The id of a run whose block is open, while trainings record themselves; nothing may go wrong with that."""
    TROUBLE.clear()
    platform.tracking.autolog("frameworks", **options)
    try:
        with platform.tracking.run("frameworks", run_name=name) as run:
            yield run.id
    finally:
        platform.tracking.autolog(disable=True)
    assert not TROUBLE, TROUBLE

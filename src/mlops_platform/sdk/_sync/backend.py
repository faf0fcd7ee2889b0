"""The few things that truly differ between the two clients; its twin in the asynchronous one is written by hand too."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Later = Annotated[R, "at once"]
"""What a method of the client answers, which there is nothing to wait for."""


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """A synchronous caller is in a thread already."""
    return function(*args, **kwargs)


def now(function: Callable[[], R]) -> R | None:
    """A synchronous caller may wait."""
    return function()


def for_each(items: Iterable[T], function: Callable[[T], R], *, at_once: int) -> list[R]:
    """Apply `function` to all items, `at_once` at a time; the first error cancels what has not begun."""
    todo = list(items)
    if len(todo) <= 1 or at_once == 1:
        return [function(item) for item in todo]
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="mlops-transfer") as threads:
        futures = [threads.submit(function, item) for item in todo]
        try:
            return [future.result() for future in futures]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


class Outside:
    """How the recorder's thread runs a request of this client: by itself."""

    def call(self, function: Callable[[], R], *, timeout_seconds: float) -> R:
        """Run one request; its own time-outs bound it."""
        return function()

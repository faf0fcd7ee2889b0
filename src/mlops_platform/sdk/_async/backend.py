"""The few things that truly differ between the two clients; its twin in the synchronous one is written by hand too."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
Later = Awaitable
"""What a method of the client answers, before it is waited for."""


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run something that blocks without holding up the loop."""
    return await asyncio.to_thread(function, *args, **kwargs)


def now(_: Callable[[], Awaitable[R]]) -> R | None:
    """What can be had without waiting on the loop: nothing."""
    return None


async def for_each(items: Iterable[T], function: Callable[[T], Awaitable[R]], *, at_once: int) -> list[R]:
    """Apply `function` to all items, `at_once` at a time; the first error cancels the rest."""
    room = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with room:
            return await function(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


class Outside:
    """How the recorder's thread runs a request of this client: on the loop that made the client busy."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[[], Awaitable[R]], *, timeout_seconds: float) -> R:
        """Run one coroutine and wait for it; `TimeoutError` when the loop has no time for it."""

        async def run() -> R:
            return await function()

        if self._loop.is_closed():
            raise TimeoutError("the event loop is closed")
        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()
            raise

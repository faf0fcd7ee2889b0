"""Waiting for what another task does, at most a few seconds."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], *, seconds: float = 5) -> None:
    """Return as soon as the condition (also a coroutine function) holds; TimeoutError when it never does."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.005)

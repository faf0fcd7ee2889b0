"""Waiting for what other processes do, bounded."""

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


async def eventually(probe: Callable[[], Any], *, within: float = 30.0) -> Any:
    """The first true answer of `probe`, asked again and again; fails after `within` seconds."""
    end = time.monotonic() + within
    while True:
        answer = probe()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {within} s: {probe}"
        await asyncio.sleep(0.02)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"

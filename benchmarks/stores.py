"""The other floor: the bare call that each hot path is built around, without HTTP."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from mlops_platform.ab_testing.domain.assignment import unit_slots
from mlops_platform.core.db.embedded.running import running_address

_INSERT = "INSERT INTO bench.points (run, step, value) VALUES ($1, $2, $3)"


def costs(home: Path, seconds: float) -> dict[str, float]:
    """Calls per second of one hash, and of one durable insert at a time from 1 and from 16 connections."""
    address = running_address(home)
    if address is None:
        raise RuntimeError("the platform is not up")
    figures = {"assignment_hashes_per_second": per_second(lambda: unit_slots("salt", "user_123"), seconds / 3)}
    for connections in (1, 16):
        rate = asyncio.run(_inserts(address.owner_dsn(), connections, seconds))
        figures[f"single_row_commits_per_second_x{connections}"] = rate
    return figures


def per_second(call: Callable[[], object], seconds: float) -> float:
    """How often a function can be called."""
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(1000):
            call()
        count += 1000
    return count / (time.perf_counter() - begun)


async def _inserts(dsn: str, connections: int, seconds: float) -> float:
    pool = await asyncpg.create_pool(dsn, min_size=connections, max_size=connections)
    try:
        await pool.execute("CREATE SCHEMA IF NOT EXISTS bench")
        await pool.execute("CREATE TABLE IF NOT EXISTS bench.points (run int, step bigint, value float8)")
        until = time.perf_counter() + seconds

        async def writer(number: int) -> int:
            count = 0
            async with pool.acquire() as connection:
                while time.perf_counter() < until:
                    await connection.execute(_INSERT, number, count, 0.5)
                    count += 1
            return count

        return sum(await asyncio.gather(*(writer(n) for n in range(connections)))) / seconds
    finally:
        await pool.execute("DROP SCHEMA bench CASCADE")
        await pool.close()

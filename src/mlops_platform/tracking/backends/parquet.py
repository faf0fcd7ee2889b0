"""The beginning of a Parquet file, read by a process of its own that gets the bytes it asks for and nothing else."""

import asyncio
import json
import os
import struct
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from mlops_platform.core.errors import TooManyRequests
from mlops_platform.tracking.domain.previews import LONGEST_CELL, MOST_COLUMNS, MOST_ROWS, Table

log = structlog.get_logger(__name__)

_PROGRAM = str(Path(__file__).with_name("parquet_process.py"))
_SECONDS = 15.0
_AT_ONCE = 2
_MOST_FETCHED = 128 * 1024 * 1024
_MOST_AT_ONCE = 32 * 1024 * 1024
_MOST_ANSWERED = 16 * 1024 * 1024

Fetch = Callable[[int, int], Awaitable[bytes]]


class NotReadable(Exception):
    """Why there are no rows, in words for the caller."""


class ParquetHead:
    """Reads few files at a time in this server process; who comes meanwhile is asked to come again."""

    _free = threading.BoundedSemaphore(_AT_ONCE)

    def __init__(self, *, seconds: float = _SECONDS) -> None:
        self._seconds = seconds

    async def read(self, size: int, fetch: Fetch) -> Table:
        """Schema and first rows of a file of `size` bytes, of which `fetch(start, end)` gives any part."""
        if not self._free.acquire(blocking=False):
            raise TooManyRequests("Other files are being previewed.", retry_after_seconds=2)
        try:
            answer = json.loads(await self._ask(size, fetch))
        finally:
            self._free.release()
        columns = [(name, kind) for name, kind in answer["columns"]]
        return Table(columns, answer["rows"], answer["row_count"], answer["is_cut"])

    async def _ask(self, size: int, fetch: Fetch) -> bytes:
        limits = json.dumps({"size": size, "rows": MOST_ROWS, "columns": MOST_COLUMNS, "cell": LONGEST_CELL})
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            _PROGRAM,
            limits,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await _converse(process, size, fetch)
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotReadable(f"It was not read within {self._seconds:g} s.") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise NotReadable("It is no Parquet file that can be read within limits.") from None
        finally:
            if process.returncode is None:
                process.kill()
            # Not wait(): that never returns while there is more in the pipe than anybody reads.
            await process.communicate()


async def _converse(process: Any, size: int, fetch: Fetch) -> bytes:
    """Give the process what it asks for until it answers."""
    fetched = 0
    while True:
        kind, start, length = struct.unpack(">cQQ", await process.stdout.readexactly(17))
        if kind == b"A":
            if length > _MOST_ANSWERED:
                raise NotReadable("Its first rows are too large to be shown.")
            return bytes(await process.stdout.readexactly(length))
        fetched += length
        if length > _MOST_AT_ONCE or fetched > _MOST_FETCHED or start + length > size:
            raise NotReadable("Its first rows lie in a row group that is too large to be previewed.")
        process.stdin.write(await fetch(start, start + length))
        await process.stdin.drain()

"""A closed-loop HTTP client that costs little: one request in flight per connection, answers counted and timed.

It runs in a process of its own. Requests are bytes made beforehand; of each answer only the status line and the length are
looked at. So the generator stays well above the servers that it measures, and a ratio between two of them is theirs.
"""

import asyncio
import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from time import perf_counter
from typing import Any, cast

import uvloop

_CACHEABLE = 2000


class Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered."""

    def __init__(self, requests: Iterator[bytes], until: float, latencies: list[float], done: asyncio.Future[None]) -> None:
        self._requests, self._until, self._latencies, self._done = requests, until, latencies, done
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.find(b"content-length: ")
        length = int(self._buffer[at + 16 : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) < end + 4 + length:
            return
        if not self._buffer.startswith(b"HTTP/1.1 2"):
            self._fail(RuntimeError(f"the server answered {self._buffer[:400]!r}"))
            return
        self._buffer = b""
        now = perf_counter()
        self._latencies.append(now - self._sent)
        if now < self._until:
            self._next()
        else:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the server hung up"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._end()
            return
        self._sent = perf_counter()
        self._transport.write(request)

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        self._transport.close()

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


def spin(loop: asyncio.AbstractEventLoop) -> None:
    """Never sleep: waking a sleeping core costs a virtual machine more than the answers that are measured."""
    loop.call_soon(spin, loop)


async def load(job: dict[str, Any], requests: list[bytes]) -> dict[str, float]:
    """Requests per second, and the median and 99th percentile of the latency in milliseconds."""
    port, connections, seconds = job["port"], job["connections"], job["seconds"]
    if job["spin"]:
        spin(asyncio.get_running_loop())
    # Warm up for a while, and until every request that may be cached was sent once.
    supply = cycle(requests)
    await _round(port, supply, connections, min(0.5, seconds))
    if len(requests) <= _CACHEABLE:
        await _round(port, iter(requests), connections, None)
    begun = perf_counter()
    latencies = await _round(port, supply, connections, seconds)
    elapsed = perf_counter() - begun
    latencies.sort()
    return {
        "per_second": len(latencies) / elapsed,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
    }


async def _round(port: int, supply: Iterator[bytes], connections: int, seconds: float | None) -> list[float]:
    """Send until the time is over, or (None) until the supply is."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    until = perf_counter() + seconds if seconds is not None else math.inf
    ends = [loop.create_future() for _ in range(connections)]
    for end in ends:
        make = partial(Connection, supply, until, latencies, end)
        await loop.create_connection(make, "127.0.0.1", port)
    await asyncio.gather(*ends)
    return latencies


def main() -> None:
    """Read the job from standard input, write the figures to standard output."""
    job = json.load(sys.stdin)
    requests = [request.encode("latin-1") for request in job["requests"]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(load(job, requests))))


if __name__ == "__main__":
    main()

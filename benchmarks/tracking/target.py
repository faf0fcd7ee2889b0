"""What both servers are asked, each in its own words, and how one request is timed."""

import http.client
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

KEYS = ("loss", "accuracy", "recall")
NOW_MS = 1_769_850_000_000


class Target(ABC):
    """One server that is up. Paths and bodies differ, the questions do not."""

    name: str
    port: int

    def __init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None
        self._last = 0.0

    @abstractmethod
    def headers(self) -> dict[str, str]: ...

    @abstractmethod
    def create_experiment(self, name: str) -> str: ...

    @abstractmethod
    def create_run(self, experiment: str) -> str: ...

    @abstractmethod
    def metric(self, run: str, step: int) -> tuple[str, Any]:
        """Path and body of one point."""

    @abstractmethod
    def batch(self, run: str, first: int, points: int, keys: int) -> tuple[str, Any]:
        """Path and body of many points."""

    @abstractmethod
    def read_all(self, run: str, key: str) -> int:
        """Read every exact point of a metric; how many there were."""

    @abstractmethod
    def series(self, runs: list[str], points: int) -> int:
        """A chart of one metric of several runs; how many points came."""

    filter = "metrics.loss < 0.9 AND params.kind = 'b'"

    @abstractmethod
    def search(self, experiment: str, token: str | None) -> tuple[int, str | None]:
        """A page of 100 by a filter on a metric and a parameter, ordered by a metric."""

    @abstractmethod
    def count(self, experiment: str) -> int:
        """How many runs an experiment has."""

    @abstractmethod
    def upload(self, run: str, content: bytes) -> None: ...

    @abstractmethod
    def download(self, run: str) -> int: ...

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> bytes:
        """One request on a connection that is kept."""
        if self._connection is None or time.perf_counter() - self._last > 2:
            # A server hangs up on who is silent for some seconds, in the middle of a request if need be.
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {**self.headers(), "Content-Type": "application/octet-stream" if raw is not None else "application/json"}
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        found = answer.read()
        self._last = time.perf_counter()
        if answer.status >= 300:
            raise RuntimeError(f"{self.name}: {method} {path} answered {answer.status} {found[:300]!r}")
        return found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.call(method, path, body) or b"null")

    def request(self, path: str, body: Any) -> str:
        """The bytes of a POST, for the load generator."""
        content = json.dumps(body)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers().items())
        return f"{head}Content-Length: {len(content)}\r\n\r\n{content}"


def timed(call: Callable[[], object], *, times: int, seconds: float) -> dict[str, float]:
    """Median and 95th percentile of a call in milliseconds, over so many times or so long."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 3 or (len(taken) < times and time.perf_counter() < until):
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1000)
    taken.sort()
    return {"p50_ms": statistics.median(taken), "p95_ms": taken[min(len(taken) - 1, int(len(taken) * 0.95))]}


def once(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def steps() -> Iterator[int]:
    """Steps that no request of this run has used."""
    return iter(range(10**9))

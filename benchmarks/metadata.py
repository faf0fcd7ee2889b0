"""python -m benchmarks.metadata [--times 200] [--json FILE]: what requests over metadata cost, latency and CPU, one by one.

One kept connection, one request at a time, on the services of `mlops up`. The CPU columns are the time that the server
process and PostgreSQL spent for one request: on a machine that others use they are steadier than the latency.
"""

import argparse
import http.client
import json
import os
import platform as machine
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from psutil import NoSuchProcess, Process
from rich.console import Console
from rich.table import Table

from benchmarks.processes import Running, home_directory, platform_up

Call = Callable[[int], object]
PARAMETERS = {"learning_rate": 0.001, "batch_size": 32}
WARM_UP = 30


class Kept:
    """A service, asked over one connection that is kept."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        found = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} answered {answer.status} {found[:300]!r}")
        return json.loads(found or b"null")


def main() -> None:
    """Measure, print, and keep the figures when asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=200, help="requests per figure")
    arguments.add_argument("--only", help="the calls whose names hold this")
    arguments.add_argument("--json", type=Path, help="also write the figures to this file")
    options = arguments.parse_args()
    console = Console()
    console.print(
        f"{machine.machine()}, {os.cpu_count()} cores, Python {machine.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start"
    )
    figures = measure(options.times, options.only or "")
    show(figures, console)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(times: int, wanted: str) -> dict[str, dict[str, float]]:
    """Every call, one after the other."""
    with home_directory() as home, platform_up(home) as running:
        time.sleep(3)  # let the worker and the background duties come to rest
        # One after the other: a server hangs up on a connection that is silent for some seconds.
        named = chain(tracking_calls(running), registry_calls(running))
        return {name: cost(running.process, call, times) for name, call in named if wanted in name}


def tracking_calls(running: Running) -> Iterator[tuple[str, Call]]:
    """What a training script and a page of a run ask for."""
    service = Kept(running.ports["tracking"], running.key)
    experiment = service.ask("POST", "/api/experiments", {"name": "metadata"})["id"]
    beginning = {"run_name": "bench", "parameters": PARAMETERS, "tags": {"kind": "bench"}}

    def create(_: int) -> Any:
        return service.ask("POST", f"/api/experiments/{experiment}/runs", beginning)

    run = create(0)["id"]
    service.ask("POST", f"/api/runs/{run}/metrics", {"loss": 0.5, "accuracy": 0.9, "step": 1})
    statuses = ("FINISHED", "RUNNING")
    yield "create run", create
    yield "get run", lambda _: service.ask("GET", f"/api/runs/{run}")
    yield "set tag", lambda n: service.ask("POST", f"/api/runs/{run}/tags", {"tags": {"stage": f"s{n}"}})
    logged = create(0)["id"]
    yield "log param", lambda n: service.ask("POST", f"/api/runs/{logged}/params", {"parameters": {f"p{n}": n}})
    yield "update run", lambda n: service.ask("PATCH", f"/api/runs/{run}", {"notes": f"note {n}"})
    yield "finish or resume run", lambda n: service.ask("PATCH", f"/api/runs/{run}", {"status": statuses[n % 2]})
    yield "get experiment", lambda _: service.ask("GET", f"/api/experiments/{experiment}")
    yield "create experiment", lambda n: service.ask("POST", "/api/experiments", {"name": f"e{n}-{time.time_ns()}"})


def registry_calls(running: Running) -> Iterator[tuple[str, Call]]:
    """What a deployment asks for."""
    service = Kept(running.ports["registry"], running.key)
    stamp = time.time_ns()

    def version(name: str, label: str) -> Any:
        body = {"name": name, "version": label, "framework": "scikit-learn", "metrics": {"f1": 0.9}, "tags": ["bench"]}
        return service.ask("POST", "/api/models", body)

    for label in ("1.0.0", "2.0.0"):
        version("bench", label)
    alias = "/api/models/bench/aliases/champion"
    yield "create model", lambda n: version(f"m{n}-{stamp}", "1.0.0")
    yield "create version", lambda n: version("many", f"1.0.{n}")
    yield "get version", lambda _: service.ask("GET", "/api/models/bench/versions/1.0.0")
    yield "move alias", lambda n: service.ask("PUT", alias, {"version": f"{1 + n % 2}.0.0"})
    yield "page of models", lambda _: service.ask("GET", "/api/models?page_size=20")
    yield "models by tag", lambda _: service.ask("GET", "/api/models?tags=bench&page_size=20")


def cost(server: Process, call: Call, times: int) -> dict[str, float]:
    """Milliseconds of one request: median and 95th percentile of the latency, and CPU of the server and the database."""
    for n in range(WARM_UP):
        call(n)
    before = cpu_seconds(server)
    taken = []
    for n in range(WARM_UP, WARM_UP + times):
        begun = time.perf_counter()
        call(n)
        taken.append((time.perf_counter() - begun) * 1000)
    after = cpu_seconds(server)
    taken.sort()
    return {
        "p50_ms": statistics.median(taken),
        "p95_ms": taken[int(times * 0.95)],
        "server_cpu_ms": (after[0] - before[0]) * 1000 / times,
        "database_cpu_ms": (after[1] - before[1]) * 1000 / times,
    }


def cpu_seconds(server: Process) -> tuple[float, float]:
    """Of the server process, and of the database's processes; the latter are those of its connections, which are kept."""
    database = 0.0
    for child in server.children(recursive=True):
        try:
            if child.name() == "postgres":
                times = child.cpu_times()
                database += times.user + times.system
        except NoSuchProcess:
            continue
    times = server.cpu_times()
    return times.user + times.system, database


def show(figures: dict[str, dict[str, float]], console: Console) -> None:
    """The table."""
    table = Table(title="Metadata, one connection, with authentication, audit and events on; milliseconds")
    headings = {
        "p50_ms": "p50",
        "p95_ms": "p95",
        "server_cpu_ms": "CPU of the server",
        "database_cpu_ms": "CPU of PostgreSQL",
    }
    table.add_column("request")
    for heading in headings.values():
        table.add_column(heading, justify="right")
    for name, row in figures.items():
        table.add_row(name, *(f"{row[key]:.2f}" for key in headings))
    console.print(table)


if __name__ == "__main__":
    main()

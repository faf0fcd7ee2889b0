"""python -m benchmarks [--seconds 3] [--json FILE]: every hot path beside its floor, as ratios from one run."""

import argparse
import json
import os
import platform as machine
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import client_cost, stores
from benchmarks.processes import Running, floor_up, home_directory, load, platform_up

CONNECTIONS = (1, 16)
FEATURES = [f"f{number}" for number in range(10)]
TEST = "bench_test"


def main() -> None:
    """Measure, print, and keep the figures when asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of load per figure")
    arguments.add_argument("--json", type=Path, help="also write the figures to this file")
    options = arguments.parse_args()
    console = Console()
    console.print(
        f"{machine.machine()}, {os.cpu_count()} cores, Python {machine.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start. Ratios are of this run; absolute figures are this machine's."
    )
    figures = measure(options.seconds, console)
    show(figures, console)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(seconds: float, console: Console) -> dict[str, dict[str, float]]:
    """Everything, in turn: floor and ours alternate, so that a machine that slows down slows both."""
    figures: dict[str, dict[str, float]] = {}
    with home_directory() as home:
        with platform_up(home) as cold:
            figures["start"] = {"cold_seconds": cold.seconds_to_answer}
        with platform_up(home) as warm, floor_up() as floor:
            figures["start"]["warm_seconds"] = warm.seconds_to_answer
            time.sleep(3)  # let the worker and the background duties come to rest
            figures["memory"] = {"idle_pss_mb": warm.memory_mb()}
            for name, (port, requests) in hot_paths(warm).items():
                for connections in CONNECTIONS:
                    console.print(f"  {name}, {connections} connections …")
                    spin = name != "ingest"
                    bare = load(floor, [FLOOR_REQUEST], connections=connections, seconds=seconds, spin=spin)
                    ours = load(port, requests(), connections=connections, seconds=seconds, spin=spin)
                    figures[f"{name} x{connections}"] = {
                        **ours,
                        "floor_per_second": bare["per_second"],
                        "ratio": ours["per_second"] / bare["per_second"],
                    }
            figures["memory"]["after_load_pss_mb"] = warm.memory_mb()
            figures["bare store"] = stores.costs(home, seconds)
            figures["sdk"] = client_cost.log_metric_cost(warm)
    return figures


FLOOR_REQUEST = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def hot_paths(running: Running) -> dict[str, tuple[int, Callable[[], list[str]]]]:
    """What is needed for each path is made first; then the requests that are sent over and over."""
    variants = [
        {"name": "control", "weight": 0.5, "model_version": "v1.0"},
        {"name": "treatment", "weight": 0.5, "model_version": "v2.0"},
    ]
    running.call("ab_testing", "POST", "/api/experiments", {"name": TEST, "variants": variants})
    features = [{"name": name, "type": "float"} for name in FEATURES]
    running.call("features", "POST", "/api/feature-sets", {"name": "bench", "features": features})
    rows = [
        {"entity_id": f"user_{n}", "event_timestamp": "2026-01-31T09:00:00Z", **dict.fromkeys(FEATURES, n / 7)}
        for n in range(1000)
    ]
    running.call("features", "POST", "/api/feature-sets/bench/rows", {"rows": rows})
    experiment = running.call("tracking", "POST", "/api/experiments", {"name": "bench"})["id"]
    run = running.call("tracking", "POST", f"/api/experiments/{experiment}/runs", {"run_name": "bench"})["id"]
    steps = iter(range(10**9))

    def route() -> list[str]:
        return [running.request("ab_testing", "GET", f"/api/route?user_id=user_{n}&experiment={TEST}") for n in range(1000)]

    def serve() -> list[str]:
        query = "&features=" + ",".join(FEATURES)
        return [running.request("features", "GET", f"/api/features/serve?entities=user_{n}{query}") for n in range(1000)]

    def ingest() -> list[str]:
        path = f"/api/experiments/{experiment}/runs/{run}/metrics"
        bodies = (json.dumps({"accuracy": 0.5, "step": next(steps)}) for _ in range(50_000))
        return [running.request("tracking", "POST", path, body) for body in bodies]

    return {
        "route": (running.ports["ab_testing"], route),
        "serve 1x10": (running.ports["features"], serve),
        "ingest": (running.ports["tracking"], ingest),
    }


def show(figures: dict[str, dict[str, float]], console: Console) -> None:
    """The tables."""
    paths = Table(title="Hot paths, with authentication on, beside a bare ASGI hello-world")
    for heading in ("path", "requests/s", "hello-world/s", "ratio", "p50 ms", "p99 ms"):
        paths.add_column(heading, justify="left" if heading == "path" else "right")
    for name, row in figures.items():
        if "ratio" in row:
            numbers = (f"{row['per_second']:,.0f}", f"{row['floor_per_second']:,.0f}", f"{row['ratio']:.2f}")
            paths.add_row(name, *numbers, f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}")
    console.print(paths)
    others = Table(title="The rest")
    others.add_column("what")
    others.add_column("figure", justify="right")
    for group in ("bare store", "sdk", "start", "memory"):
        for name, value in figures[group].items():
            others.add_row(f"{group}: {name.replace('_', ' ')}", f"{value:,.2f}")
    console.print(others)


if __name__ == "__main__":
    main()

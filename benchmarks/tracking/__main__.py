"""python -m benchmarks.tracking: our tracking service and a stock MLflow server, in turn in one run, as ratios.

Both have PostgreSQL from the same binaries with the same settings. MLflow is measured as it starts by default and
tuned (one worker, job runner off), from the environment that `make .venv-mlflow/.ready` sets up.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform as machine
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import home_directory, load, platform_up, service_up
from benchmarks.tracking import seeding
from benchmarks.tracking.ours import Ours
from benchmarks.tracking.peer import peer_up
from benchmarks.tracking.target import Target, once, steps, timed
from mlops_platform.core.db.embedded.address import EmbeddedAddress
from mlops_platform.core.db.embedded.running import running_address
from mlops_platform.core.db.embedded.server import EmbeddedPostgres

HIGHER_IS_BETTER = ("/s",)
Figures = dict[str, float]


def main() -> None:
    """Measure, print, and keep the figures when asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of load per figure")
    arguments.add_argument("--runs", type=int, default=100_000, help="runs that ours searches")
    arguments.add_argument("--peer-runs", type=int, default=10_000, help="runs that the peer searches")
    arguments.add_argument("--series-runs", type=int, default=20, help="runs of one chart")
    arguments.add_argument("--points", type=int, default=100_000, help="points of one metric of one run")
    arguments.add_argument("--artifact-mb", type=int, default=256)
    arguments.add_argument("--peer", type=Path, default=Path(".venv-mlflow/bin/python"), help="Python of the peer")
    arguments.add_argument("--only", choices=["ours", "default", "tuned"], action="append", help="one of the three")
    arguments.add_argument("--json", type=Path, help="also write the figures to this file")
    options = arguments.parse_args()
    console = Console()
    console.print(
        f"{machine.machine()}, {os.cpu_count()} cores, Python {machine.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start"
    )
    wanted = options.only or ["ours", "default", "tuned"]
    found: dict[str, Figures] = {}
    for name in wanted:
        if name == "ours":
            found["ours"] = measure_ours(options, console)
        else:
            found[f"mlflow {name}"] = measure_peer(options, console, tuned=name == "tuned")
        if options.json:
            # After each: all of it takes a while, and what is known should outlive an interruption.
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found, console)
    console.print(f"load average {os.getloadavg()[0]:.1f} at the end")


def measure_ours(options: argparse.Namespace, console: Console) -> Figures:
    """`mlops up`, all five services of it."""
    with home_directory() as home:
        with platform_up(home):
            pass  # the first start of all makes the database; the peer's is made beforehand, too
        with platform_up(home) as running:
            target = Ours(running)
            figures = {"start s": running.seconds_to_answer, "idle memory MB": running.memory_mb()}
            address = running_address(home)
            if address is None:
                raise RuntimeError("the database of the platform is not up")
            dsn = address.owner_dsn()
            with service_up(home, "experiment-tracking", address.app_dsn()) as (seconds, memory_mb):
                figures["start, the service alone s"], figures["idle memory, the service alone MB"] = seconds, memory_mb
            writes(target, options, console, figures)
            experiment = target.create_experiment("seeded")
            asyncio.run(seeding.our_runs(dsn, experiment, options.runs))
            charts = target.create_experiment("many charts")
            runs = [target.create_run(charts) for _ in range(options.series_runs)]
            asyncio.run(seeding.our_points(dsn, runs, options.points))
            reads(target, options, console, figures, experiment, runs)
            figures["memory after all MB"] = running.memory_mb()
            return figures


def measure_peer(options: argparse.Namespace, console: Console, *, tuned: bool) -> Figures:
    """`mlflow server`, with a database of its own."""
    with database() as (address, folder):
        backend = address.owner_dsn().replace("postgresql://", "postgresql+pg8000://", 1).split("?")[0]
        backend += f"?unix_sock={address.socket_dir}/.s.PGSQL.{address.port}"
        with peer_up(options.peer.absolute(), backend, folder, tuned=tuned):
            pass  # makes the tables
        with peer_up(options.peer.absolute(), backend, folder, tuned=tuned) as target:
            figures = {"start s": target.seconds_to_answer, "idle memory MB": target.memory_mb()}
            # It is one service, and its database is not counted: the same figures again, to stand beside ours.
            figures["start, the service alone s"] = figures["start s"]
            figures["idle memory, the service alone MB"] = figures["idle memory MB"]
            dsn = address.owner_dsn()
            writes(target, options, console, figures)
            experiment = target.create_experiment("seeded")
            asyncio.run(seeding.peer_runs(dsn, experiment, options.peer_runs))
            charts = target.create_experiment("many charts")
            runs = [target.create_run(charts) for _ in range(options.series_runs)]
            asyncio.run(seeding.peer_points(dsn, runs, options.points))
            reads(target, options, console, figures, experiment, runs)
            figures["memory after all MB"] = target.memory_mb()
            return figures


def writes(target: Target, options: argparse.Namespace, console: Console, figures: Figures) -> None:
    """Ingest, before anything is seeded."""
    console.print(f"  {target.name}: writing, load average {os.getloadavg()[0]:.1f}")
    experiment, numbers = target.create_experiment("writes"), steps()
    run = target.create_run(experiment)
    created = timed(lambda: target.create_run(experiment), times=60, seconds=options.seconds)
    figures["create run p50 ms"] = created["p50_ms"]
    for connections in (1, 8):
        requests = [target.request(*target.metric(run, next(numbers))) for _ in range(12_000)]
        found = load(target.port, requests, connections=connections, seconds=options.seconds)
        figures[f"single metric x{connections} /s"] = found["per_second"]
        figures[f"single metric x{connections} p50 ms"] = found["p50_ms"]
    batches = (target.batch(run, n * 100, 1000, 10) for n in range(10**6))
    took = timed(lambda: target.ask("POST", *next(batches)), times=300, seconds=options.seconds)
    figures["metrics in batches of 1,000 /s"] = 1_000_000 / took["p50_ms"]
    long = target.create_run(experiment)
    bodies = [target.batch(long, first, 1000, 1) for first in range(0, options.points, 1000)]
    figures["one key, all points written s"] = once(lambda: [target.ask("POST", *body) for body in bodies])
    figures["one key, all points read s"] = once(lambda: target.read_all(long, "loss"))
    content = os.urandom(1024**2) * options.artifact_mb
    figures["artifact up MB/s"] = options.artifact_mb / once(lambda: target.upload(run, content))
    figures["artifact down MB/s"] = options.artifact_mb / once(lambda: target.download(run))


def reads(
    target: Target, options: argparse.Namespace, console: Console, figures: Figures, experiment: str, runs: list[str]
) -> None:
    """Search and charts, over what was seeded."""
    console.print(f"  {target.name}: reading, load average {os.getloadavg()[0]:.1f}")
    # The points were seeded past the ingest, behind which segments are made: the first chart asks for them.
    figures[f"chart of {len(runs)} runs, never shown before ms"] = once(lambda: target.series(runs, 320)) * 1000
    time.sleep(options.seconds * 2)
    chart = timed(lambda: target.series(runs, 320), times=10, seconds=options.seconds * 2)
    figures[f"chart of {len(runs)} runs p50 ms"] = chart["p50_ms"]
    figures["chart of 1 run p50 ms"] = timed(lambda: target.series(runs[:1], 320), times=20, seconds=options.seconds)[
        "p50_ms"
    ]
    first = timed(lambda: target.search(experiment, None), times=60, seconds=options.seconds * 2)
    figures["search p50 ms"], figures["search p95 ms"] = first["p50_ms"], first["p95_ms"]
    token = None
    for _ in range(99):
        _, following = target.search(experiment, token)
        if following is None:
            break
        token = following
    later = timed(lambda: target.search(experiment, token), times=60, seconds=options.seconds * 2)
    figures["search, a late page p50 ms"] = later["p50_ms"]
    figures["count of runs ms"] = once(lambda: target.count(experiment)) * 1000


@contextlib.contextmanager
def database() -> Iterator[tuple[EmbeddedAddress, Path]]:
    """A PostgreSQL of its own, as `mlops up` starts one, and a folder beside it."""
    with tempfile.TemporaryDirectory(prefix="mlflow-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "home")
        address = server.start()
        try:
            yield address, folder
        finally:
            server.stop()


def show(found: dict[str, Figures], console: Console) -> None:
    """One table; a ratio above 1 means that ours is better."""
    table = Table(title="Experiment Tracking beside a stock MLflow server, PostgreSQL for both")
    table.add_column("what")
    for name in found:
        table.add_column(name, justify="right")
    rivals = [name for name in found if name != "ours" and "ours" in found]
    for name in rivals:
        table.add_column(f"ratio to {name.split()[-1]}", justify="right")
    for what in next(iter(found.values())):
        row = [f"{figures.get(what, float('nan')):,.1f}" for figures in found.values()]
        for name in rivals:
            ours, theirs = found["ours"][what], found[name].get(what, float("nan"))
            row.append(f"{ours / theirs if what.endswith(HIGHER_IS_BETTER) else theirs / ours:.1f}x")
        table.add_row(what, *row)
    console.print(table)


if __name__ == "__main__":
    main()

"""A stock MLflow server over our own embedded PostgreSQL, as it starts by default or tuned."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from benchmarks.processes import free_port, wait_until_answers
from benchmarks.tracking.target import KEYS, NOW_MS, Target

API = "/api/2.0/mlflow"
TUNED = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Peer(Target):
    """An MLflow server that is up."""

    def __init__(self, name: str, port: int, process: psutil.Process, seconds_to_answer: float) -> None:
        super().__init__()
        self.name, self.port, self.process, self.seconds_to_answer = name, port, process, seconds_to_answer

    def headers(self) -> dict[str, str]:
        return {}

    def memory_mb(self) -> float:
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes) / 1024**2

    def create_experiment(self, name: str) -> str:
        return str(self.ask("POST", f"{API}/experiments/create", {"name": name})["experiment_id"])

    def create_run(self, experiment: str) -> str:
        body = {"experiment_id": experiment, "start_time": NOW_MS, "run_name": "bench"}
        return str(self.ask("POST", f"{API}/runs/create", body)["run"]["info"]["run_id"])

    def metric(self, run: str, step: int) -> tuple[str, Any]:
        return f"{API}/runs/log-metric", {"run_id": run, "key": "loss", "value": 0.5, "timestamp": NOW_MS, "step": step}

    def batch(self, run: str, first: int, points: int, keys: int) -> tuple[str, Any]:
        names = [f"k{n}" for n in range(keys)] if keys > 1 else ["loss"]
        metrics = [
            {"key": name, "value": (first + n) / 7, "timestamp": NOW_MS + first + n, "step": first + n}
            for n in range(points // keys)
            for name in names
        ]
        return f"{API}/runs/log-batch", {"run_id": run, "metrics": metrics}

    def read_all(self, run: str, key: str) -> int:
        found, token = 0, None
        while True:
            query = {"run_id": run, "metric_key": key, "max_results": 25000, **({"page_token": token} if token else {})}
            page = self.ask("GET", f"{API}/metrics/get-history?{urlencode(query)}")
            found += len(page.get("metrics", []))
            if not (token := page.get("next_page_token")):
                return found

    def series(self, runs: list[str], points: int) -> int:
        query = [("run_ids", run) for run in runs] + [("metric_key", "loss"), ("max_results", str(points))]
        return len(self.ask("GET", f"{API}/metrics/get-history-bulk-interval?{urlencode(query)}").get("metrics", []))

    def search(self, experiment: str, token: str | None) -> tuple[int, str | None]:
        body = {
            "experiment_ids": [experiment],
            "filter": self.filter,
            "order_by": [f"metrics.{KEYS[1]} DESC"],
            "max_results": 100,
            **({"page_token": token} if token else {}),
        }
        page = self.ask("POST", f"{API}/runs/search", body)
        return len(page.get("runs", [])), page.get("next_page_token") or None

    def count(self, experiment: str) -> int:
        """There is no count: every run is read."""
        found, token = 0, None
        while True:
            body = {"experiment_ids": [experiment], "max_results": 5000, **({"page_token": token} if token else {})}
            page = self.ask("POST", f"{API}/runs/search", body)
            found += len(page.get("runs", []))
            if not (token := page.get("next_page_token")):
                return found

    def upload(self, run: str, content: bytes) -> None:
        self.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model.bin", raw=content)

    def download(self, run: str) -> int:
        return len(self.call("GET", f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model.bin"))


@contextlib.contextmanager
def peer_up(python: Path, backend: str, folder: Path, *, tuned: bool) -> Iterator[Peer]:
    """`mlflow server` on a free port; stopped with all of its processes."""
    port = free_port()
    command = [str(python), "-m", "mlflow", "server", "--backend-store-uri", backend, "--port", str(port)]
    command += ["--artifacts-destination", str(folder / "artifacts"), *(["--workers", "1"] if tuned else [])]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    environment = {**clean, **(TUNED if tuned else {}), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    begun = time.perf_counter()
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    whole = psutil.Process(process.pid)
    try:
        wait_until_answers(port, process)
        target = Peer("mlflow tuned" if tuned else "mlflow default", port, whole, 0.0)
        target.ask("POST", f"{API}/experiments/search", {"max_results": 1})
        target.seconds_to_answer = time.perf_counter() - begun
        yield target
    finally:
        everyone = [*whole.children(recursive=True), whole]
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        _, left = psutil.wait_procs(everyone, timeout=20)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

"""Starting what is measured, each in a process of its own, and stopping it again."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PORTS = {
    "registry": "MLOPS_MODEL_REGISTRY_PORT",
    "features": "MLOPS_FEATURE_STORE_PORT",
    "tracking": "MLOPS_EXPERIMENT_TRACKING_PORT",
    "pipelines": "MLOPS_PIPELINE_ORCHESTRATOR_PORT",
    "ab_testing": "MLOPS_AB_TESTING_PORT",
}


@dataclass(frozen=True)
class Running:
    """A platform that is up."""

    home: Path
    ports: dict[str, int]
    key: str
    process: psutil.Process
    seconds_to_answer: float

    def call(self, service: str, method: str, path: str, body: Any = None) -> Any:
        """One request through the standard library."""
        request = urllib.request.Request(  # loopback
            f"http://127.0.0.1:{self.ports[service]}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # loopback
            return json.loads(answer.read() or b"null")

    def request(self, service: str, method: str, path: str, body: str | None = None) -> str:
        """The bytes of a request, for the load generator."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.ports[service]}\r\nAuthorization: Bearer {self.key}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n{body or ''}"

    def memory_mb(self) -> float:
        """Proportional set size of everything that runs, in MiB."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes) / 1024**2


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def home_directory() -> Iterator[Path]:
    """An empty home on the machine's ordinary disk, which the database's user may reach."""
    with tempfile.TemporaryDirectory(prefix="mlops-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "home"


@contextlib.contextmanager
def platform_up(home: Path, **environment: str) -> Iterator[Running]:
    """`mlops up` on free ports."""
    ports = {name: free_port() for name in PORTS}
    settings = {PORTS[name]: str(port) for name, port in ports.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlops_platform.cli", "up"],
        env={**clean, **settings, "MLOPS_HOME": str(home), "MLOPS_LOG_LEVEL": "ERROR", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for port in ports.values():
            wait_until_answers(port, process)
        seconds = time.perf_counter() - begun
        key = (home / "secrets" / "api_key").read_text(encoding="ascii").strip()
        yield Running(home, ports, key, psutil.Process(process.pid), seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextlib.contextmanager
def service_up(home: Path, service: str, dsn: str) -> Iterator[tuple[float, float]]:
    """`mlops serve`: one service against a database that is up; seconds until it answered, and its memory in MiB."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    settings = {f"MLOPS_{service.upper().replace('-', '_')}_PORT": str(port), "MLOPS_DATABASE_URL": dsn}
    secrets = {"API_SECRET_KEY_FILE": "api_secret_key", "MLOPS_STORAGE_KEY_FILE": "storage_key"}
    secrets = {name: str(home / "secrets" / file) for name, file in secrets.items()}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlops_platform.cli", "serve", service],
        env={**clean, **settings, **secrets, "MLOPS_HOME": str(home), "MLOPS_LOG_LEVEL": "ERROR"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_answers(port, process)
        yield time.perf_counter() - begun, psutil.Process(process.pid).memory_full_info().pss / 1024**2
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def floor_up() -> Iterator[int]:
    """The hello-world; its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.floor", str(port)])
    try:
        wait_until_answers(port, process, path="/")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def wait_until_answers(port: int, process: "subprocess.Popen[bytes]", *, path: str = "/health") -> None:
    """Poll until the port answers, or say that the process ended."""
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the process ended with {process.returncode} before it answered on port {port}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return
        time.sleep(0.01)


def load(port: int, requests: list[str], *, connections: int, seconds: float, spin: bool = False) -> dict[str, float]:
    """Run the load generator in a process of its own. `spin` keeps a core busy: not where a database needs it."""
    job = {"port": port, "requests": requests, "connections": connections, "seconds": seconds, "spin": spin}
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr[-2000:])
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures

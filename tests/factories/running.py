"""A whole platform as a user starts it: `mlops up` in a process of its own, on free ports, in a home of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

import mlops_platform
from mlops_platform.sdk import Platform
from mlops_platform.sdk.settings import URL_VARIABLES, Service, load_client_settings
from tests.factories.embedded import server_directory

SOURCE = Path(mlops_platform.__file__).parents[1]
ROOT = SOURCE.parent
START_SECONDS = 90.0
STOP_SECONDS = 60.0
PORT_VARIABLES: Mapping[Service, str] = {
    service: variable.removesuffix("_URL") + "_PORT" for service, variable in URL_VARIABLES.items()
}
_UP = "The platform is up"


def free_ports() -> dict[Service, int]:
    """Five ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = {service: stack.enter_context(socket.socket()) for service in Service}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {service: one.getsockname()[1] for service, one in sockets.items()}


class RunningPlatform:
    """One `mlops up`, which leads a process group of its own as it does on a terminal."""

    def __init__(self, home: Path, ports: Mapping[Service, int], **variables: str) -> None:
        self.home = home
        self.ports = dict(ports)
        self.environment = environment(home, self.ports) | variables
        self.lines: list[str] = []
        self._is_up = threading.Event()
        self.process = subprocess.Popen(
            mlops("up"),
            env=self.environment,
            cwd=home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if _UP in line:
                self._is_up.set()
        # The end of output wakes who waits for a platform that never came up.
        self._is_up.set()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_up(self) -> bool:
        return self._is_up.is_set() and self.process.poll() is None

    def wait_until_up(self) -> "RunningPlatform":
        self._is_up.wait(START_SECONDS)
        assert self.is_up, f"mlops up did not come up:\n{self.output}"
        return self

    def url(self, service: Service) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def key(self) -> str:
        return (self.home / "secrets" / "api_key").read_text(encoding="ascii").strip()

    def client(self, *, retries: int = 4, project: str | None = None) -> Platform:
        """The SDK, with what `mlops up` left for it."""
        found = load_client_settings({**self.environment, "MLOPS_RETRIES": str(retries)}, project=project)
        return Platform(settings=found)

    def family(self) -> list[psutil.Process]:
        """Every process that this platform has started, itself first."""
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]

    def child(self, is_it: Callable[[list[str]], bool]) -> psutil.Process:
        """The one process of the family whose arguments fit."""
        return next(process for process in self.family()[1:] if is_it(arguments(process)))

    def postmaster(self) -> psutil.Process:
        """The main process of PostgreSQL."""
        return self.child(lambda given: bool(given) and Path(given[0]).name == "postgres" and "-D" in given)

    def worker(self) -> psutil.Process:
        """The pipeline worker."""
        return self.child(lambda given: given[-2:] == ["worker", "--with-parent"])

    def stop(self, number: signal.Signals = signal.SIGTERM, *, group: bool = False) -> int:
        """Send a signal, to the process or as Ctrl-C to its group, and wait for the end."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        return code

    def close(self) -> None:
        """End it whatever its state, and its family too: a failed test leaves nothing behind."""
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = self.family()[1:]
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        end(family)
        assert self.process.stdout is not None
        self._reader.join(STOP_SECONDS)
        self.process.stdout.close()

    def mlops(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The CLI, as a user of this platform calls it."""
        return run(mlops(*command), self.environment, timeout=timeout)


@contextlib.contextmanager
def platform_home() -> Iterator[Path]:
    """A home that does not exist yet, where the database's user can reach it; the user's own home lies beside it."""
    with server_directory() as base:
        (base / "user").mkdir(mode=0o700)
        yield base / "home"


@contextlib.contextmanager
def running(home: Path, ports: Mapping[Service, int] | None = None, **variables: str) -> Iterator[RunningPlatform]:
    """A platform that answers, ended with the block."""
    platform = RunningPlatform(home, ports or free_ports(), **variables)
    try:
        yield platform.wait_until_up()
    finally:
        platform.close()


def environment(home: Path, ports: Mapping[Service, int]) -> dict[str, str]:
    """What a user's shell holds: nothing of the platform but the home and the ports."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "PYTEST_", "COV_"))}
    return {
        **kept,
        **{PORT_VARIABLES[service]: str(port) for service, port in ports.items()},
        "MLOPS_HOME": str(home),
        "HOME": str(home.parent / "user"),
        "PYTHONPATH": str(SOURCE),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "COLUMNS": "120",
    }


def mlops(*command: str) -> list[str]:
    return [sys.executable, "-m", "mlops_platform.cli", *command]


def run(
    command: list[str], environment: Mapping[str, str], *, timeout: float = 120, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run to its end and keep what it said."""
    return subprocess.run(
        command,
        env=dict(environment),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def eventually(is_so: Callable[[], bool], *, seconds: float = 10.0, what: str) -> float:
    """Ask until it is so, and answer how long that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Which of these processes still run; a zombie does not."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def end(processes: list[psutil.Process]) -> None:
    """Kill what is left of these processes."""
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(processes, timeout=STOP_SECONDS)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

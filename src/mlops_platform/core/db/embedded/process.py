"""Starting, watching and stopping the programs of PostgreSQL."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from mlops_platform.core.db.embedded import launch
from mlops_platform.core.db.embedded.account import Account
from mlops_platform.core.errors import ConfigurationError

# Nothing of the caller's environment: PGDATA, PGOPTIONS, TZ and LC_* would each change what the server does.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_IMMEDIATE_SECONDS = 5.0
_POLL_SECONDS = 0.01
_PROGRAMS = frozenset({"postgres", "initdb"})


def command_line(command: Sequence[str], account: Account, *, death_signal: int) -> list[str]:
    """The command behind the launcher, which ties its life to ours and drops root."""
    uid, gid = (account.uid, account.gid) if account.switch else (-1, -1)
    limits = [str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]
    return [sys.executable, "-I", "-S", launch.__file__, *limits, *command]


def run(command: Sequence[str], account: Account, *, cwd: Path, text: str = "") -> None:
    """Run a program to its end; when it fails, `ConfigurationError` with what it said."""
    done = subprocess.run(  # noqa: S603  # our programs, our arguments
        command_line(command, account, death_signal=signal.SIGKILL),
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=cwd,
        env=_ENVIRONMENT,
        start_new_session=True,
    )
    if done.returncode != 0:
        raise ConfigurationError(f"PostgreSQL: {Path(command[0]).name} failed: {complaint(done.stderr)}")


def complaint(output: str) -> str:
    """The line of a program's output that says why it failed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for mark in ("FATAL:", "PANIC:", "error:", "ERROR:"):
        for line in reversed(lines):
            if mark in line:
                return line[line.index(mark) :]
    return lines[-1] if lines else "it said nothing"


class Child:
    """A long-running child of this process that ends with it, even when this process is killed.

    The kernel ties the parent-death signal to the thread that forked, so the fork is made by a thread that stays for
    as long as the child lives; it also reaps it at once.
    """

    def __init__(self, command: Sequence[str], account: Account, *, cwd: Path, log: Path) -> None:
        self._command = command_line(command, account, death_signal=signal.SIGINT)
        self._cwd = cwd
        self._log = log
        self._spawned = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Once; returns when there is a process."""
        self._thread = threading.Thread(target=self._live, name="embedded-postgresql", daemon=True)
        self._thread.start()
        self._spawned.wait()
        if self._failure is not None:
            raise ConfigurationError(f"PostgreSQL cannot be started: {self._failure}.") from self._failure

    def _live(self) -> None:
        try:
            with self._log.open("ab") as output:
                self._process = subprocess.Popen(  # noqa: S603  # our program, our arguments
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._cwd,
                    env=_ENVIRONMENT,
                    start_new_session=True,  # Ctrl-C in the terminal is for us: we drain first, then stop it
                )
        except OSError as error:
            self._failure = error
        finally:
            self._spawned.set()
        if self._process is not None:
            self._process.wait()
        self._ended.set()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the child was not started")
        return self._process.pid

    def wait(self, timeout_seconds: float | None) -> bool:
        """Whether it has ended, within the time."""
        return self._ended.wait(timeout_seconds)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def signal(self, number: int) -> None:
        if not self.ended and self._process is not None:
            self._process.send_signal(number)

    def stop(self, *, timeout_seconds: float) -> None:
        """Fast shutdown; immediate when that takes too long (the next start then replays the log); last, kill."""
        if self._thread is None:
            return
        self._spawned.wait()
        for number, seconds in (
            (signal.SIGINT, timeout_seconds),
            (signal.SIGQUIT, _IMMEDIATE_SECONDS),
            (signal.SIGKILL, None),
        ):
            self.signal(number)
            if self.wait(seconds):
                return


def stop_leftovers(data: Path, *, timeout_seconds: float) -> None:
    """End every process that still works in this data directory: the orphans of a parent that was killed.

    They are known by their program and their working directory, which PostgreSQL makes the data directory; a pid from
    `postmaster.pid` alone may by now belong to anyone.
    """
    lock = data / "postmaster.pid"
    if not lock.exists():
        return
    recorded = _recorded_pid(lock)
    postmaster = [process for process in _working_in(data) if process.pid == recorded]
    _end(postmaster, ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, _IMMEDIATE_SECONDS), (signal.SIGKILL, 5.0)))
    # The children of a postmaster that was killed end by themselves when they next wait for something.
    _end(_working_in(data), ((signal.SIGTERM, 1.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0)))
    if alive := _working_in(data):
        pids = ", ".join(str(process.pid) for process in alive)
        raise ConfigurationError(f"A PostgreSQL that was left behind in {data} cannot be stopped (processes {pids}).")
    # PostgreSQL sees by itself that a recorded process is gone, and then looks for its shared memory, too: that check is
    # left to it. It gives up only on an empty file, and when a stranger has the recorded pid by now.
    if recorded is None or psutil.pid_exists(recorded):
        lock.unlink(missing_ok=True)


def _end(processes: Sequence[psutil.Process], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    alive = list(processes)
    for number, seconds in steps:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        while (alive := [process for process in alive if _lives(process)]) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _lives(process: psutil.Process) -> bool:
    # Not `psutil.wait_procs`: it waits for zombies too, and these belong to an init that may be slow to reap them.
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_leftovers(draft: Path) -> None:
    """End what still works on a directory that is to be removed: initdb dies with us, the programs that it runs do not."""
    _end(_working_in(draft), ((signal.SIGKILL, 5.0),))


def _working_in(folder: Path) -> list[psutil.Process]:
    real = folder.resolve()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(real) and Path(process.exe()).name in _PROGRAMS:
                found.append(process)
    return found


def _recorded_pid(lock: Path) -> int | None:
    try:
        return int(lock.read_text(encoding="utf-8").partition("\n")[0])
    except (OSError, ValueError):
        return None

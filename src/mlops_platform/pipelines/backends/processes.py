"""Task processes on this machine: started when there is work, kept warm for tasks of the same run, killed as a group."""

import asyncio
import contextlib
import json
import os
import pwd
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_platform.contracts.common import check_json
from mlops_platform.contracts.pipelines import AttemptState
from mlops_platform.core.errors import ConfigurationError
from mlops_platform.pipelines.backends import task_process
from mlops_platform.pipelines.backends.output import LineReader, OnLine

RESULT_LIMIT_BYTES = 64 * 1024
_ANSWER_LIMIT = 1024 * 1024
_DRAIN_SECONDS = 2.0
_MAIN = str(Path(task_process.__file__).resolve())


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt, ready to run. A process serves one `affinity` only: state of one run never leaks into another."""

    affinity: str
    entry_point: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(repr=False)
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended."""

    state: AttemptState
    result: Any = None
    error: Mapping[str, Any] | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """`tasks_per_process` 1 gives each task a fresh process; `allow` are patterns of modules that may run.

    `run_as` is another user of the machine for the tasks; only root can give them one.
    """

    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    paths: Sequence[Path] = ()
    allow: Sequence[str] = ()
    tasks_per_process: int = 50
    kill_grace_seconds: float = 5.0
    idle_seconds: float = 30.0
    python: str = sys.executable
    run_as: str | None = None


class TaskProcess:
    """One process group: an interpreter that runs our small main, and whatever the task starts below it."""

    def __init__(self, options: PoolOptions, process: asyncio.subprocess.Process, control: "Control") -> None:
        self._options = options
        self._process = process
        self._control = control
        self._outputs = [
            LineReader(stream, name)
            for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr"))
            if stream is not None
        ]
        self.tasks_run = 0
        self.is_broken = False

    @classmethod
    async def start(cls, options: PoolOptions) -> "TaskProcess":
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    options.python,
                    "-P",
                    _MAIN,
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=dict(options.environment),
                    **_other_user(options.run_as),
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)  # noqa: FBT003  # the socket module takes it so
        reader, writer = await asyncio.open_connection(sock=ours, limit=_ANSWER_LIMIT)
        return cls(options, process, Control(reader, writer))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def run(self, assignment: Assignment, on_line: OnLine) -> Ended:
        """Run one task to its end. A process that died or lied is broken and must be stopped."""
        self.tasks_run += 1
        marker = "\x00" + secrets.token_hex(16)
        message = {
            "entry_point": assignment.entry_point,
            "arguments": assignment.arguments,
            "environment": assignment.environment,
            "paths": [str(path) for path in self._options.paths],
            "allow": list(self._options.allow),
            "result_limit": RESULT_LIMIT_BYTES,
            "marker": marker,
        }
        drained = [asyncio.create_task(output.read_until(marker.encode(), on_line)) for output in self._outputs]
        try:
            answer = await self._control.ask(message)
            if answer is None:
                self.is_broken = True
                # Its group ends with it: a grandchild would hold the pipes open.
                self._signal(signal.SIGKILL)
                exit_code = await self._process.wait()
            _, late = await asyncio.wait(drained, timeout=_DRAIN_SECONDS)
            self.is_broken = self.is_broken or bool(late)
            return _crashed(exit_code) if answer is None else read_answer(answer)
        finally:
            for task in drained:
                task.cancel()

    async def terminate(self) -> None:
        """SIGTERM to the group, and SIGKILL to what is left after the grace."""
        self.is_broken = True
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._options.kill_grace_seconds)
        await self.kill()

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._control.close()
        await self._process.wait()

    def _signal(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)


def check_user(name: str) -> None:
    """Raise `ConfigurationError` unless tasks can be run as this user: else a worker would take tasks and lose each."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(f"There is no user {name!r} on this machine to run tasks as.") from None
    if os.geteuid() != 0:
        raise ConfigurationError(f"Only root can run tasks as another user ({name!r}).")


def _other_user(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    account = pwd.getpwnam(name)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Control:
    """Our end of the socket to a task process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, message: Mapping[str, Any]) -> bytes | None:
        """Send one assignment and wait for its answer; None when the process died or answered without end."""
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        return line if line.endswith(b"\n") else None

    def close(self) -> None:
        self._writer.close()


class ProcessPool:
    """Hands out processes. There is no limit here: whoever claims tasks claims no more than it has room for."""

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._idle: dict[str, list[TaskProcess]] = {}
        self._timers: dict[TaskProcess, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def execute(self, assignment: Assignment, *, on_line: OnLine, interrupt: "asyncio.Future[AttemptState]") -> Ended:
        """Run one task, until it ends, its time is over, or `interrupt` says how it must end."""
        process = await self._acquire(assignment.affinity)
        work = asyncio.create_task(process.run(assignment, on_line))
        try:
            either: set[asyncio.Future[Any]] = {work, interrupt}
            await asyncio.wait(either, timeout=assignment.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            reason = interrupt.result() if interrupt.done() else AttemptState.TIMED_OUT
            await process.terminate()
            await work
            return Ended(reason, error=_stopped_error(reason, assignment.timeout_seconds))
        finally:
            if not work.done():
                work.cancel()
                process.is_broken = True
            self._release(process, assignment.affinity)

    async def close(self) -> None:
        """Kill every process."""
        for processes in self._idle.values():
            for process in processes:
                self._end(process)
        self._idle.clear()
        await asyncio.gather(*self._ending)

    @property
    def idle_pids(self) -> list[int]:
        return [process.pid for processes in self._idle.values() for process in processes]

    async def _acquire(self, affinity: str) -> TaskProcess:
        while waiting := self._idle.get(affinity):
            process = waiting.pop()
            self._timers.pop(process).cancel()
            if process.is_running:
                return process
            # Whatever ended it was not the task that comes now.
            self._end(process)
        return await TaskProcess.start(self._options)

    def _release(self, process: TaskProcess, affinity: str) -> None:
        if process.is_broken or process.tasks_run >= self._options.tasks_per_process:
            self._end(process)
            return
        self._idle.setdefault(affinity, []).append(process)
        loop = asyncio.get_running_loop()
        self._timers[process] = loop.call_later(self._options.idle_seconds, self._expire, process, affinity)

    def _expire(self, process: TaskProcess, affinity: str) -> None:
        self._idle[affinity].remove(process)
        if not self._idle[affinity]:
            del self._idle[affinity]
        self._end(process)

    def _end(self, process: TaskProcess) -> None:
        if timer := self._timers.pop(process, None):
            timer.cancel()
        task = asyncio.create_task(process.kill())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def read_answer(line: bytes) -> Ended:
    """What the process answered, believed only as far as it is what we would have written."""
    try:
        answer = json.loads(line)
        if answer["state"] == "succeeded":
            return Ended(AttemptState.SUCCEEDED, result=check_json(_within_limit(answer["result"], line)))
        error = answer["error"]
        told = {key: _clean(str(error[key])) for key in ("type", "message", "traceback")}
        return Ended(AttemptState.FAILED, error=told)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Ended(
            AttemptState.FAILED,
            error={
                "type": "InvalidResult",
                "message": _clean(f"The result cannot be stored: it {error}"),
                "traceback": None,
            },
        )


def _within_limit(result: Any, line: bytes) -> Any:
    if len(line) > RESULT_LIMIT_BYTES + 64:
        raise ValueError(f"is larger than {RESULT_LIMIT_BYTES} bytes")
    return result


def _crashed(exit_code: int) -> Ended:
    how = f"was killed by {_signal_name(-exit_code)}" if exit_code < 0 else f"ended with exit code {exit_code}"
    hint = "; the machine may be out of memory" if exit_code == -signal.SIGKILL else ""
    error = {"type": "ProcessCrashed", "message": f"The task process {how}{hint}.", "traceback": None}
    return Ended(AttemptState.CRASHED, error=error, exit_code=exit_code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Most real-time signals have no name.
        return f"signal {number}"


def _stopped_error(reason: AttemptState, timeout_seconds: float | None) -> Mapping[str, Any] | None:
    if reason is not AttemptState.TIMED_OUT:
        return {"type": "Stopped", "message": f"The task was stopped: {reason}.", "traceback": None}
    return {"type": "TimedOut", "message": f"The task ran longer than {timeout_seconds:g} s.", "traceback": None}


def _clean(text: str) -> str:
    """Text that the database can store, whatever the user's exception said."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()

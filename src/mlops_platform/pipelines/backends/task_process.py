"""The process in which user code runs: one task at a time, told over a socket in lines of JSON.

It runs as a script with the standard library alone, so that it starts in the time of a bare interpreter. It is given no
secret but the token of its task. When the worker goes away, the socket closes and the whole process group ends itself: an
orphan would run a task that another worker has taken over.
"""

import contextlib
import fnmatch
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from types import FrameType
from typing import Any

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 16_000


class _Stopped(SystemExit):
    """SIGTERM came: unwind, so that `finally` blocks of the task run."""


class TaskRunner:
    """Reads assignments and runs them in the main thread, where signals and most libraries expect to be."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._assignments: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._given: set[str] = set()
        self._is_stopped = False

    def serve(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        threading.Thread(target=self._listen, daemon=True, name="control").start()
        while not self._is_stopped:
            try:
                assignment = self._assignments.get()
            except _Stopped:
                return
            answer = self._run(assignment)
            self._mark_end_of_output(assignment["marker"])
            self._control.sendall(answer + b"\n")

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._control.makefile("rb") as lines:
            for line in lines:
                self._assignments.put(json.loads(line))
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self._is_stopped = True
        raise _Stopped(128 + signum)

    def _run(self, assignment: dict[str, Any]) -> bytes:
        try:
            self._prepare(assignment)
            function = load(assignment["entry_point"], assignment["allow"])
            result = function(**assignment["arguments"])
            if hasattr(result, "__await__"):
                result = importlib.import_module("asyncio").run(_finish(result))
            return encode_result(result, assignment["result_limit"])
        except BaseException as error:  # noqa: BLE001  # the process edge: whatever user code raises ends its attempt
            return encode_error(error)

    def _prepare(self, assignment: dict[str, Any]) -> None:
        environment = assignment["environment"]
        for name in self._given - set(environment):
            os.environ.pop(name, None)
        os.environ.update(environment)
        self._given = set(environment)
        sys.argv = [assignment["entry_point"]]
        sys.path[:0] = [path for path in assignment["paths"] if path not in sys.path]

    def _mark_end_of_output(self, marker: str) -> None:
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
            with contextlib.suppress(OSError):
                os.write(descriptor, f"{marker}\n".encode())


async def _finish(awaitable: Any) -> Any:
    return await awaitable


def load(entry_point: str, allow: list[str]) -> Any:
    """Import `module:function`. With an allowlist, what the name stands for must come from an allowed module too."""
    module_name, _, function_name = entry_point.partition(":")
    module = importlib.import_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise TypeError(f"module {module_name!r} has no function {function_name!r}")
    home = str(getattr(function, "__module__", ""))
    if allow and not any(fnmatch.fnmatchcase(home, pattern) for pattern in allow):
        raise PermissionError(f"{entry_point!r} comes from module {home!r}, which this worker does not allow")
    return function


def encode_result(result: Any, limit: int) -> bytes:
    """The result as one line of JSON, or the error that says why it cannot be one."""
    try:
        text = json.dumps(result, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"the result is not JSON ({error}); return plain values, and store anything else as an artifact"
        ) from None
    if len(text) > limit:
        raise ValueError(f"the result is {len(text)} bytes, more than {limit}; store it as an artifact and return its id")
    return b'{"state": "succeeded", "result": ' + text.encode() + b"}"


def encode_error(error: BaseException) -> bytes:
    """Type, message and the part of the traceback that is the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__]
    text = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
    message = f"sys.exit({error.code})" if isinstance(error, SystemExit) else str(error)
    told = {"type": type(error).__name__, "message": message[:MESSAGE_LIMIT], "traceback": text[-TRACEBACK_LIMIT:]}
    return json.dumps({"state": "failed", "error": told}).encode()


def _plain(value: Any) -> Any:
    """The scalars of numpy and its relatives are numbers to everyone but the JSON encoder."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    raise TypeError(f"a value of type {type(value).__name__}")


def main() -> None:
    """Serve on the socket whose descriptor is the only argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)  # noqa: FBT003  # os takes it so
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    TaskRunner(control).serve()


if __name__ == "__main__":
    main()

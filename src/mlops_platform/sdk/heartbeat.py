"""Signs of life: a thread that says, for every run that goes on here, that its process is alive.

It needs nobody's event loop, does not survive a fork, and ends with the process. The server takes a run that was silent
for `SILENCES` intervals for dead; when it was only the way to the server that was gone, the run is resumed.
"""

import atexit
import math
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from mlops_platform.sdk.errors import (
    ApiError,
    Conflict,
    NotFound,
    PermissionDenied,
    RunHeld,
    ServerError,
    TooManyRequests,
    Unauthenticated,
)
from mlops_platform.sdk.forking import reset_in_child
from mlops_platform.sdk.wire import segment

SILENCES = 5
"""After how many intervals without a beat a run counts as dead."""
LEAST_SECONDS = 5
RESUMING_SECONDS = 5.0
FELL_SILENT = "run_fell_silent"
NOT_RUNNING = "run_not_running"
COMES_BACK = (NotFound, ServerError, TooManyRequests, Unauthenticated, PermissionDenied)
"""Answers that may be others the next time. A run that was begun without the server is not there at first."""

Send = Callable[[str, Mapping[str, Any]], None]
"""Posts a body to a path; raises an `MlopsError` when that fails."""


def promised_seconds(interval_seconds: float) -> int:
    """For how long a run that beats this often may be silent.

    >>> promised_seconds(60), promised_seconds(0.5)
    (300, 5)
    """
    return max(LEAST_SECONDS, math.ceil(SILENCES * interval_seconds))


def new_writer() -> str:
    """A name for one process that writes one run: telling to people, and no other's."""
    host = "".join(char for char in socket.gethostname() if char.isprintable())[:100] or "host"
    return f"{host}:{os.getpid()}:{uuid4().hex[:8]}"


class Pulse:
    """The beats of one run."""

    def __init__(self, run_id: str, writer: str, seconds: float) -> None:
        self.run_id = run_id
        self.writer = writer
        self.seconds = seconds
        """For how long it may be silent."""
        self.interval = seconds / SILENCES
        self.next_at = time.monotonic() + self.interval
        self.is_lost = False
        """Another writer has the run: it ends it, and we do not."""
        self._is_over = False
        self._resuming = threading.Lock()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def stop(self) -> None:
        """No beat from now on, and none that would set the run running again after its end."""
        self._is_over = True
        if self._resuming.acquire(timeout=RESUMING_SECONDS):
            self._resuming.release()

    def beat(self, send: Send) -> None:
        """Say that the run's process lives; a run that was taken for dead is resumed."""
        try:
            send(f"/api/runs/{segment(self.run_id)}/heartbeat", self._said)
        except Conflict as error:
            if error.code != FELL_SILENT:
                raise
            with self._resuming:
                if not self._is_over:
                    send(f"/api/runs/{segment(self.run_id)}/resume", self._said)

    @property
    def _said(self) -> dict[str, Any]:
        return {"writer": self.writer, "heartbeat_seconds": self.seconds}


class Heart:
    """Beats for the runs of one client. `warn` takes a kind and a text, and says each kind once."""

    def __init__(self, send: Send, warn: Callable[[str, str], None]) -> None:
        self._send = send
        self._warn = warn
        self._start_anew()
        reset_in_child(self)
        _alive.add(self)

    def _start_anew(self) -> None:
        self._pulses: dict[str, Pulse] = {}
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False

    def after_fork_in_child(self) -> None:
        # Its parent is who writes the runs; the child beats for those that it begins itself.
        self._start_anew()

    def begin(self, run_id: str, writer: str, seconds: float) -> Pulse:
        """Beat for a run that has just been given to this writer, and may be silent for that long."""
        pulse = Pulse(run_id, writer, seconds)
        with self._changing:
            self._pulses[f"{run_id} {writer}"] = pulse
            if self._thread is None:
                self._closed = False
                self._wake.clear()
                self._start_thread()
            else:
                # It may be asleep until the beat of a run that beats seldom.
                self._wake.set()
        return pulse

    def close(self) -> None:
        """No beat from now on."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="mlops-heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # A limit of the system, or the interpreter ends.
            self._warn("no beats", f"No heartbeat is sent, and the server will take the run for dead: {error}")
            return
        self._thread = thread

    def _run(self) -> None:
        while (wait := self._until_next()) is not None:
            self._wake.wait(wait)
            if not self._closed:
                self._wake.clear()
                self._beat_due()

    def _until_next(self) -> float | None:
        """Seconds until the next beat; None when there is none, and then the thread is over."""
        with self._changing:
            self._pulses = {key: pulse for key, pulse in self._pulses.items() if not pulse.is_over}
            if self._closed or not self._pulses:
                self._thread = None
                return None
            return max(0.0, min(pulse.next_at for pulse in self._pulses.values()) - time.monotonic())

    def _beat_due(self) -> None:
        now = time.monotonic()
        with self._changing:
            due = [pulse for pulse in self._pulses.values() if pulse.next_at <= now]
        for pulse in due:
            if self._closed:
                return
            is_there = pulse.is_over or self._beat(pulse)
            pulse.next_at = time.monotonic() + pulse.interval
            if not is_there:
                # The server is away for every run: asking for each would take a time-out each.
                self._put_off(due)
                return

    def _put_off(self, pulses: list[Pulse]) -> None:
        for pulse in pulses:
            pulse.next_at = time.monotonic() + pulse.interval / SILENCES

    def _beat(self, pulse: Pulse) -> bool:
        """One beat; False when the server is away."""
        try:
            pulse.beat(self._send)
        except COMES_BACK as error:
            return not isinstance(error, ServerError | TooManyRequests)
        except RunHeld as error:
            pulse.is_lost = True
            self._give_up(pulse, f"Another process writes the run {pulse.run_id}, and will end it: {error.message}")
        except Conflict as error:
            if error.code == NOT_RUNNING:
                self._give_up(pulse, f"The run was ended by somebody else: {error.message}")
        except ApiError as error:
            self._give_up(pulse, f"The server takes no heartbeat of the run {pulse.run_id}: {error}")
        except Exception:  # noqa: BLE001  # the edge to the training: whatever went wrong on the way, the next beat may get through
            return False
        return True

    def _give_up(self, pulse: Pulse, why: str) -> None:
        if not pulse.is_over:
            pulse.stop()
            self._warn(f"pulse {pulse.run_id}", f"{why} What is recorded here is stored all the same.")


_alive: "weakref.WeakSet[Heart]" = weakref.WeakSet()


@atexit.register
def _stop_at_exit() -> None:
    for heart in list(_alive):
        heart.close()

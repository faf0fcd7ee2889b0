"""Metrics leave the training loop here: the caller appends to a queue, a thread delivers.

What the caller pays is one append. The thread sends what has gathered in batches; while the server is away it writes
batches to the spool and delivers them when it is back, in the order in which they were recorded. Trouble is said once, as
a warning, and never raised into the training. Lost is at most what a killed process had gathered since the last batch.
"""

import atexit
import json
import math
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.util import Finalize, register_after_fork
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlops_platform.sdk.contexts import Context
from mlops_platform.sdk.errors import (
    ApiError,
    InvalidRequest,
    PermissionDenied,
    ServerError,
    TooManyRequests,
    Unauthenticated,
)
from mlops_platform.sdk.forking import reset_in_child
from mlops_platform.sdk.spool import Delivery, Kept, Spool, Unreadable, joined, together
from mlops_platform.sdk.wire import NotSerialisable, encode

Point = tuple[str, str, float, int | None, int, Context]
"""Path of the run's metrics, key, value, step, milliseconds since 1970, context."""

INTERVAL_SECONDS = 0.5
BATCH_POINTS = 1000
QUEUE_POINTS = 100_000
LONGEST_ABSENCE_SECONDS = 30.0
NOT_YET = (ServerError, TooManyRequests, Unauthenticated, PermissionDenied)
"""Answers after which the same request may be taken later: the data is kept, not dropped."""


class RecorderWarning(UserWarning):
    """Something recorded has not reached the server."""


class Recorder:
    """Delivers points and requests in order. `send` runs one request and raises an `MlopsError` when that fails."""

    def __init__(
        self, send: Callable[[Delivery], None], spool: Spool, *, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._send = send
        self._spool = spool
        self._interval = interval_seconds
        self._queue: deque[Point | Delivery] = deque()
        self._held: list[Delivery] = []
        self._away_until = 0.0
        self._failures = 0
        self._has_lost = False
        self._warned: set[str] = set()
        self._looked_for_abandoned = False
        self._start_anew()
        reset_in_child(self)
        register_after_fork(self, _close_with_worker)
        _alive.add(self)

    def _start_anew(self) -> None:
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._delivering = threading.Lock()
        self._wake = threading.Event()
        self._closed = False

    def after_fork_in_child(self) -> None:
        # The parent has the queued points and will deliver them; the child begins with none, and with a thread of its own.
        self._queue.clear()
        self._held.clear()
        self._start_anew()

    def point(
        self, path: str, key: str, value: float, step: int | None, at_milliseconds: int, context: Context = ()
    ) -> None:  # positional: keywords cost
        """Record one metric value. Returns at once, whatever the state of the server."""
        queue = self._queue
        queue.append((path, key, value, step, at_milliseconds, context))
        if self._thread is None:
            self._start()
        waiting = len(queue)
        if waiting >= QUEUE_POINTS:
            self._overflow()
        elif waiting >= BATCH_POINTS and not self._wake.is_set():
            self._wake.set()

    def request(
        self, method: str, path: str, body: Any, *, content_type: str | None = None, experiment: str | None = None
    ) -> None:
        """Record a request that follows what was recorded before it. What JSON cannot carry is refused here and now."""
        # As it is at this moment: the caller may go on changing what was given.
        plain = json.loads(encode(body))
        self._enqueue(Delivery(method, path, plain, uuid4().hex, content_type=content_type, experiment=experiment))

    def file(self, path: str, source: Path | bytes, content_type: str) -> None:
        """Record the upload of a content, of which a copy is kept on the disk until it has been delivered."""
        try:
            name = self._spool.keep_file(source)
        except OSError as error:
            self._has_lost = True
            self.warn("lost", f"A file was not recorded: {error}")
            return
        self._enqueue(Delivery("PUT", path, None, uuid4().hex, content_type=content_type, file=name))

    def _enqueue(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        if self._thread is None:
            self._start()

    def flush(self, *, timeout_seconds: float = 30.0) -> bool:
        """Deliver what was recorded. False: the rest is in the spool, or lost when no disk would take it."""
        deadline = time.monotonic() + timeout_seconds
        if not self._delivering.acquire(timeout=timeout_seconds):
            self._rescue()
            return False
        try:
            self._away_until = 0.0
            self._deliver(deadline)
        finally:
            self._delivering.release()
        return self._pending_on_disk() == 0 and not self._has_lost

    def close(self, *, timeout_seconds: float = 30.0) -> None:
        """Flush, and end the thread."""
        self._closed = True
        self._wake.set()
        self.flush(timeout_seconds=timeout_seconds)
        if waiting := self._pending_on_disk():
            self.warn(
                "undelivered",
                f"{waiting} requests have not reached the server; they wait in {self._spool.directory} "
                "and are sent with the next run, or by: mlops run sync",
            )

    def sync(self) -> tuple[int, int]:
        """Deliver everything in the spool, whoever left it there. Answers how many were delivered and how many remain."""
        with self._delivering:
            self._away_until = 0.0
            before = sum(1 for _ in self._spool.all())
            self._replay(self._spool.all(), math.inf)
            after = sum(1 for _ in self._spool.all())
        return before - after, after

    # The thread

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._closed = False
                thread = threading.Thread(target=self._run, name="mlops-recorder", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # No thread is to be had (a limit of the system, or the interpreter ends): `flush` delivers.
                    self.warn("no thread", f"What is recorded waits in memory until the end of the run: {error}")
                    return
                self._thread = thread

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._interval)
            self._wake.clear()
            with self._delivering:
                self._deliver(math.inf)
        self._thread = None

    def _deliver(self, deadline: float) -> None:
        try:
            self._deliver_gathered(deadline)
        except Exception as error:  # noqa: BLE001  # the edge to the training, which no trouble of ours may end
            self.warn("trouble", f"Something recorded may be lost, by a trouble of the recorder itself: {error!r}")

    def _deliver_gathered(self, deadline: float) -> None:
        for delivery in self._gathered():
            self._held.append(delivery)
            late = time.monotonic() > deadline
            if late or self._is_away() or self._pending_on_disk():
                self._keep(delivery)
            else:
                self._try(delivery)
            self._held.clear()
        if not self._is_away():
            self._replay(self._waiting(), deadline)

    def _gathered(self) -> Iterator[Delivery]:
        """Empty the queue: points of one run that follow each other become one request."""
        points: list[Point] = []
        for _ in range(len(self._queue)):
            try:
                item = self._queue.popleft()
            except IndexError:
                break  # another thread empties the queue too: the loop that outran this one, or the end of the process
            if isinstance(item, Delivery):
                yield from _batches(points)
                points = []
                yield item
            elif points and (points[0][0] != item[0] or len(points) >= BATCH_POINTS):
                yield from _batches(points)
                points = [item]
            else:
                points.append(item)
        yield from _batches(points)

    def _try(self, delivery: Delivery) -> None:
        try:
            self._send(delivery)
        except Exception as error:  # noqa: BLE001  # whatever went wrong on the way, the data must not go with it
            if _is_final(error):
                self._refused(delivery, error)
            else:
                self._absent(error)
                self._keep(delivery)
        else:
            self._failures = 0
            self._spool.release(delivery)

    def _refused(self, delivery: Delivery, error: Exception) -> None:
        """One bad point must not take the other 999 of its batch with it: halve until it stands alone."""
        if _is_about_a_part(delivery, error):
            middle = len(delivery.body) // 2
            for half in (delivery.body[:middle], delivery.body[middle:]):
                self._try(Delivery(delivery.method, delivery.path, half, uuid4().hex))
            return
        kept = self._keep(delivery)
        if kept is not None:
            self._set_aside(kept, f"The server refused something recorded: {error}")

    def _replay(self, paths: Iterator[Path], deadline: float) -> None:
        for group in together(self._read(paths)):
            if time.monotonic() > deadline or not self._replayed(group):
                return

    def _read(self, paths: Iterator[Path]) -> Iterator[Kept]:
        for path in paths:
            try:
                delivery = self._spool.read(path)
            except Unreadable as error:
                self._set_aside(path, str(error))
                continue
            if delivery is not None:
                yield path, delivery

    def _replayed(self, group: Sequence[Kept]) -> bool:
        """Send what waited; False when the server is away, and then the files stay."""
        [path, first], *others = group
        try:
            self._send(joined(group) if others else first)
        except Exception as error:  # noqa: BLE001  # as above: the file stays until the server has it
            if not _is_final(error):
                self._absent(error)
                return False
            if others:
                return all(self._replayed([each]) for each in group)
            self._replay_refused(path, first, error)
        else:
            self._failures = 0
            for each, delivery in group:
                self._spool.done(each)
                self._spool.release(delivery)
        return True

    def _replay_refused(self, path: Path, delivery: Delivery, error: Exception) -> None:
        if _is_about_a_part(delivery, error):
            self._refused(delivery, error)
            self._spool.done(path)
        else:
            self._set_aside(path, f"The server refused something recorded: {error}")

    def _set_aside(self, path: Path, why: str) -> None:
        aside = self._spool.reject(path)
        self.warn("refused", f"{why} It was set aside in {aside}.")

    def _waiting(self) -> Iterator[Path]:
        if not self._looked_for_abandoned:
            self._looked_for_abandoned = True
            self._spool.sweep()
            yield from self._spool.abandoned()
        yield from self._spool.own()

    # Trouble

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _absent(self, error: Exception) -> None:
        self._failures += 1
        self._away_until = time.monotonic() + min(LONGEST_ABSENCE_SECONDS, 0.5 * 2.0**self._failures)
        self.warn("absent", f"Metrics wait in {self._spool.directory} until the server takes them: {error}")

    def _keep(self, delivery: Delivery) -> Path | None:
        try:
            return self._spool.append(delivery)
        except (OSError, NotSerialisable) as error:
            self._has_lost = True
            self.warn("lost", f"Recorded data was lost: the server did not take it, and {self._spool.directory}: {error}")
            return None

    def _pending_on_disk(self) -> int:
        return sum(1 for _ in self._spool.own())

    def _overflow(self) -> None:
        """The loop outran the thread by a hundred thousand points: the disk takes them, memory stays bounded."""
        for delivery in list(self._gathered()):
            self._keep(delivery)

    def _rescue(self) -> None:
        """The thread hangs in a request: the queue, and what it has in its hands, goes to the disk."""
        for delivery in [*self._held, *self._gathered()]:
            self._keep(delivery)

    def warn(self, kind: str, message: str) -> None:
        """Say something of this kind, once; never an error, whatever the filters of warnings say."""
        if kind not in self._warned:
            self._warned.add(kind)
            try:
                warnings.warn(message, RecorderWarning, stacklevel=2)
            except RecorderWarning:
                # Warnings are errors in this process, and not even then may a metric stop a training.
                return


def _is_final(error: Exception) -> bool:
    return isinstance(error, ApiError | NotSerialisable) and not isinstance(error, NOT_YET)


def _is_about_a_part(delivery: Delivery, error: Exception) -> bool:
    """Whether a refusal may be about one item of many: a run that is gone (404) is gone for all of them."""
    is_about_content = isinstance(error, InvalidRequest | NotSerialisable)
    return is_about_content and isinstance(delivery.body, list) and len(delivery.body) > 1


def _batches(points: Sequence[Point]) -> Iterator[Delivery]:
    """Points as the wire has them: values of one step, time and context share a body."""
    if not points:
        return
    bodies: dict[tuple[int | None, int, Context], list[dict[str, Any]]] = {}
    for _, key, value, step, at, context in points:
        group = bodies.setdefault((step, at, context), [{}])
        body = next((body for body in group if key not in body), None)
        if body is None:
            group.append(body := {})
        body[key] = value if math.isfinite(value) else _special(value)
    flat = [body | _about(step, at, context) for (step, at, context), group in bodies.items() for body in group]
    yield Delivery("POST", points[0][0], flat, uuid4().hex)


def _about(step: int | None, at: int, context: Context) -> dict[str, Any]:
    found: dict[str, Any] = {"timestamp": at} if step is None else {"step": step, "timestamp": at}
    return found | {"context": dict(context)} if context else found


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_alive: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _close_with_worker(recorder: Recorder) -> None:
    # A process of multiprocessing ends without running what atexit holds.
    Finalize(recorder, recorder.close, kwargs={"timeout_seconds": 10.0}, exitpriority=10)


@atexit.register
def _flush_at_exit() -> None:
    for recorder in list(_alive):
        recorder.close(timeout_seconds=10.0)

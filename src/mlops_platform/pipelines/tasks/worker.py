"""The worker: claims tasks, has them run in processes, hands in how they ended.

One loop exchanges with the database, one keeps the leases. While a commit is under way further endings gather, so that the
busier a worker is, the more a commit carries. A worker that cannot renew its leases stops its tasks itself before anyone
else may start them.
"""

import asyncio
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from time import monotonic
from typing import Any

import structlog

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState
from mlops_platform.core.errors import PlatformError
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.backends.environment import child_environment
from mlops_platform.pipelines.backends.processes import Assignment, Ended, PoolOptions, ProcessPool, check_user
from mlops_platform.pipelines.backends.protection import refuse_inspection
from mlops_platform.pipelines.repository.dispatch import Offer
from mlops_platform.pipelines.service.dispatch import ClaimedTask, Dispatcher, Exchange
from mlops_platform.pipelines.service.logbook import Logbook
from mlops_platform.pipelines.service.runs import CANCEL_CHANNEL, READY_CHANNEL
from mlops_platform.pipelines.service.settlement import Ending, Fence
from mlops_platform.pipelines.tasks.tracing import AttemptSpans

log = structlog.get_logger(__name__)

_BATCH = 200
_LINGER_SECONDS = 0.003


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker offers and how it behaves.

    `environment` is what tasks are let see of (see `backends.environment`); `pass_on` names more of it. `allow` are
    patterns of modules that may run here; none means any. `paths` come first on the module path of tasks. `run_as` is the
    user of the machine under which tasks run, when the worker is root: then they cannot read what the worker can.
    """

    slots: int = 2
    cpus: float | None = None
    memory_mb: int | None = None
    gpus: int = 0
    name: str = ""
    paths: Sequence[Path] = ()
    allow: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    pass_on: Sequence[str] = ()
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    drain_seconds: float = 10.0
    kill_grace_seconds: float = 5.0
    tasks_per_process: int = 50
    run_as: str | None = None


@dataclass(slots=True)
class _Held:
    """A task that this worker has: until its ending is settled, not only until its process is done."""

    claimed: ClaimedTask
    interrupt: "asyncio.Future[AttemptState]"
    logbook: Logbook
    work: "asyncio.Task[None] | None" = None

    def stop(self, how: AttemptState) -> None:
        if not self.interrupt.done():
            self.interrupt.set_result(how)


class Worker:
    """One worker."""

    def __init__(self, runtime: Runtime, options: WorkerOptions) -> None:
        self.id = new_id()
        self.name = options.name or f"{platform.node()}:{os.getpid()}"
        self._options = options
        self._chance = SystemRandom()
        self._dispatcher = Dispatcher(runtime, options.lease_seconds, self._chance)
        self._pool = ProcessPool(
            PoolOptions(
                environment=child_environment(options.environment, passed=options.pass_on),
                paths=options.paths,
                allow=options.allow,
                tasks_per_process=options.tasks_per_process,
                kill_grace_seconds=options.kill_grace_seconds,
                run_as=options.run_as,
            )
        )
        self._spans = AttemptSpans(runtime.tracer)
        self._held: dict[Fence, _Held] = {}
        self._endings: list[Ending] = []
        self._batch = _BATCH
        self.failed_exchanges = 0
        self._wake = asyncio.Event()
        self._pulse = asyncio.Event()
        self._renewed_at = monotonic()
        runtime.listener.on(READY_CHANNEL, self._wake.set)
        runtime.listener.on(CANCEL_CHANNEL, self._pulse.set)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then let running tasks end for a while, and give the others back."""
        log.info("worker.started", worker=self.name, slots=self._options.slots)
        loops = [asyncio.create_task(self._keep_leases()), asyncio.create_task(self._reap())]
        waker = asyncio.create_task(_then(stop, self._wake.set))
        try:
            while not stop.is_set():
                await self._turn(is_claiming=True)
                await self._pause()
            await self._drain()
        finally:
            for task in (*loops, waker):
                task.cancel()
            await self._pool.close()
            log.info("worker.stopped", worker=self.name)

    async def _turn(self, *, is_claiming: bool) -> None:
        """One exchange with the database. What could not be handed in is handed in with the next."""
        if self._endings and len(self._held) > len(self._endings):
            # Others are about to end: a commit for all of them costs what one for the first does.
            await asyncio.sleep(_LINGER_SECONDS)
        self._wake.clear()
        batch = self._endings[: self._batch]
        chunks = [(held.logbook, held.logbook.chunks()) for held in self._held.values()]
        offer = self._offer(batch) if is_claiming else None
        lines = [chunk for _, made in chunks for chunk in made]
        if not batch and not lines and (offer is None or offer.slots < 1):
            return
        exchange = await self._exchange(batch, lines, offer)
        if exchange is None:
            return
        del self._endings[: len(batch)]
        for logbook, made in chunks:
            logbook.stored(made)
        for ending in batch:
            self._held.pop(ending.fence, None)
        self._take(exchange)

    async def _exchange(
        self, batch: Sequence[Ending], lines: Sequence[Mapping[str, Any]], offer: Offer | None
    ) -> Exchange | None:
        try:
            exchange = await self._dispatcher.exchange(batch, lines, offer)
        except PlatformError as error:
            log.warning("worker.database_away", worker=self.name, error=error.detail)
            return None
        except Exception:  # the process edge: one ending that cannot be stored must not stop the others
            log.exception("worker.exchange_failed", worker=self.name, endings=len(batch))
            self.failed_exchanges += 1
            self._isolate(batch)
            return None
        self._batch = _BATCH
        return exchange

    def _take(self, exchange: Exchange) -> None:
        for refused in exchange.refused:
            log.warning("worker.ending_refused", worker=self.name, task_run=refused[0], attempt=refused[1])
        self._endings += exchange.ended_already
        for claimed in exchange.claimed:
            self._start(claimed)
        self._dispatcher.forget_tokens(frozenset(held.claimed.run_id for held in self._held.values()))
        if self._endings:
            self._wake.set()

    def _isolate(self, batch: Sequence[Ending]) -> None:
        """Hand in one by one from now on; the one that fails alone is dropped, and its lease runs out."""
        if len(batch) == 1:
            self._endings.remove(batch[0])
            self._held.pop(batch[0].fence, None)
        self._batch = 1

    def _offer(self, ending: Sequence[Ending]) -> Offer:
        """The room that there is once these endings are settled, for they are in the same exchange."""
        gone = {one.fence for one in ending}
        taken = [held.claimed.spec.resources for fence, held in self._held.items() if fence not in gone]
        cpus = self._options.cpus if self._options.cpus is not None else float(self._options.slots)
        memory_mb = self._options.memory_mb if self._options.memory_mb is not None else _physical_memory_mb()
        return Offer(
            worker_id=self.id,
            worker=self.name,
            slots=self._options.slots - len(taken),
            cpus=cpus - sum(one.cpus for one in taken),
            memory_mb=memory_mb - sum(one.memory_mb for one in taken),
            gpus=self._options.gpus - sum(one.gpus for one in taken),
            allow=self._options.allow,
        )

    def _start(self, claimed: ClaimedTask) -> None:
        logbook = Logbook(claimed.project_id, claimed.task_run_id, claimed.attempt)
        held = _Held(claimed, asyncio.get_running_loop().create_future(), logbook)
        self._held[claimed.fence] = held
        held.work = asyncio.create_task(self._execute(held))

    async def _execute(self, held: _Held) -> None:
        claimed = held.claimed
        assignment = Assignment(
            affinity=claimed.run_id,
            entry_point=claimed.spec.entry_point,
            arguments=claimed.arguments,
            environment=_task_environment(claimed),
            timeout_seconds=claimed.spec.timeout_seconds,
        )
        began = monotonic()
        try:
            ended = await self._pool.execute(assignment, on_line=held.logbook.add, interrupt=held.interrupt)
        except Exception as error:  # the process edge: a task without an ending would be held, and its lease kept, for ever
            # Mostly no process could be started: this machine's trouble, and not the task's.
            log.exception("worker.cannot_run", worker=self.name, task_run=claimed.task_run_id)
            told = {
                "type": "WorkerLost",
                "message": f"Worker {self.name!r} could not run the task: {error}",
                "traceback": None,
            }
            ended = Ended(AttemptState.LOST, error=told)
        self._spans.add(claimed, ended.state, monotonic() - began)
        self._endings.append(
            Ending(claimed.task_run_id, claimed.attempt, ended.state, ended.result, ended.error, ended.exit_code)
        )
        self._wake.set()

    async def _pause(self) -> None:
        """Until something happens here or elsewhere; the poll is the truth, the wake-up only a nudge."""
        seconds = self._options.poll_seconds * (0.75 + self._chance.random() / 2)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _keep_leases(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._options.lease_seconds / 3):
                    await self._pulse.wait()
            except TimeoutError:
                pass
            self._pulse.clear()
            try:
                # An answer that does not come is no renewal either: the fence must not wait for it.
                async with asyncio.timeout(self._options.lease_seconds / 3):
                    await self._renew()
            except (PlatformError, TimeoutError) as error:
                log.warning("worker.renewal_failed", worker=self.name, error=str(error))
            except Exception:  # the process edge: without this loop every task here would run twice
                log.exception("worker.renewal_failed", worker=self.name)
            self._fence()

    async def _renew(self) -> None:
        began = monotonic()
        holding = dict(self._held)
        still = await self._dispatcher.renew(self.id, list(holding)) if holding else {}
        self._renewed_at = began
        for fence, one in holding.items():
            if fence not in still:
                one.stop(AttemptState.LOST)
            elif still[fence] is not PipelineRunState.RUNNING:
                one.stop(AttemptState.CANCELLED)

    def _fence(self) -> None:
        """Past two thirds of a lease without renewal, stop: at its end somebody else may begin."""
        if monotonic() - self._renewed_at > self._options.lease_seconds * 2 / 3:
            for held in self._held.values():
                held.stop(AttemptState.LOST)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(self._options.lease_seconds * (0.4 + 0.2 * self._chance.random()))
            try:
                await self._dispatcher.expire()
            except PlatformError as error:
                log.warning("worker.reaping_failed", worker=self.name, error=error.detail)
            except Exception:  # the process edge: one attempt that cannot be ended must not keep the others
                log.exception("worker.reaping_failed", worker=self.name)

    async def _drain(self) -> None:
        deadline = monotonic() + self._options.drain_seconds
        while (self._held or self._endings) and monotonic() < deadline:
            await self._turn(is_claiming=False)
            await self._pause()
        for held in self._held.values():
            held.stop(AttemptState.LOST)
        await asyncio.gather(*(held.work for held in self._held.values() if held.work is not None))
        await self._turn(is_claiming=False)


def _task_environment(claimed: ClaimedTask) -> dict[str, str]:
    threads = str(max(1, int(claimed.spec.resources.cpus)))
    environment = {
        "MLOPS_PIPELINE_RUN_ID": claimed.run_id,
        "MLOPS_PIPELINE_TASK": claimed.task,
        "MLOPS_PIPELINE_ATTEMPT": str(claimed.attempt),
        # Numeric libraries take every core otherwise, in each of several tasks at once.
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    if claimed.item is not None:
        environment["MLOPS_PIPELINE_ITEM"] = str(claimed.item)
    if claimed.token is not None:
        environment["MLOPS_SERVICE_TOKEN"] = claimed.token
    return environment


def _physical_memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2


async def _then(event: asyncio.Event, call: Callable[[], None]) -> None:
    await event.wait()
    call()


async def run_worker(runtime: Runtime, options: WorkerOptions, stop: asyncio.Event) -> None:
    """What a worker process does until `stop`. It is a process of its own: its memory is closed to its tasks."""
    if options.run_as is not None:
        check_user(options.run_as)
    refuse_inspection()
    await Worker(runtime, options).run(stop)

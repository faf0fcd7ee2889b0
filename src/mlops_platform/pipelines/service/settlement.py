"""The end of attempts: the only place where the result of a task is recorded.

An ending counts when it carries the number of the task's latest attempt and the task is still running. Everything else is
late: another attempt has been made, or the run was taken up again. It is refused without a trace in the run, so a task runs
at least once and its result is recorded at most once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState, TaskRunState, TaskSpec
from mlops_platform.core.auth.authenticator import AuthKeys
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.notify import notify
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.pipelines.domain import states
from mlops_platform.pipelines.repository import runs as runs_sql
from mlops_platform.pipelines.repository import settlement as sql
from mlops_platform.pipelines.service.runs import READY_CHANNEL, acting_for, end_tokens
from mlops_platform.pipelines.tables import NO_ITEM

Fence = tuple[str, int]
"""A task run and the number of an attempt of it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `attempt` is the fence. A fan-out that was resolved ends as `expanded` with its items."""

    task_run_id: str
    attempt: int
    state: AttemptState
    result: Any = None
    error: Mapping[str, Any] | None = None
    exit_code: int | None = None
    items: Sequence[Any] | None = None

    @property
    def fence(self) -> Fence:
        return self.task_run_id, self.attempt


@dataclass(frozen=True, slots=True)
class _Settled:
    row: Any
    ending: Ending
    settlement: states.Settlement

    @property
    def state(self) -> TaskRunState:
        return self.settlement.state


class Settlement:
    """Settles endings in one transaction."""

    def __init__(self, session: WriteSession, clock: Clock, keys: AuthKeys, chance: Random) -> None:
        self._session = session
        self._clock = clock
        self._keys = keys
        self._chance = chance

    async def settle(self, endings: Sequence[Ending], *, skip_locked: bool = False) -> frozenset[Fence]:
        """Record what counts and move the runs on; the attempts whose ending counted.

        `skip_locked` leaves out what somebody holds, for the reaper: a worker that froze within a transaction must not keep
        it from the tasks of others.
        """
        if not endings:
            return frozenset()
        given = {ending.fence: ending for ending in endings}
        tasks = sorted({ending.task_run_id for ending in endings})
        runs = await sql.lock_runs_of(self._session, tasks, skip_locked=skip_locked)
        rows = await sql.running_tasks(self._session, tasks, skip_locked=skip_locked)
        current = [(row, given.get((row.id, row.attempt))) for row in rows if row.run_id in runs]
        settled = [self._decide(row, ending, runs[row.run_id]) for row, ending in current if ending is not None]
        if settled:
            await sql.end_attempts(self._session, [_attempt_values(one) for one in settled])
            await sql.move_tasks(self._session, [_task_values(one) for one in settled])
            for one in settled:
                if one.state is TaskRunState.EXPANDED:
                    await sql.insert_items(self._session, one.row, one.ending.items or ())
            await self._advance(runs, settled)
        return frozenset(one.ending.fence for one in settled)

    def _decide(self, row: Any, ending: Ending, run: Any) -> _Settled:
        spec = TaskSpec.model_validate(row.spec)
        is_cancelling = run.state != PipelineRunState.RUNNING.value
        ended = ending.state
        if ended is AttemptState.EXPANDED and not ending.items:
            ended = AttemptState.SUCCEEDED
        settlement = states.settle(
            ended,
            states.Progress(row.failures, row.losses, is_cancelling),
            states.RetryPolicy(spec.retries, spec.retry_delay_seconds, spec.retry_on_loss),
            jitter=self._chance.random(),
        )
        return _Settled(row, ending, settlement)

    async def _advance(self, runs: Mapping[str, Any], settled: Sequence[_Settled]) -> None:
        ended_items = Counter(
            (one.row.run_id, one.row.position)
            for one in settled
            if one.row.item != NO_ITEM and one.state not in states.OPEN_TASKS
        )
        folded = await sql.fold_items(self._session, ended_items)
        succeeded = [one.row.id for one in _plain(settled) if one.state is TaskRunState.SUCCEEDED]
        succeeded += [row.id for row in folded if row.state == TaskRunState.SUCCEEDED.value]
        failed = [one.row.id for one in _plain(settled) if one.state is TaskRunState.FAILED]
        failed += [row.id for row in folded if row.state == TaskRunState.FAILED.value]
        is_ready = any(one.state in {TaskRunState.EXPANDED, TaskRunState.RETRY_WAIT} for one in settled)
        if succeeded:
            is_ready = await sql.release_downstream(self._session, succeeded) > 0 or is_ready
        if failed:
            await sql.fail_downstream(self._session, failed)
        if is_ready:
            await notify(self._session, READY_CHANNEL)
        for one in settled:
            if one.state is TaskRunState.FAILED:
                await self._tell_failure(runs[one.row.run_id], one)
        await self._finish(runs)

    async def _finish(self, runs: Mapping[str, Any]) -> None:
        ended = await sql.ended_runs(self._session, list(runs))
        for row in ended:
            run = runs[row.id]
            state = states.final_run_state(PipelineRunState(run.state), any_unsuccessful=row.is_marred)
            await runs_sql.set_run_state(self._session, row.id, state, is_final=True)
            facts = {"run_id": row.id, "pipeline": run.pipeline, "state": state.value}
            work = self._work(run)
            await work.emit("pipeline_run.finished", work.urn("pipeline-run", row.id), facts)
        if ended:
            await end_tokens(self._session, self._keys, self._clock.now(), run_ids=[row.id for row in ended])

    async def _tell_failure(self, run: Any, one: _Settled) -> None:
        work = self._work(run)
        facts = {
            "run_id": run.id,
            "pipeline": run.pipeline,
            "task": one.row.task,
            "item": None if one.row.item == NO_ITEM else one.row.item,
            "attempt": one.row.attempt,
            "state": one.ending.state.value,
            "error": {key: (one.ending.error or {}).get(key) for key in ("type", "message")},
        }
        await work.emit("task_run.failed", work.urn("pipeline-run", run.id), facts)

    def _work(self, run: Any) -> UnitOfWork:
        return UnitOfWork(self._session, acting_for(run), self._clock)


def _plain(settled: Iterable[_Settled]) -> Iterable[_Settled]:
    """Those that others may wait for: items of a fan-out are waited for through it."""
    return (one for one in settled if one.row.item == NO_ITEM)


def _attempt_values(one: _Settled) -> dict[str, Any]:
    return {
        "task_run": one.row.id,
        "fence": one.row.attempt,
        "ended": one.ending.state.value,
        "code": one.ending.exit_code,
        "why": one.ending.error,
    }


def _task_values(one: _Settled) -> dict[str, Any]:
    is_empty_fan_out = one.ending.state is AttemptState.EXPANDED and not one.ending.items
    return {
        "task_run": one.row.id,
        "fence": one.row.attempt,
        "target": one.state.value,
        "delay_seconds": one.settlement.delay_seconds,
        "failed": one.settlement.failures,
        "lost": one.settlement.losses,
        "open_items": len(one.ending.items or ()) if one.state is TaskRunState.EXPANDED else 0,
        "value": [] if is_empty_fan_out else one.ending.result,
        "why": None if one.state is TaskRunState.SUCCEEDED else one.ending.error,
    }

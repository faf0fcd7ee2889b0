"""Use cases on sweeps. A sweep is a run, its trials are runs below it, and asking and telling go one by one.

Whoever holds the sweep's run decides: which point is free, what is tried there, and whether the sweep is over. The runs
are the memory: what is known of a trial is what its run says.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter

from mlops_platform.contracts.tracking import RunCreate, RunStatus, RunUpdate
from mlops_platform.contracts.tracking_sweeps import (
    Objective,
    Pruner,
    SearchSpace,
    SweepAsk,
    SweepCreate,
    SweepMethod,
    SweepResume,
    SweepStop,
    SweepTell,
    TrialOutcome,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.backends.sampler import Sampler
from mlops_platform.tracking.domain import leases, spaces
from mlops_platform.tracking.domain import sweeps as rules
from mlops_platform.tracking.domain.keys import key_parts, read_key
from mlops_platform.tracking.domain.points import Points
from mlops_platform.tracking.domain.spaces import Point, Space
from mlops_platform.tracking.errors import RunDeleted, SweepNotFound, TrialEnded, TrialNotFound
from mlops_platform.tracking.repository.leases import LeaseRepository
from mlops_platform.tracking.repository.metrics import IngestItem, intern_keys, of_run, store
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.repository.sweeps import FreeSlot, SweepRepository, values_of
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.holding import hold_run, record_run
from mlops_platform.tracking.service.runs import RunTracking

ASK_AGAIN_SECONDS = 5.0
_PARAMETERS: TypeAdapter[Any] = TypeAdapter(SearchSpace)
_OBJECTIVES: TypeAdapter[list[Objective]] = TypeAdapter(list[Objective])


class Handed:
    """What a worker is given: the row of a trial, or why there is none."""

    def __init__(self, status: RunStatus, run_id: str | None, reason: str | None = None, *, wait: bool = False) -> None:
        self.status = status
        self.run_id = run_id
        self.reason = reason
        self.retry_after_seconds = ASK_AGAIN_SECONDS if wait else None


class Sweeps:
    """The use cases of one caller."""

    def __init__(self, work: UnitOfWork, sampler: Sampler) -> None:
        self._work = work
        self._sampler = sampler
        self._sweeps = SweepRepository(work.session, work.principal)
        self._runs = RunTracking(work)

    async def create(self, new: SweepCreate) -> str:
        """Start a sweep; the id of its run."""
        space = await asyncio.to_thread(spaces.read_space, new.parameters)
        rules.check_sweep(new, space)
        if new.method in {SweepMethod.TPE, SweepMethod.QMC}:
            self._sampler.require()
        size = await _size(new.method, new.max_trials, space)
        described = RunCreate(
            run_name=new.name,
            tags={**new.tags, "mlops.sweep": new.method.value},
            parent_run_id=new.parent_run_id,
        )
        run = await self._runs.create(new.experiment_id, described)
        now = self._work.clock.now()
        values = {
            "id": run.id,
            "method": new.method.value,
            "parameters": _PARAMETERS.dump_json(new.parameters, exclude_unset=True).decode(),
            "objectives": [objective.model_dump(mode="json") for objective in new.objectives],
            "pruner": new.pruner.model_dump(mode="json"),
            "max_trials": new.max_trials,
            "timeout_seconds": new.timeout_seconds,
            "deadline": now + timedelta(seconds=new.timeout_seconds) if new.timeout_seconds else None,
            "max_attempts": new.max_attempts,
            "seed": secrets.randbits(32) if new.seed is None else new.seed,
            "startup_trials": new.startup_trials,
            "heartbeat_seconds": new.heartbeat_seconds,
            "size": size,
            "created_by": self._work.principal.name,
            "created_at": now,
        }
        await self._sweeps.add(values)
        await self._record("sweep.created", run.id, run.experiment_id, after=values)
        return str(run.id)

    async def ask(self, sweep_id: str, asked: SweepAsk) -> Handed:
        """Hand out a point that nobody works on, as a run; or say why there is none."""
        sweep = await self._held(sweep_id)
        if sweep.status != RunStatus.RUNNING:
            return Handed(RunStatus(sweep.status), None, sweep.status_reason or f"The sweep is {sweep.status}.")
        if reason := await self._over(sweep):
            return await self._finish(sweep, reason)
        free = await self._sweeps.free_slot(sweep_id, size=sweep.size, max_attempts=sweep.max_attempts)
        if free is None:
            if await self._sweeps.is_any_running(sweep_id):
                return Handed(RunStatus.RUNNING, None, "All that is left is being worked on.", wait=True)
            return await self._finish(sweep, f"All {sweep.size} points were tried.")
        return await self._handed(sweep, free, asked)

    async def tell(self, sweep_id: str, told: SweepTell) -> tuple[str, RunStatus]:
        """Note how a trial ended, and end its run; the run, and where the sweep stands. Again, it changes nothing."""
        sweep = await self._held(sweep_id)
        trial = await self._sweeps.trial(sweep_id, told.run_id)
        if trial is None:
            raise TrialNotFound.of(sweep_id, told.run_id)
        if trial.outcome is not None:
            if trial.outcome != told.outcome:
                raise TrialEnded(f"Trial {trial.number} was told {trial.outcome} before.")
            return told.run_id, RunStatus(sweep.status)
        # Whatever its run is now: a worker that was silent may have resumed it meanwhile.
        if await self._sweeps.has_later_attempt(trial):
            raise TrialEnded(
                f"Trial {trial.number} was given back, and its point was handed out again.",
                hint=f"{trial.status_reason or 'Its run was ended from elsewhere.'} Ask for another trial.",
            )
        row = await hold_run(self._work, told.run_id)
        if told.writer is not None and row.status == RunStatus.RUNNING:
            lease = await LeaseRepository(self._work.session, self._work.principal).lease(told.run_id)
            leases.check_writer(told.run_id, lease, told.writer)
        objectives = objectives_of(sweep)
        await self._log(told, objectives)
        outcome, reason = await self._outcome(sweep_id, told, objectives)
        await self._runs.update(told.run_id, RunUpdate(status=_ENDS[outcome], status_reason=reason or ""))
        await self._sweeps.set_outcome(told.run_id, outcome.value)
        facts = {"experiment_id": row.experiment_id, "sweep_id": sweep_id, "number": trial.number, "outcome": outcome.value}
        await record_run(self._work, "sweep.trial_told", told.run_id, facts, after=facts, detail=facts)
        status = await self._settled(sweep)
        return told.run_id, status

    async def stop(self, sweep_id: str, stop: SweepStop) -> None:
        """Hand out no more. Stopping it again changes nothing."""
        sweep = await self._held(sweep_id)
        if sweep.status in {RunStatus.RUNNING, RunStatus.SCHEDULED}:
            reason = stop.reason or "Stopped."
            await self._runs.update(sweep_id, RunUpdate(status=RunStatus.KILLED, status_reason=reason))
            after = {"status": RunStatus.KILLED.value, "reason": reason}
            await self._record("sweep.stopped", sweep_id, sweep.experiment_id, before={"status": sweep.status}, after=after)

    async def resume(self, sweep_id: str, resume: SweepResume) -> None:
        """Go on, with other limits where they are given."""
        sweep = await self._held(sweep_id)
        space = await space_of(sweep)
        rules.check_limit(SweepMethod(sweep.method), resume.max_trials, space)
        max_trials = resume.max_trials or sweep.max_trials
        seconds = resume.timeout_seconds or sweep.timeout_seconds
        values = {
            "max_trials": max_trials,
            "timeout_seconds": seconds,
            "deadline": self._work.clock.now() + timedelta(seconds=seconds) if seconds else None,
            "size": await _size(SweepMethod(sweep.method), max_trials, space),
        }
        before = {name: getattr(sweep, name) for name in (*values, "status")}
        await self._sweeps.change(sweep_id, values)
        await self._runs.update(sweep_id, RunUpdate(status=RunStatus.RUNNING))
        after = {**values, "status": RunStatus.RUNNING.value}
        await self._record("sweep.resumed", sweep_id, sweep.experiment_id, before=before, after=after)

    async def _handed(self, sweep: Record, free: FreeSlot, asked: SweepAsk) -> Handed:
        number = await self._sweeps.next_number(sweep.id)
        point = await self._point(sweep, free, number)
        run = await self._runs.create(
            sweep.experiment_id,
            RunCreate(
                run_name=asked.run_name or f"{sweep.name[:480]} #{number}",
                parameters=point,
                parent_run_id=sweep.id,
                heartbeat_seconds=asked.heartbeat_seconds or sweep.heartbeat_seconds,
                writer=asked.writer,
            ),
        )
        await self._sweeps.add_trial(
            {"sweep_id": sweep.id, "number": number, "run_id": run.id, "slot": free.slot, "attempt": free.attempt}
        )
        return Handed(RunStatus.RUNNING, run.id)

    async def _point(self, sweep: Record, free: FreeSlot, number: int) -> Point:
        """What is tried at a slot. All but TPE need only the slot; TPE gives a lost trial out again as it was."""
        space, method = await space_of(sweep), SweepMethod(sweep.method)
        if method is SweepMethod.GRID:
            return await asyncio.to_thread(spaces.cell, space, free.slot)
        if method is SweepMethod.RANDOM:
            return spaces.random_point(space, sweep.seed, free.slot)
        if method is SweepMethod.QMC:
            question = {"kind": "quasi", "seed": sweep.seed, "slot": free.slot, "dimensions": len(space)}
            places = dict(zip((dimension.name for dimension in space), await self._sampler.ask(question), strict=True))
            return spaces.point_at(space, lambda name: float(places[name]))
        if free.last_run_id is not None:
            lost = (await RunReader(self._work.session, self._work.principal).data([free.last_run_id]))[free.last_run_id]
            tried = {dimension.name: lost.params[dimension.name] for dimension in space if dimension.name in lost.params}
            if tried:
                return tried
        return await self._suggested(sweep, space, number)

    async def _suggested(self, sweep: Record, space: Space, number: int) -> Point:
        objectives = objectives_of(sweep)
        trials = await self._sweeps.study(sweep.id, objectives, [dimension.name for dimension in space])
        answer = await self._sampler.ask(
            {
                "kind": "sample",
                "seed": int.from_bytes(blake2b(f"{sweep.seed}:{number}".encode(), digest_size=4).digest()),
                "startup_trials": sweep.startup_trials,
                "directions": [objective.goal.value for objective in objectives],
                "space": await asyncio.to_thread(described, space),
                "trials": trials,
            }
        )
        by_name = {dimension.name: dimension for dimension in space}
        return {
            name: choices[value].value if (choices := by_name[name].choices) else by_name[name].exact(value)
            for name, value in answer.items()
        }

    async def _log(self, told: SweepTell, objectives: Sequence[Objective]) -> None:
        """Write the values that were told where all values are: among the metrics of the run, after what is there."""
        if told.values is None:
            return
        if len(told.values) != len(objectives):
            raise InvalidInput.of("values", f"the sweep has {len(objectives)} objectives", len(told.values))
        session, principal = self._work.session, self._work.principal
        kept = {(row.key, row.context): row for row in await of_run(session, principal, told.run_id)}
        points = Points()
        for objective, value in zip(objectives, told.values, strict=True):
            key = read_key(objective.metric)
            last = kept.get(key_parts(key))
            if last is not None and last.last_value == value:
                continue
            points.keys.append(key)
            points.steps.append(min(last.last_step + 1, 2**63 - 1) if last else 0)
            points.timestamps.append(self._work.clock.now())
            points.values.append(value)
            points.arrived.append(True)
        if points:
            items = [IngestItem(principal.project, told.run_id, None, points)]
            await store(session, items, await intern_keys(session, items, {}))

    async def _outcome(
        self, sweep_id: str, told: SweepTell, objectives: Sequence[Objective]
    ) -> tuple[TrialOutcome, str | None]:
        """What was told, unless the run has no numbers for it."""
        if told.outcome is not TrialOutcome.COMPLETE:
            return told.outcome, told.reason or ("Pruned." if told.outcome is TrialOutcome.PRUNED else None)
        found = (await self._sweeps.those(sweep_id, objectives, [told.run_id]))[0]
        for objective, value in zip(objectives, values_of(found, len(objectives)), strict=True):
            if value is None:
                raise InvalidInput.of(
                    "values",
                    f"the run has no metric {objective.metric!r}",
                    hint="Log it, or tell values: one for each objective of the sweep.",
                )
            if value != value:  # noqa: PLR0124  # NaN is not itself
                return TrialOutcome.FAILED, f"{objective.metric} is NaN."
        return TrialOutcome.COMPLETE, told.reason

    async def _over(self, sweep: Record) -> str | None:
        """Why nothing is handed out any more, whatever is left."""
        if sweep.deadline is not None and self._work.clock.now() >= sweep.deadline:
            return "The time limit is reached."
        objectives = objectives_of(sweep)
        if all(objective.target is None for objective in objectives):
            return None
        return rules.target_reached(await self._sweeps.attempts(sweep.id, objectives), objectives)

    async def _settled(self, sweep: Record) -> RunStatus:
        """End the sweep with its last trial."""
        if sweep.status != RunStatus.RUNNING:
            return RunStatus(sweep.status)
        if reason := await self._over(sweep):
            return (await self._finish(sweep, reason)).status
        free = await self._sweeps.free_slot(sweep.id, size=sweep.size, max_attempts=sweep.max_attempts)
        if free is None and not await self._sweeps.is_any_running(sweep.id):
            return (await self._finish(sweep, f"All {sweep.size} points were tried.")).status
        return RunStatus.RUNNING

    async def _finish(self, sweep: Record, reason: str) -> Handed:
        await self._runs.update(sweep.id, RunUpdate(status=RunStatus.FINISHED, status_reason=reason))
        after = {"status": RunStatus.FINISHED.value, "reason": reason}
        await self._record("sweep.finished", sweep.id, sweep.experiment_id, before={"status": sweep.status}, after=after)
        return Handed(RunStatus.FINISHED, None, reason)

    async def _held(self, sweep_id: str) -> Record:
        row = await self._sweeps.hold(sweep_id)
        if row is None:
            raise SweepNotFound.of(sweep_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
        if row.deleted_at is not None or row.experiment_deleted_at is not None:
            raise RunDeleted.of(sweep_id)
        return row

    async def _record(self, action: str, sweep_id: str, experiment_id: str, **states: Mapping[str, Any]) -> None:
        after = states.get("after", {})
        facts = {"sweep_id": sweep_id, "experiment_id": experiment_id}
        facts |= {name: after[name] for name in ("status", "reason", "method") if name in after}
        await record_run(self._work, action, sweep_id, facts, **states)


_ENDS = {
    TrialOutcome.COMPLETE: RunStatus.FINISHED,
    TrialOutcome.PRUNED: RunStatus.KILLED,
    TrialOutcome.FAILED: RunStatus.FAILED,
}


async def space_of(sweep: Record) -> Space:
    """The space that a sweep declares. A large one takes long to read: not on the loop, and not for each trial."""
    return await asyncio.to_thread(_read_space, sweep.parameters)


@lru_cache(maxsize=32)
def _read_space(declared: str) -> Space:
    return spaces.read_space(_PARAMETERS.validate_json(declared))


def objectives_of(sweep: Record) -> list[Objective]:
    """Its objectives."""
    return _OBJECTIVES.validate_python(sweep.objectives)


def pruner_of(sweep: Record) -> Pruner:
    """When its trials are given up."""
    return Pruner.model_validate(sweep.pruner)


def described(space: Space) -> list[dict[str, Any]]:
    """The space as the process that runs Optuna reads it."""
    return [
        {
            "name": dimension.name,
            "type": dimension.type.value,
            "low": dimension.low,
            "high": dimension.high,
            "step": dimension.step,
            "log": dimension.log,
            "choices": [f"{choice.kind}:{choice.text}" for choice in dimension.choices],
            "conditions": [[condition.name, sorted(condition.codes)] for condition in dimension.conditions],
        }
        for dimension in space
    ]


async def _size(method: SweepMethod, max_trials: int | None, space: Space) -> int:
    """How many points there are to try."""
    if method is not SweepMethod.GRID:
        return max_trials or rules.DEFAULT_TRIALS
    count = await asyncio.to_thread(spaces.count_cells, space)
    return min(count, max_trials or count)

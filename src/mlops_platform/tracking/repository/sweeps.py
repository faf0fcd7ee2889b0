"""Statements on sweeps. What a trial tried and found is read from its run, wherever it is asked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Double, Select, Text, and_, case, cast, func, insert, literal, null, select, update

from mlops_platform.contracts.tracking_metrics import MetricGoal
from mlops_platform.contracts.tracking_sweeps import Objective, Summary, TrialState
from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.keys import read_key
from mlops_platform.tracking.domain.sweeps import Attempt, state_of
from mlops_platform.tracking.repository.experiments import readable
from mlops_platform.tracking.repository.metrics import key_ids
from mlops_platform.tracking.tables import experiments, run_metrics, run_params, runs, sweep_trials, sweeps

_IS_LIVE = runs.c.deleted_at.is_(None)
# Its run ended without a word on how it went: its process died, or somebody ended it.
_IS_LOST = and_(sweep_trials.c.outcome.is_(None), runs.c.status.in_(("FAILED", "KILLED")))
_IS_RUNNING = and_(sweep_trials.c.outcome.is_(None), runs.c.status.in_(("RUNNING", "SCHEDULED")))
_STATE = case(
    (sweep_trials.c.outcome.is_not(None), sweep_trials.c.outcome),
    (_IS_RUNNING, literal(TrialState.RUNNING.value)),
    (_IS_LOST, literal(TrialState.LOST.value)),
    else_=literal(TrialState.COMPLETE.value),
)
# Of ten thousand rows each column costs.
_NARROW = (
    sweep_trials.c.number,
    sweep_trials.c.slot,
    sweep_trials.c.outcome,
    sweep_trials.c.run_id,
    runs.c.status,
)


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """A point that nobody works on: which attempt would be the next, and the run of the last one."""

    slot: int
    attempt: int
    last_run_id: str | None


class SweepReader:
    """Reads of sweeps whose experiment the caller may read."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def sweep(self, sweep_id: str) -> Record | None:
        """One sweep, with what stands on its run and its experiment's name."""
        return await self._session.first(self._with_run().where(sweeps.c.id == sweep_id))

    async def listed(
        self, *, experiment_id: str | None, status: str | None, after: str | None, limit: int
    ) -> Sequence[Record]:
        """Live sweeps of live experiments, the newest first."""
        statement = self._with_run().where(_IS_LIVE, experiments.c.deleted_at.is_(None))
        if experiment_id is not None:
            statement = statement.where(runs.c.experiment_id == experiment_id)
        if status is not None:
            statement = statement.where(runs.c.status == status)
        if after is not None:
            statement = statement.where(sweeps.c.id < after)
        return await self._session.all(statement.order_by(sweeps.c.id.desc()).limit(limit))

    async def counts(self, sweep_ids: Collection[str]) -> dict[str, dict[TrialState, int]]:
        """How many trials of each stand where."""
        found: dict[str, dict[TrialState, int]] = {sweep_id: {} for sweep_id in sweep_ids}
        trials = (
            self._trials()
            .with_only_columns(sweep_trials.c.sweep_id, _STATE.label("state"))
            .where(sweep_trials.c.sweep_id.in_(sweep_ids))
            .subquery()
        )
        counted = select(trials.c.sweep_id, trials.c.state, func.count().label("trials"))
        for row in await self._session.all(counted.group_by(trials.c.sweep_id, trials.c.state)):
            found[row.sweep_id][TrialState(row.state)] = row.trials
        return found

    async def attempts(self, sweep_id: str, objectives: Sequence[Objective]) -> list[Attempt]:
        """Every trial whose run was not deleted, in the order of the asking."""
        statement, _ = await self._valued(self._trials().with_only_columns(*_NARROW), objectives)
        rows = await self._session.all(statement.where(sweep_trials.c.sweep_id == sweep_id).order_by(sweep_trials.c.number))
        return [to_attempt(row, len(objectives)) for row in rows]

    async def trials(
        self, sweep_id: str, objectives: Sequence[Objective], *, state: str | None, after: int | None, limit: int
    ) -> Sequence[Record]:
        """A page of them, with what stands on their runs."""
        statement, _ = await self._valued(self._trials(), objectives)
        statement = statement.where(sweep_trials.c.sweep_id == sweep_id)
        if state is not None:
            statement = statement.where(_STATE.in_((state,)))
        if after is not None:
            statement = statement.where(sweep_trials.c.number > after)
        return await self._session.all(statement.order_by(sweep_trials.c.number).limit(limit))

    async def those(self, sweep_id: str, objectives: Sequence[Objective], run_ids: Sequence[str]) -> list[Record]:
        """The trials of these runs, in their order."""
        statement, _ = await self._valued(self._trials(deleted=True), objectives)
        statement = statement.where(sweep_trials.c.sweep_id == sweep_id, sweep_trials.c.run_id.in_(run_ids))
        by_run = {row.run_id: row for row in await self._session.all(statement)}
        return [by_run[run_id] for run_id in run_ids if run_id in by_run]

    async def study(
        self, sweep_id: str, objectives: Sequence[Objective], names: Collection[str]
    ) -> list[tuple[int, str, list[float], int | None, str]]:
        """The trials as a sampler learns of them: number, state, values, last step, and the codes of the parameters."""
        statement, metrics = await self._valued(self._trials().with_only_columns(*_NARROW), objectives)
        wanted = and_(in_project(self._principal, run_params), run_params.c.key.in_(names))
        told = func.json_object_agg(run_params.c.key, run_params.c.kind + ":" + run_params.c.text).filter(wanted)
        # By the run alone: of the conditions beside it a planner without statistics would make use of the wrong index.
        codes = (
            select(cast(told, Text))
            .where(run_params.c.run_id == sweep_trials.c.run_id)
            .correlate(sweep_trials)
            .scalar_subquery()
        )
        first = metrics[0]
        steps = (null(), null()) if first is None else (first.c.last_step, first.c.last_value)
        statement = statement.add_columns(codes.label("codes"), steps[0].label("step"), steps[1].label("at_step"))
        rows = await self._session.all(statement.where(sweep_trials.c.sweep_id == sweep_id).order_by(sweep_trials.c.number))
        return [known for row in rows if (known := _told(row, len(objectives))) is not None]

    async def is_any_running(self, sweep_id: str) -> bool:
        """Whether somebody works on a trial."""
        statement = self._trials().where(sweep_trials.c.sweep_id == sweep_id, _IS_RUNNING)
        return await self._session.first(statement.limit(1)) is not None

    async def free_slot(self, sweep_id: str, *, size: int, max_attempts: int) -> FreeSlot | None:
        """The first point that nobody has tried or is trying, and that was not tried too often."""
        tried = (
            self._trials(deleted=True)
            .with_only_columns(
                sweep_trials.c.slot,
                func.lead(sweep_trials.c.slot).over(order_by=sweep_trials.c.slot).label("following"),
                func.count().filter(_IS_LIVE).label("tries"),
                func.bool_or(and_(_IS_LIVE, ~_IS_LOST)).label("is_taken"),
            )
            .where(sweep_trials.c.sweep_id == sweep_id)
            .group_by(sweep_trials.c.slot)
            .subquery("tried")
        )
        # One pass over the trials, without a join that would be slow where the planner misjudges how many there are.
        found = await self._session.first(
            select(
                func.min(tried.c.slot).label("first"),
                func.min(tried.c.slot).filter(~tried.c.is_taken, tried.c.tries < max_attempts).label("again"),
                func.min(tried.c.slot + 1).filter(tried.c.following.is_distinct_from(tried.c.slot + 1)).label("gap"),
            )
        )
        if found is None or found.first != 0:
            return FreeSlot(0, 1, None)
        gap = found.gap if found.gap < size else None
        if found.again is None or found.again >= size or (gap is not None and gap < found.again):
            return None if gap is None else FreeSlot(gap, 1, None)
        return await self._again(sweep_id, found.again)

    async def _again(self, sweep_id: str, slot: int) -> FreeSlot:
        these = (sweep_trials.c.sweep_id == sweep_id, sweep_trials.c.slot == slot)
        statement = self._trials(deleted=True).add_columns(runs.c.deleted_at).where(*these)
        last = await self._session.first(statement.order_by(sweep_trials.c.attempt.desc()).limit(1))
        if last is None:
            return FreeSlot(slot, 1, None)
        return FreeSlot(slot, last.attempt + 1, last.run_id if last.deleted_at is None else None)

    async def next_number(self, sweep_id: str) -> int:
        """The number of the next trial; numbers of purged ones are not used again while later ones are there."""
        statement = visible_to(self._principal, sweep_trials).where(sweep_trials.c.sweep_id == sweep_id)
        last = await self._session.first(statement.order_by(sweep_trials.c.number.desc()).limit(1))
        return 0 if last is None else last.number + 1

    async def trial(self, sweep_id: str, run_id: str) -> Record | None:
        """The trial of a run, deleted or not."""
        statement = self._trials(deleted=True)
        return await self._session.first(
            statement.where(sweep_trials.c.sweep_id == sweep_id, sweep_trials.c.run_id == run_id)
        )

    async def has_later_attempt(self, trial: Record) -> bool:
        """Whether the same point was handed out again."""
        statement = visible_to(self._principal, sweep_trials).where(
            sweep_trials.c.sweep_id == trial.sweep_id,
            sweep_trials.c.slot == trial.slot,
            sweep_trials.c.attempt > trial.attempt,
        )
        return await self._session.first(statement.limit(1)) is not None

    def _trials(self, *, deleted: bool = False) -> Select[Any]:
        statement = (
            visible_to(self._principal, sweep_trials)
            .join(runs, runs.c.id == sweep_trials.c.run_id)
            .add_columns(
                runs.c.name, runs.c.status, runs.c.status_reason, runs.c.start_time, runs.c.end_time, _STATE.label("state")
            )
        )
        return statement if deleted else statement.where(_IS_LIVE)

    async def _valued(self, statement: Select[Any], objectives: Sequence[Objective]) -> tuple[Select[Any], list[Any]]:
        """The same with the value of each objective, `value_0` and so on; and the tables where they come from."""
        keys = [read_key(objective.metric) for objective in objectives]
        ids = await key_ids(self._session, self._principal, keys)
        tables: list[Any] = []
        for number, objective in enumerate(objectives):
            key_id = ids.get(keys[number])
            if key_id is None:
                statement = statement.add_columns(cast(null(), Double).label(f"value_{number}"))
                tables.append(None)
                continue
            table = run_metrics.alias(f"metric_{number}")
            joined = and_(table.c.run_id == sweep_trials.c.run_id, table.c.key_id == key_id)
            statement = statement.outerjoin(table, joined).add_columns(_summary(table, objective).label(f"value_{number}"))
            tables.append(table)
        return statement, tables

    def _with_run(self) -> Select[Any]:
        return (
            visible_to(self._principal, sweeps)
            .join(runs, runs.c.id == sweeps.c.id)
            .join(experiments, experiments.c.id == runs.c.experiment_id)
            .add_columns(
                runs.c.name,
                runs.c.status,
                runs.c.status_reason,
                runs.c.experiment_id,
                runs.c.updated_at,
                runs.c.deleted_at,
                experiments.c.name.label("experiment_name"),
                experiments.c.deleted_at.label("experiment_deleted_at"),
            )
            .where(readable(self._principal))
        )


class SweepRepository(SweepReader):
    """Writes."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> None:
        """Insert; its run was made in the same transaction."""
        await self._session.execute(insert(sweeps).values({**values, "project_id": self._principal.project}))

    async def hold(self, sweep_id: str) -> Record | None:
        """The sweep, its run held until the commit: asking and telling go one by one."""
        mine = visible_to(self._principal, runs).with_only_columns(runs.c.id).where(runs.c.id == sweep_id)
        await self._session.first(mine.with_for_update())
        # Read after it is held: whatever was waited for is seen.
        return await self.sweep(sweep_id)

    async def change(self, sweep_id: str, values: Mapping[str, Any]) -> None:
        """Change limits."""
        mine = in_project(self._principal, sweeps)
        await self._session.execute(update(sweeps).where(mine, sweeps.c.id == sweep_id).values(values))

    async def add_trial(self, values: Mapping[str, Any]) -> None:
        """Note which run is which attempt at which point."""
        await self._session.execute(insert(sweep_trials).values({**values, "project_id": self._principal.project}))

    async def set_outcome(self, run_id: str, outcome: str) -> None:
        """Note how a trial ended."""
        mine = in_project(self._principal, sweep_trials)
        await self._session.execute(
            update(sweep_trials).where(mine, sweep_trials.c.run_id == run_id).values(outcome=outcome)
        )


def to_attempt(row: Record, objectives: int) -> Attempt:
    """A trial as the rules see it."""
    values = values_of(row, objectives)
    return Attempt(row.number, row.slot, row.run_id, state_of(row.status, row.outcome, values), values)


def values_of(row: Record, objectives: int) -> tuple[float | None, ...]:
    """What its run says of each objective."""
    return tuple(getattr(row, f"value_{number}") for number in range(objectives))


def _summary(table: Any, objective: Objective) -> Any:
    if objective.summary is Summary.LAST:
        return table.c.last_value
    return table.c.min_value if objective.goal is MetricGoal.MINIMIZE else table.c.max_value


def _told(row: Record, objectives: int) -> tuple[int, str, list[float], int | None, str] | None:
    attempt = to_attempt(row, objectives)
    codes = row.codes or "{}"
    match attempt.state:
        case TrialState.COMPLETE:
            return attempt.number, "COMPLETE", [value for value in attempt.values if value is not None], None, codes
        case TrialState.PRUNED:
            known = row.at_step is not None and row.at_step == row.at_step  # NaN is not itself
            return attempt.number, "PRUNED", [row.at_step] if known else [], row.step, codes
        case TrialState.RUNNING:
            return attempt.number, "RUNNING", [], None, codes
        case _:
            return None

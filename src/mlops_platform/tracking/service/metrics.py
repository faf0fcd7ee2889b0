"""Use cases that edit metrics: goals, and cutting a history short."""

from collections.abc import Sequence

from mlops_platform.contracts.tracking_metrics import MetricGoal, MetricsTruncate, MetricsTruncated, TruncatedMetric
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain.keys import context_of, read_key, spell_key
from mlops_platform.tracking.domain.points import KEY
from mlops_platform.tracking.errors import ExperimentDeleted, ExperimentNotFound, RunDeleted, RunNotFound
from mlops_platform.tracking.repository import goals, truncation
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE

MAX_GOALS = 1000


class MetricEdits:
    """The use cases that change what is known of metrics, each with its audit entry and event."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._runs = RunRepository(work.session, work.principal)
        self._experiments = ExperimentRepository(work.session, work.principal)

    async def set_goal(self, experiment_id: str, key: str, goal: MetricGoal) -> Record:
        """Declare which values of a metric are better; `best` follows it at once."""
        await self._held_experiment(experiment_id)
        if KEY.fullmatch(key) is None:
            raise InvalidInput.of("key", "must have 1 to 250 characters and no control characters", key[:300])
        known = await self._goals(experiment_id)
        if key not in known and len(known) >= MAX_GOALS:
            raise InvalidInput.of("key", f"the experiment has {MAX_GOALS} goals, as many as it may", key)
        before = known.get(key)
        if before is None or before.goal != goal.value:
            values = {"experiment_id": experiment_id, "key": key, "goal": goal.value, "updated_at": self._work.clock.now()}
            await goals.put(self._work.session, self._work.principal, values)
            await self._record_goal("experiment.metric_goal_set", experiment_id, key, before=before, goal=goal)
        return (await self._goals(experiment_id))[key]

    async def clear_goal(self, experiment_id: str, key: str) -> None:
        """Declare none. Without a goal that is declared this changes nothing."""
        await self._held_experiment(experiment_id)
        before = (await self._goals(experiment_id)).get(key)
        if before is not None:
            await goals.remove(self._work.session, self._work.principal, experiment_id, key)
            await self._record_goal("experiment.metric_goal_cleared", experiment_id, key, before=before, goal=None)

    async def truncate(self, run_id: str, change: MetricsTruncate, *, experiment_id: str | None = None) -> MetricsTruncated:
        """Remove the points from a step on, as after a crash that is trained again from a checkpoint."""
        row = await self._held_run(run_id, experiment_id)
        session, principal = self._work.session, self._work.principal
        keys = None if change.keys is None else {read_key(key, f"keys[{n}]") for n, key in enumerate(change.keys)}
        held = await truncation.hold_metrics(session, principal, run_id, keys)
        reaching = [metric for metric in held if metric.last_step >= change.from_step]
        ids = [metric.key_id for metric in reaching]
        removed, left = {}, {}
        if ids:
            removed = await truncation.remove_points(session, principal, run_id, ids, from_step=change.from_step)
            left = await truncation.recompute(session, principal, run_id, ids)
        lost = [_lost(metric, removed, left) for metric in reaching if removed.get(metric.key_id)]
        if lost:
            await self._record_truncation(run_id, row.experiment_id, change, reaching, removed)
        return MetricsTruncated(removed=sum(removed.values()), metrics=lost)

    async def _goals(self, experiment_id: str) -> dict[str, Record]:
        rows = await goals.of_experiment(self._work.session, self._work.principal, experiment_id)
        return {row.key: row for row in rows}

    async def _held_experiment(self, experiment_id: str) -> None:
        row = await self._experiments.hold(experiment_id)
        if row is None:
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.name)
        if row.deleted_at is not None:
            raise ExperimentDeleted.of(experiment_id)

    async def _held_run(self, run_id: str, experiment_id: str | None) -> Record:
        row = await self._runs.hold(run_id, experiment_id=experiment_id)
        if row is None:
            raise RunNotFound.of(run_id, experiment_id=experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
        if row.deleted_at is not None or row.experiment_deleted_at is not None:
            raise RunDeleted.of(run_id)
        return row

    async def _record_goal(
        self, action: str, experiment_id: str, key: str, *, before: Record | None, goal: MetricGoal | None
    ) -> None:
        resource = self._work.urn("experiment", experiment_id)
        previous = None if before is None else before.goal
        declared = None if goal is None else goal.value
        await self._work.audit(
            action, resource, before={"key": key, "goal": previous}, after={"key": key, "goal": declared}
        )
        await self._work.emit(action, resource, {"experiment_id": experiment_id, "key": key, "goal": declared})

    async def _record_truncation(
        self, run_id: str, experiment_id: str, change: MetricsTruncate, metrics: Sequence[Record], removed: dict[int, int]
    ) -> None:
        action, resource = "run.metrics_truncated", self._work.urn("run", run_id)
        counts = {
            spell_key(metric.key, metric.context): removed[metric.key_id] for metric in metrics if metric.key_id in removed
        }
        before = {spell_key(metric.key, metric.context): metric.count for metric in metrics}
        from_step = str(change.from_step)
        detail = {"from_step": from_step, "removed": sum(removed.values()), "metrics": len(counts)}
        if change.reason is not None:
            detail["reason"] = change.reason
        await self._work.audit(
            action, resource, before=before, after={"from_step": from_step, "removed": counts}, detail=detail
        )
        await self._work.emit(action, resource, {"run_id": run_id, "experiment_id": experiment_id, **detail})


def _lost(metric: Record, removed: dict[int, int], left: dict[int, int]) -> TruncatedMetric:
    return TruncatedMetric(
        key=metric.key,
        context=context_of(metric.context),
        removed=removed[metric.key_id],
        remaining=left.get(metric.key_id, 0),
    )

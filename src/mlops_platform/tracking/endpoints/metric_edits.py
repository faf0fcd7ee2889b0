"""HTTP of what is declared for metrics and of edits of their history."""

from typing import Annotated

from fastapi import Path

from mlops_platform.contracts.tracking_metrics import (
    ExperimentMetricGoal,
    MetricGoalSet,
    MetricsTruncate,
    MetricsTruncated,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.endpoints.places import Place, on_run
from mlops_platform.tracking.errors import ExperimentDeleted, ExperimentNotFound, RunDeleted
from mlops_platform.tracking.repository import goals
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.metrics import MetricEdits

router = platform_router(tags=["metrics"])

GoalKey = Annotated[
    str, Path(min_length=1, max_length=250, description="The metric's name; the goal holds for each of its contexts.")
]
_GOAL = "/api/experiments/{experiment_id}/metrics/{key:path}/goal"


@router.get(
    "/api/experiments/{experiment_id}/metric-goals",
    dependencies=[requires(EXPERIMENTS_READ)],
    responses=problems(ExperimentNotFound),
)
async def list_metric_goals(experiment_id: ExperimentId, caller: Caller, session: Reading) -> list[ExperimentMetricGoal]:
    """Which values are better, for each metric for which the experiment says so; at most 1,000."""
    if await ExperimentReader(session, caller).experiment(experiment_id) is None:
        raise ExperimentNotFound.of(experiment_id)
    return [_to_goal(row) for row in await goals.of_experiment(session, caller, experiment_id)]


@router.put(_GOAL, dependencies=[requires(EXPERIMENTS_WRITE)], responses=problems(ExperimentNotFound, ExperimentDeleted))
async def set_metric_goal(
    experiment_id: ExperimentId, key: GoalKey, body: MetricGoalSet, work: Work
) -> ExperimentMetricGoal:
    """Declare whether small or large values of a metric are better; `best` follows it in answers and in searches."""
    return _to_goal(await MetricEdits(work).set_goal(experiment_id, key, body.goal))


@router.delete(
    _GOAL,
    status_code=204,
    dependencies=[requires(EXPERIMENTS_WRITE)],
    responses=problems(ExperimentNotFound, ExperimentDeleted),
)
async def clear_metric_goal(experiment_id: ExperimentId, key: GoalKey, work: Work) -> None:
    """Declare no goal: `best` is null, and searches refuse it."""
    await MetricEdits(work).clear_goal(experiment_id, key)


@on_run(router, "POST", "/metrics/truncate", permission=EXPERIMENTS_WRITE, errors=(RunDeleted,))
async def truncate_metrics(place: Place, body: MetricsTruncate, work: Work) -> MetricsTruncated:
    """Remove the points from a step on, for a training that goes on from a checkpoint. Summaries follow at once."""
    return await MetricEdits(work).truncate(place.run_id, body, experiment_id=place.experiment_id)


def _to_goal(row: Record) -> ExperimentMetricGoal:
    return ExperimentMetricGoal(key=row.key, goal=row.goal, updated_at=row.updated_at)

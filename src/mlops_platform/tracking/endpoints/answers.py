"""From rows to what goes out."""

from mlops_platform.contracts.tracking import Experiment, Metric, Run, RunStatus
from mlops_platform.contracts.tracking_metrics import MetricGoal
from mlops_platform.core.db.session import Record
from mlops_platform.tracking.domain.keys import context_of
from mlops_platform.tracking.repository.runs import RunData


def to_experiment(row: Record) -> Experiment:
    """An experiment with the counts of its runs."""
    counts = {RunStatus(status): count for status, count in (row.runs or {}).items() if count}
    return Experiment(
        id=row.id,
        number=row.number,
        name=row.name,
        description=row.description,
        tags=row.tags,
        runs=counts,
        run_count=sum(counts.values()),
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        owner=row.owner or row.created_by,
        archived_at=row.archived_at,
        retention_days=row.retention_days,
        baseline_run_id=row.baseline_run_id,
    )


def to_run(row: Record, data: RunData) -> Run:
    """A run with what hangs on it."""
    has_ended = row.start_time is not None and row.end_time is not None
    return Run(
        id=row.id,
        experiment_id=row.experiment_id,
        run_name=row.name,
        status=RunStatus(row.status),
        user=row.user_name,
        start_time=row.start_time,
        end_time=row.end_time,
        duration_seconds=(row.end_time - row.start_time).total_seconds() if has_ended else None,
        parent_run_id=row.parent_run_id,
        notes=row.notes,
        parameters=data.params,
        tags=data.tags,
        metrics=data.metrics,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        group=row.group_name,
        status_reason=row.status_reason,
        heartbeat_seconds=row.heartbeat_seconds,
    )


def to_metric(row: Record) -> Metric:
    """What is kept of a metric."""
    numbers = row.count - row.nan_count
    best = {MetricGoal.MINIMIZE: row.min_value, MetricGoal.MAXIMIZE: row.max_value}
    return Metric(
        key=row.key,
        context=context_of(row.context),
        last=row.last_value,
        step=row.last_step,
        timestamp=row.last_timestamp,
        min=row.min_value,
        max=row.max_value,
        mean=row.total / numbers if numbers else None,
        best=best[MetricGoal(row.goal)] if row.goal else None,
        goal=row.goal,
        count=row.count,
    )

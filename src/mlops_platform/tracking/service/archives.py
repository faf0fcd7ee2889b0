"""What is kept, as an archive has it; and that somebody takes it away, which is audited."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mlops_platform.contracts.tracking_archives import (
    ArchivedComment,
    ArchivedDataset,
    ArchivedExperiment,
    ArchivedGoal,
    ArchivedInput,
    ArchivedModel,
    ArchivedModelMetric,
    ArchivedParam,
    ArchivedRun,
    ArchivedTie,
    ArchivedView,
)
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.errors import ExperimentNotFound
from mlops_platform.tracking.repository.archives import ArchiveReader
from mlops_platform.tracking.repository.experiments import ExperimentReader

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """A time as integer microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """The other way round."""
    return _EPOCH + timedelta(microseconds=microseconds)


async def begin_export(work: UnitOfWork, experiment_id: str) -> ArchivedExperiment:
    """The experiment itself. Whoever asks for it takes the rest with it."""
    row = await ExperimentReader(work.session, work.principal).experiment(experiment_id)
    if row is None:
        raise ExperimentNotFound.of(experiment_id)
    resource = work.urn("experiment", experiment_id)
    runs = sum((row.runs or {}).values())
    await work.audit("experiment.exported", resource, detail={"name": row.name, "runs": runs})
    await work.emit("experiment.exported", resource, {"experiment_id": experiment_id, "runs": runs})
    return await archived_experiment(ArchiveReader(work.session, work.principal), row)


async def archived_experiment(reader: ArchiveReader, row: Record) -> ArchivedExperiment:
    """An experiment with its goals and views."""
    goals = [ArchivedGoal(key=it.key, goal=it.goal, updated_at=it.updated_at) for it in await reader.goals(row.id)]
    return ArchivedExperiment(
        id=row.id,
        name=row.name,
        number=row.number,
        description=row.description,
        artifact_location=row.artifact_location,
        tags=row.tags,
        owner=row.owner,
        retention_days=row.retention_days,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        archived_at=row.archived_at,
        baseline_run_id=row.baseline_run_id,
        goals=goals,
        views=[_view(it) for it in await reader.views(row.id)],
    )


async def archived_runs(session: ReadSession, principal: Principal, run_ids: Sequence[str]) -> list[ArchivedRun]:
    """Runs with what hangs on them."""
    reader = ArchiveReader(session, principal)
    hanging = await reader.hanging(run_ids)
    return [
        ArchivedRun(
            id=row.id,
            run_name=row.name,
            status=row.status,
            status_reason=row.status_reason,
            user=row.user_name,
            created_by=row.created_by,
            start_time=row.start_time,
            end_time=row.end_time,
            created_at=row.created_at,
            updated_at=row.updated_at,
            deleted_at=row.deleted_at,
            parent_run_id=row.parent_run_id,
            group=row.group_name,
            notes=row.notes,
            heartbeat_seconds=row.heartbeat_seconds,
            params=[ArchivedParam(key=it.key, kind=it.kind, text=it.text) for it in hanging["params"].get(row.id, ())],
            tags={it.key: it.value for it in hanging["tags"].get(row.id, ())},
            inputs=[
                ArchivedInput(name=it.name, digest=it.digest, context=it.context, tags=it.tags, logged_at=it.created_at)
                for it in hanging["inputs"].get(row.id, ())
            ],
            models=[
                ArchivedTie(model_id=it.model_id, direction=it.direction, step=it.step)
                for it in hanging["models"].get(row.id, ())
            ],
            comments=[_comment(it) for it in hanging["comments"].get(row.id, ())],
            points=row.points,
            artifacts=row.artifacts,
        )
        for row in (await reader.run_rows(run_ids) if run_ids else ())
    ]


async def archived_datasets(
    session: ReadSession, principal: Principal, named: Sequence[tuple[str, str]]
) -> list[ArchivedDataset]:
    """Datasets by name and digest."""
    return [
        ArchivedDataset(
            name=it.name,
            digest=it.digest,
            source_type=it.source_type,
            source=it.source,
            columns=it.schema,
            profile=it.profile,
        )
        for it in await ArchiveReader(session, principal).datasets(named)
    ]


def archived_model(row: Record, metrics: Sequence[Record]) -> ArchivedModel:
    """A logged model with the points that speak of it."""
    points = [
        ArchivedModelMetric(
            run_id=it.run_id,
            key=it.key,
            step=it.step,
            timestamp=it.timestamp,
            value=it.value,
            dataset_name=it.dataset_name,
            dataset_digest=it.dataset_digest,
        )
        for it in metrics
    ]
    return ArchivedModel(
        id=row.id,
        name=row.name,
        status=row.status,
        model_type=row.model_type,
        source_run_id=row.source_run_id,
        params=row.params,
        tags=row.tags,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        metrics=points,
        artifacts=row.artifacts,
    )


def _comment(row: Record) -> ArchivedComment:
    return ArchivedComment(id=row.id, author=row.author, text=row.text, created_at=row.created_at, edited_at=row.edited_at)


def _view(row: Record) -> ArchivedView:
    return ArchivedView(
        id=row.id,
        name=row.name,
        filter=row.filter,
        order_by=row.order_by,
        columns=row.columns,
        charts=row.charts,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

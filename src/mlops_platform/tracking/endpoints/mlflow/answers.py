"""From rows to what goes out on MLflow's wire."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.artifacts import ARTIFACT_PATH, SCHEME
from mlops_platform.tracking.domain.keys import spell_key
from mlops_platform.tracking.domain.mlflow_rules import (
    DATASET_CONTEXT,
    NOTE,
    PARENT_RUN,
    RUN_NAME,
    to_milliseconds,
    wire_float,
)
from mlops_platform.tracking.endpoints.mlflow.wire import present
from mlops_platform.tracking.repository.inputs import InputReader
from mlops_platform.tracking.repository.runs import RunReader, RunRows

ACTIVE, DELETED = "active", "deleted"


def location_of(number: int, given: str | None) -> str:
    """Where the artifacts of an experiment's runs lie: behind this server, unless their client stores them by itself."""
    return given or f"{SCHEME}{number}"


def to_experiment(row: Record) -> dict[str, Any]:
    """An experiment."""
    tags = {**row.tags, **({NOTE: row.description} if row.description else {})}
    return {
        "experiment_id": str(row.number),
        "name": row.name,
        "artifact_location": location_of(row.number, row.artifact_location),
        "lifecycle_stage": ACTIVE if row.deleted_at is None else DELETED,
        "creation_time": to_milliseconds(row.created_at),
        "last_update_time": to_milliseconds(row.updated_at),
        **({"tags": to_pairs(tags)} if tags else {}),
    }


def to_pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    """An object as MLflow writes it."""
    return [{"key": key, "value": value} for key, value in values.items()]


@dataclass(slots=True)
class Attached:
    """Datasets and logged models of runs."""

    datasets: dict[str, list[Record]] = field(default_factory=dict)
    models: dict[str, list[Record]] = field(default_factory=dict)


async def runs_of(
    session: ReadSession, principal: Principal, rows: Sequence[Record], experiments: Mapping[str, Record]
) -> list[dict[str, Any]]:
    """Whole runs, in the order of their rows; a handful of statements, however many they are."""
    ids = [row.id for row in rows]
    data = await RunReader(session, principal).rows(ids)
    inputs = InputReader(session, principal)
    attached = Attached()
    for each in await inputs.of_runs(ids):
        attached.datasets.setdefault(each.run_id, []).append(each)
    for each in await inputs.models_of_runs(ids):
        attached.models.setdefault(each.run_id, []).append(each)
    return [_run(row, experiments[row.experiment_id], data, attached) for row in rows]


def to_info(row: Record, experiment: Record) -> dict[str, Any]:
    """What stands on the run itself."""
    is_active = row.deleted_at is None and experiment.deleted_at is None
    base = location_of(experiment.number, experiment.artifact_location)
    return present(
        run_uuid=row.id,
        run_id=row.id,
        run_name=row.name,
        experiment_id=str(experiment.number),
        user_id=row.user_name or "",
        status=row.status,
        start_time=None if row.start_time is None else to_milliseconds(row.start_time),
        end_time=None if row.end_time is None else to_milliseconds(row.end_time),
        artifact_uri=f"{base}/{row.id}/artifacts",
        lifecycle_stage=ACTIVE if is_active else DELETED,
    )


def _run(row: Record, experiment: Record, data: RunRows, attached: Attached) -> dict[str, Any]:
    tags = tags_of(row, data.tags.get(row.id, ()))
    models = attached.models.get(row.id, ())
    shown: dict[str, Any] = {
        "info": to_info(row, experiment),
        "data": _filled(
            metrics=[_last(metric) for metric in data.metrics.get(row.id, ())],
            params=[{"key": param.key, "value": param.text} for param in data.params.get(row.id, ())],
            tags=to_pairs(tags),
        ),
        "inputs": _filled(
            dataset_inputs=[_dataset_input(each) for each in attached.datasets.get(row.id, ())],
            model_inputs=[{"model_id": f"m-{each.model_id}"} for each in models if each.direction == "input"],
        ),
    }
    outputs = [{"model_id": f"m-{each.model_id}", "step": each.step} for each in models if each.direction == "output"]
    return {**shown, **({"outputs": {"model_outputs": outputs}} if outputs else {})}


def tags_of(row: Record, rows: Sequence[Record]) -> dict[str, str]:
    """The tags of a run, with what MLflow keeps as tags and we as fields."""
    fields = {RUN_NAME: row.name, NOTE: row.notes, PARENT_RUN: row.parent_run_id}
    return {**{each.key: each.value for each in rows}, **{key: value for key, value in fields.items() if value}}


def _last(row: Record) -> dict[str, Any]:
    return {
        "key": spell_key(row.key, row.context),
        "value": wire_float(row.last_value),
        "timestamp": to_milliseconds(row.last_timestamp),
        "step": row.last_step,
    }


def _dataset_input(row: Record) -> dict[str, Any]:
    tags = {**row.tags, **({DATASET_CONTEXT: row.context} if row.context is not None else {})}
    dataset = present(
        name=row.name,
        digest=row.digest,
        source_type=row.source_type,
        source=row.source,
        schema=row.schema,
        profile=row.profile,
    )
    return {**({"tags": to_pairs(tags)} if tags else {}), "dataset": dataset}


def _filled(**lists: list[Any]) -> dict[str, list[Any]]:
    return {name: values for name, values in lists.items() if values}


def to_metric(row: Record, key: str, *, run_id: str | None = None) -> dict[str, Any]:
    """One point."""
    point = {
        "key": key,
        "value": wire_float(row.value),
        "timestamp": to_milliseconds(row.timestamp),
        "step": row.step,
    }
    return point if run_id is None else {**point, "run_id": run_id}


def to_model(row: Record, metrics: Sequence[Record]) -> dict[str, Any]:
    """A logged model."""
    model_id = f"m-{row.id}"
    info = present(
        model_id=model_id,
        experiment_id=str(row.experiment_number),
        name=row.name,
        creation_timestamp_ms=to_milliseconds(row.created_at),
        last_updated_timestamp_ms=to_milliseconds(row.updated_at),
        artifact_uri=f"{location_of(row.experiment_number, row.artifact_location)}/{_files_of(row, model_id)}",
        status=f"LOGGED_MODEL_{row.status}",
        model_type=row.model_type,
        source_run_id=row.source_run_id,
        tags=to_pairs(row.tags) or None,
    )
    data = _filled(params=to_pairs(row.params), metrics=[_model_metric(each, model_id) for each in metrics])
    return {"info": info, "data": data}


def _files_of(row: Record, model_id: str) -> str:
    """A model of our own client lies among the artifacts of its run."""
    path = row.tags.get(ARTIFACT_PATH)
    if path is None or row.source_run_id is None:
        return f"models/{model_id}/artifacts"
    return f"{row.source_run_id}/artifacts/{path}"


def _model_metric(row: Record, model_id: str) -> dict[str, Any]:
    return present(
        **to_metric(row, row.key, run_id=row.run_id),
        model_id=model_id,
        dataset_name=row.dataset_name,
        dataset_digest=row.dataset_digest,
    )

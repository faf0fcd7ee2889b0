"""What is logged to runs on MLflow's wire: metrics, parameters, tags, inputs and outputs. All of it may be sent again."""

import json
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import Response

from mlops_platform.core.http.dependencies import Caller, RuntimeOf, StateOf, Work, unit_of_work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.http.service import HotRequest, HotResponse, HotRoute
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain import mlflow_rules as rules
from mlops_platform.tracking.domain.params import Param, read_param
from mlops_platform.tracking.domain.points import Points
from mlops_platform.tracking.endpoints.metrics import store_points
from mlops_platform.tracking.endpoints.mlflow.answers import tags_of
from mlops_platform.tracking.endpoints.mlflow.runs import found_run, read_tag, read_tags, split_tags
from mlops_platform.tracking.endpoints.mlflow.wire import (
    API,
    EMPTY,
    BatchFieldsOf,
    Fields,
    FieldsOf,
    LargeFieldsOf,
    done,
    on_wire,
    parse_json,
)
from mlops_platform.tracking.endpoints.places import RunPlace
from mlops_platform.tracking.errors import LoggedModelNotFound, MlflowInvalid, MlflowMissing, RunDeleted
from mlops_platform.tracking.repository.runs import RunReader, RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.ingest import MetricIngest
from mlops_platform.tracking.service.inputs import Dataset, DatasetUse, RunInputTracking
from mlops_platform.tracking.service.models import LoggedModelTracking
from mlops_platform.tracking.service.runs import RunTracking

router = platform_router(tags=["mlflow"])

MAX_DATASETS = 1000
_LIMITS = {"name": 500, "digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
_MODEL_FIELDS = ("run_id", "utc_time_created", "artifact_path", "model_uuid")
_MANDATORY = {"artifact_path", "flavors", "utc_time_created", "run_id"}
_work = asynccontextmanager(unit_of_work)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The points of a request, and those of them that speak of a logged model."""

    points: Points
    of_models: Sequence[Mapping[str, Any]]


def read_metrics(run_id: str, items: Sequence[Fields]) -> Metrics:
    """The points of a body. MLflow's points always carry their time."""
    points = Points()
    of_models: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in items:
        key = rules.checked_key(item.needed("key"), item.path_of("name"), "Metric name")
        value = item.number("value")
        milliseconds = item.integer("timestamp")
        if milliseconds is None:
            raise rules.required(item.path_of("timestamp"))
        timestamp = rules.to_time(milliseconds, item.path_of("timestamp"))
        step = item.integer("step") or 0
        points.keys.append(key)
        points.values.append(value)
        points.steps.append(step)
        points.timestamps.append(timestamp)
        points.arrived.append(False)
        if (model := item.optional("model_id")) is not None:
            of_models[(model, key, step, milliseconds, value)] = {
                "model_id": known_model(model),
                "run_id": run_id,
                "key": key,
                "step": step,
                "timestamp": timestamp,
                "value": value,
                "dataset_name": item.optional("dataset_name"),
                "dataset_digest": item.optional("dataset_digest"),
            }
    return Metrics(points, list(of_models.values()))


def known_model(given: str) -> str:
    """Our id of a logged model; what can be none is not found."""
    model_id = rules.model_id_of(given)
    if model_id is None:
        raise LoggedModelNotFound.of(given[:100])
    return model_id


async def _log_metric(fields: Fields, principal: Principal, runtime: Runtime, ingest: MetricIngest) -> None:
    run_id = fields.run_id()
    metrics = read_metrics(run_id, [fields])
    if metrics.of_models:
        async with runtime.database.write() as session:
            await _say_of_models(UnitOfWork(session, principal, runtime.clock), run_id, metrics)
    await store_points(RunPlace(run_id, None), metrics.points, principal, runtime, ingest)


async def _say_of_models(work: UnitOfWork, run_id: str, metrics: Metrics) -> None:
    row = await found_run(work.session, work.principal, run_id)
    if row.deleted_at is not None or row.experiment_deleted_at is not None:
        raise RunDeleted.of(run_id)
    await LoggedModelTracking(work).add_metrics(metrics.of_models)


@on_wire(router, "POST", "/runs/log-metric", permission=EXPERIMENTS_WRITE)
async def log_metric(fields: FieldsOf, caller: Caller, runtime: RuntimeOf, state: StateOf) -> Response:
    await _log_metric(fields, caller, runtime, state.ingest)
    return done()


async def log_metric_hot(request: HotRequest) -> HotResponse:
    """The same, before the framework."""
    settings = request.runtime.settings
    content_type = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"")
    body = await request.body(settings.max_body_bytes)
    fields = parse_json(body, content_type.decode("latin-1"), settings.max_json_depth)
    await _log_metric(fields, request.principal, request.runtime, request.state.ingest)
    return HotResponse(EMPTY)


HOT_ROUTES = tuple(HotRoute("POST", f"{prefix}/runs/log-metric", EXPERIMENTS_WRITE, log_metric_hot) for prefix in API)


@on_wire(router, "POST", "/runs/log-batch", permission=EXPERIMENTS_WRITE)
async def log_batch(
    fields: BatchFieldsOf, request: Request, caller: Caller, runtime: RuntimeOf, state: StateOf
) -> Response:
    """Parameters and tags are one change, all or nothing, and come first; then the metrics."""
    items = fields.items("metrics")
    rules.check_batch(items, fields.items("params"), fields.items("tags"))
    run_id = fields.run_id()
    metrics = read_metrics(run_id, items)
    params = [_param(param) for param in fields.items("params")]
    twice = [param.key for index, param in enumerate(params) if param.key in {each.key for each in params[:index]}]
    if twice:
        raise MlflowInvalid(
            f"Duplicate parameter keys have been submitted: {twice}. Please ensure the request contains only one param "
            "value per param key."
        )
    tags = read_tags(fields)
    if params or tags or metrics.of_models or not items:
        async with _work(request) as work:
            await _describe(work, run_id, params, tags)
            if metrics.of_models:
                await _say_of_models(work, run_id, metrics)
    if items:
        await store_points(RunPlace(run_id, None), metrics.points, caller, runtime, state.ingest)
    return done()


@on_wire(router, "POST", "/runs/log-parameter", permission=EXPERIMENTS_WRITE)
async def log_parameter(fields: FieldsOf, work: Work) -> Response:
    await _describe(work, fields.run_id(), [_param(fields)], {})
    return done()


@on_wire(router, "POST", "/runs/set-tag", permission=EXPERIMENTS_WRITE)
async def set_tag(fields: FieldsOf, work: Work) -> Response:
    key, value = read_tag(fields)
    await _describe(work, fields.run_id(), [], {key: value})
    return done()


@on_wire(router, "POST", "/runs/delete-tag", permission=EXPERIMENTS_WRITE)
async def delete_tag(fields: FieldsOf, work: Work) -> Response:
    key, run_id = fields.needed("key"), fields.run_id()
    row = await found_run(work.session, work.principal, run_id)
    rows = (await RunReader(work.session, work.principal).rows([run_id])).tags.get(run_id, ())
    is_there = key in tags_of(row, rows)
    fields_of_run = {rules.NOTE: {"notes": None}, rules.PARENT_RUN: {"parent_run_id": None}}
    await RunTracking(work).describe(
        run_id, tags={key: None} if is_there else {}, columns=fields_of_run.get(key, {}) if is_there else {}
    )
    if not is_there:
        raise MlflowMissing(f"No tag with name: {key} in run with id {run_id}")
    return done()


@on_wire(router, "POST", "/runs/log-model", permission=EXPERIMENTS_WRITE)
async def log_model(fields: FieldsOf, work: Work) -> Response:
    """Add to the history of models that MLflow keeps as a tag of the run."""
    run_id = fields.run_id()
    given = _model_json(fields.needed("model_json"))
    await RunRepository(work.session, work.principal).hold(run_id)
    rows = (await RunReader(work.session, work.principal).rows([run_id])).tags.get(run_id, ())
    before = next((row.value for row in rows if row.key == rules.LOGGED_MODELS), "[]")
    history = json.dumps([*json.loads(before), given])
    await _describe(work, run_id, [], {rules.LOGGED_MODELS: history})
    return done()


@on_wire(router, "POST", "/runs/log-inputs", permission=EXPERIMENTS_WRITE)
async def log_inputs(fields: LargeFieldsOf, work: Work) -> Response:
    items = fields.items("datasets")
    if len(items) > MAX_DATASETS:
        raise MlflowInvalid(f"A request can log at most {MAX_DATASETS} datasets. Got {len(items)}.")
    uses = [_use(item) for item in items]
    models = [known_model(item.needed("model_id")) for item in fields.items("models")]
    await RunInputTracking(work).read(fields.run_id(), uses, models)
    return done()


@on_wire(router, "POST", "/runs/outputs", permission=EXPERIMENTS_WRITE)
async def log_outputs(fields: FieldsOf, work: Work) -> Response:
    if "models" not in fields:
        raise rules.required("models")
    models = [(known_model(item.needed("model_id")), item.integer("step") or 0) for item in fields.items("models")]
    await RunInputTracking(work).made(fields.run_id(), models)
    return done()


async def _describe(work: UnitOfWork, run_id: str, params: Sequence[Param], tags: Mapping[str, str]) -> None:
    rest, columns = await split_tags(tags, work.session, work.principal)
    await RunTracking(work).describe(run_id, params=params, tags=rest, columns=columns)


def _param(item: Fields) -> Param:
    key = rules.checked_key(item.needed("key"), item.path_of("key"), "Param key")
    return read_param(key, item.text("value")[: rules.MAX_PARAM_VALUE])


def _use(item: Fields) -> DatasetUse:
    given = item.item("dataset")
    values: dict[str, str | None] = {name: given.needed(name) for name in ("name", "digest", "source_type", "source")}
    values |= {name: given.optional(name) for name in ("schema", "profile")}
    for name, limit in _LIMITS.items():
        if len(values[name] or "") > limit:
            raise rules.too_long(given.path_of(name), limit)
    tags = {tag.needed("key"): tag.text("value") for tag in item.items("tags")}
    for key, value in tags.items():
        if len(key) > 255 or len(value) > 500:
            raise rules.too_long(item.path_of("tags"), 255 if len(key) > 255 else 500)
    context = tags.pop(rules.DATASET_CONTEXT, None)
    dataset = Dataset(
        name=str(values["name"]),
        digest=str(values["digest"]),
        source_type=str(values["source_type"]),
        source=str(values["source"]),
        schema=values["schema"],
        profile=values["profile"],
    )
    return DatasetUse(dataset, context, tags)


def _model_json(text: str) -> dict[str, Any]:
    try:
        model = json.loads(text)
    except ValueError:
        model = None
    if not isinstance(model, dict):
        raise MlflowInvalid(f"Malformed model info. \n {text[:200]} \n is not a valid JSON.")
    if missing := _MANDATORY - set(model):
        raise MlflowInvalid(f"Model json is missing mandatory fields: {sorted(missing)}")
    flavors = model["flavors"] if isinstance(model["flavors"], dict) else {}
    kept = {name: model[name] for name in _MODEL_FIELDS if name in model}
    return kept | {"flavors": {name: _without_config(config) for name, config in flavors.items()}}


def _without_config(config: Any) -> Any:
    return {key: value for key, value in config.items() if key != "config"} if isinstance(config, dict) else config

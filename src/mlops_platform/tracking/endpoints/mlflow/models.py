"""Logged models on MLflow's wire."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.core.query.tree import Order
from mlops_platform.tracking.domain import mlflow_rules as rules
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.domain.mlflow_search import MODELS, quoted_field, read_filter
from mlops_platform.tracking.domain.search import METRICS
from mlops_platform.tracking.endpoints.mlflow.answers import to_model
from mlops_platform.tracking.endpoints.mlflow.experiments import digest_of, writable_experiment
from mlops_platform.tracking.endpoints.mlflow.logging import known_model
from mlops_platform.tracking.endpoints.mlflow.wire import (
    Fields,
    FieldsOf,
    answer,
    done,
    on_wire,
    place_of_token,
    token_of,
)
from mlops_platform.tracking.errors import LoggedModelNotFound, MlflowInvalid
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.repository.listing import place_of
from mlops_platform.tracking.repository.models import DatasetFilter, LoggedModelReader
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.models import LoggedModelTracking

router = platform_router(tags=["mlflow"])

ONE = "/logged-models/{model_id}"
DEFAULT_RESULTS = 100
MAX_RESULTS = 1000
MAX_NAME = 500
MAX_PARAMS = 1000
MAX_ORDER_KEYS = 10
_FORBIDDEN = set("/:.%\"'")
_STATUSES: Mapping[Any, str] = {
    **{f"LOGGED_MODEL_{status}": status for status in ("PENDING", "READY", "UPLOAD_FAILED")},
    1: "PENDING",
    2: "READY",
    3: "UPLOAD_FAILED",
}


@on_wire(router, "POST", "/logged-models", permission=EXPERIMENTS_WRITE)
async def create_logged_model(fields: FieldsOf, work: Work) -> Response:
    name = fields.optional("name")
    if name is not None and (len(name) > MAX_NAME or _FORBIDDEN & set(name)):
        raise MlflowInvalid(
            f"Invalid model name ({name[:100]}) provided. Model name must be a non-empty string and cannot contain the "
            f"following characters: {sorted(_FORBIDDEN)}"
        )
    source = fields.optional("source_run_id")
    if source is not None and not is_id(source):
        raise rules.invalid("source_run_id", source)
    params, tags = _pairs(fields, "params"), _pairs(fields, "tags")
    experiment = await writable_experiment(work, fields.needed("experiment_id"))
    row = await LoggedModelTracking(work).create(
        experiment.id,
        name=name,
        model_type=fields.optional("model_type"),
        source_run_id=source,
        params=params,
        tags=tags,
    )
    return answer({"model": await _model(work.session, work.principal, row)})


@on_wire(router, "POST", "/logged-models/search", permission=EXPERIMENTS_READ)
async def search_logged_models(fields: FieldsOf, caller: Caller, session: Reading, runtime: RuntimeOf) -> Response:
    size = fields.integer("max_results") or DEFAULT_RESULTS
    rules.check_results(size, most=MAX_RESULTS)
    numbers = [rules.experiment_number(each) for each in fields.texts("experiment_ids")]
    if not numbers:
        raise rules.required("experiment_ids")
    datasets = [_dataset(item) for item in fields.items("datasets")]
    order = _order(fields)
    tree = read_filter(fields.text("filter"), MODELS)
    key = runtime.auth_keys.pepper
    digest = digest_of("models", numbers, fields.text("filter"), datasets, order)
    after = place_of_token(key, digest, fields.optional("page_token"))
    experiments = await ExperimentReader(session, caller).of_numbers(numbers)
    reader = LoggedModelReader(session, caller)
    ids = [row.id for row in experiments]
    rows = await reader.search(ids, tree, order, datasets=datasets, limit=size + 1, after=after) if ids else ()
    shown = rows[:size]
    metrics = await _metrics(session, caller, shown)
    body: dict[str, Any] = {"models": [to_model(row, metrics.get(row.id, ())) for row in shown]} if shown else {}
    if len(rows) > len(shown):
        body["next_page_token"] = token_of(key, digest, place_of(shown[-1]))
    return answer(body)


@on_wire(router, "GET", ONE, permission=EXPERIMENTS_READ)
async def get_logged_model(model_id: str, fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    row = await LoggedModelReader(session, caller).model(known_model(model_id))
    if row is None or (row.deleted_at is not None and not fields.flag("allow_deleted")):
        raise LoggedModelNotFound.of(model_id)
    return answer({"model": await _model(session, caller, row)})


@on_wire(router, "PATCH", ONE, permission=EXPERIMENTS_WRITE)
async def finalize_logged_model(model_id: str, fields: FieldsOf, work: Work) -> Response:
    row = await LoggedModelTracking(work).finish(known_model(model_id), _status(fields))
    return answer({"model": await _model(work.session, work.principal, row)})


@on_wire(router, "DELETE", ONE, permission=EXPERIMENTS_WRITE)
async def delete_logged_model(model_id: str, work: Work) -> Response:
    await LoggedModelTracking(work).delete(known_model(model_id))
    return done()


@on_wire(router, "PATCH", f"{ONE}/tags", permission=EXPERIMENTS_WRITE)
async def set_logged_model_tags(model_id: str, fields: FieldsOf, work: Work) -> Response:
    row = await LoggedModelTracking(work).set_tags(known_model(model_id), _pairs(fields, "tags"))
    return answer({"model": await _model(work.session, work.principal, row)})


@on_wire(router, "DELETE", f"{ONE}/tags/{{key:path}}", permission=EXPERIMENTS_WRITE)
async def delete_logged_model_tag(model_id: str, key: str, work: Work) -> Response:
    await LoggedModelTracking(work).remove_tag(known_model(model_id), key)
    return done()


@on_wire(router, "POST", f"{ONE}/params", permission=EXPERIMENTS_WRITE)
async def log_logged_model_params(model_id: str, fields: FieldsOf, work: Work) -> Response:
    await LoggedModelTracking(work).add_params(known_model(model_id), _pairs(fields, "params"))
    return done()


def _pairs(fields: Fields, name: str) -> dict[str, str]:
    items = fields.items(name)
    if len(items) > MAX_PARAMS:
        raise MlflowInvalid(f"A request can hold at most {MAX_PARAMS} {name}. Got {len(items)}.")
    found: dict[str, str] = {}
    for item in items:
        key = rules.checked_key(item.needed("key"), item.path_of("key"), item.path_of("key"))
        limit = rules.MAX_PARAM_VALUE if name == "params" else rules.MAX_TAG_VALUE
        found[key] = item.text("value")[:limit]
    return found


def _dataset(item: Fields) -> DatasetFilter:
    name = item.optional("dataset_name")
    if name is None:
        raise MlflowInvalid("`dataset_name` in the `datasets` clause must be specified.")
    return DatasetFilter(name, item.optional("dataset_digest"))


def _order(fields: Fields) -> list[tuple[Order, DatasetFilter | None]]:
    items = fields.items("order_by")
    if len(items) > MAX_ORDER_KEYS:
        raise MlflowInvalid(f"`order_by` has {len(items)} fields; at most {MAX_ORDER_KEYS} are possible.")
    found: list[tuple[Order, DatasetFilter | None]] = []
    for item in items:
        name = item.needed("field_name")
        field = quoted_field(name, MODELS)
        if field.collection not in {None, METRICS}:
            raise MlflowInvalid(f"Invalid order by field name: {name}. Only metrics are supported.")
        descending = "ascending" in item and not item.flag("ascending")
        dataset = _dataset(item) if "dataset_name" in item else None
        found.append((Order(field, descending=descending), dataset))
    if len({each.field.identity for each, _ in found}) < len(found):
        raise MlflowInvalid("`order_by` contains duplicate fields.")
    return found


def _status(fields: Fields) -> str:
    if "status" not in fields:
        raise rules.required("status")
    try:
        given: Any = fields.text("status")
    except MlflowInvalid:
        given = fields.integer("status")
    if given not in _STATUSES:
        raise rules.invalid("status", given)
    return _STATUSES[given]


async def _model(session: ReadSession, principal: Principal, row: Record) -> dict[str, Any]:
    return to_model(row, (await _metrics(session, principal, [row])).get(row.id, ()))


async def _metrics(session: ReadSession, principal: Principal, rows: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for each in await LoggedModelReader(session, principal).metrics([row.id for row in rows]):
        found.setdefault(each.model_id, []).append(each)
    return found

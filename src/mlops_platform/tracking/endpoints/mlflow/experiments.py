"""Experiments on MLflow's wire."""

import hashlib
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.responses import Response

from mlops_platform.contracts.tracking import DeletedFilter, ExperimentCreate, ExperimentUpdate
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, RuntimeOf, Work, unit_of_work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain import mlflow_rules as rules
from mlops_platform.tracking.domain.artifacts import SCHEME
from mlops_platform.tracking.domain.mlflow_search import EXPERIMENTS, read_filter, read_order
from mlops_platform.tracking.endpoints.mlflow.answers import to_experiment
from mlops_platform.tracking.endpoints.mlflow.wire import (
    Fields,
    FieldsOf,
    answer,
    done,
    on_wire,
    place_of_token,
    token_of,
)
from mlops_platform.tracking.errors import MlflowExists, MlflowInvalid, MlflowMissing
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.repository.listing import place_of
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE, ExperimentTracking

router = platform_router(tags=["mlflow"])

DEFAULT = 0
MAX_LOCATION = 2048
_VIEWS = {
    **dict.fromkeys(("ACTIVE_ONLY", 1, "1"), DeletedFilter.EXCLUDE),
    **dict.fromkeys(("DELETED_ONLY", 2, "2"), DeletedFilter.ONLY),
    **dict.fromkeys(("ALL", 3, "3"), DeletedFilter.INCLUDE),
}
_work = asynccontextmanager(unit_of_work)


def view_of(fields: Fields, name: str) -> DeletedFilter:
    """Whether what was deleted is asked for: by the name or the number of MLflow's enum."""
    given = fields.integer(name) if name in fields and not _is_name(fields, name) else fields.optional(name)
    if given is None:
        return DeletedFilter.EXCLUDE
    if given not in _VIEWS:
        raise rules.invalid(name, given)
    return _VIEWS[given]


def _is_name(fields: Fields, name: str) -> bool:
    try:
        return fields.text(name) != ""
    except MlflowInvalid:
        return False


async def ensure_default(request: Request, caller: Principal, runtime: Runtime) -> None:
    """A project has the experiment 0 from its first use on; who may not write leaves it as it is."""
    async with runtime.database.read() as session:
        there = await ExperimentReader(session, caller).numbered(DEFAULT)
    if there is None and caller.may(EXPERIMENTS_WRITE, "Default"):
        async for work in unit_of_work(request):
            await ExperimentTracking(work).ensure_default()


async def writable_experiment(work: UnitOfWork, given: str) -> Record:
    """The live experiment of a request that changes something."""
    number = rules.experiment_number(given)
    if number == DEFAULT:
        await ExperimentTracking(work).ensure_default()
    row = _found(await ExperimentReader(work.session, work.principal).numbered(number), given)
    if row.deleted_at is not None:
        raise MlflowInvalid(f"The experiment {given} must be in the 'active' state. Current state is deleted.")
    return row


async def _any_experiment(work: UnitOfWork, fields: Fields) -> Record:
    given = fields.needed("experiment_id")
    number = rules.experiment_number(given)
    return _found(await ExperimentReader(work.session, work.principal).numbered(number), given)


def _found(row: Record | None, given: str) -> Record:
    if row is None:
        raise MlflowMissing(f"No Experiment with id={given} exists")
    return row


@on_wire(router, "POST", "/experiments/create", permission=EXPERIMENTS_WRITE)
async def create_experiment(fields: FieldsOf, work: Work) -> Response:
    """A name is taken also by an experiment that was deleted, as long as it can be restored."""
    name = rules.checked_experiment_name(fields.needed("name"))
    tags, description = _tags(fields)
    location = fields.optional("artifact_location")
    if location is not None and len(location) > MAX_LOCATION:
        raise rules.too_long("artifact_location", MAX_LOCATION)
    await ExperimentTracking(work).ensure_default()
    if await ExperimentReader(work.session, work.principal).named(name) is not None:
        raise MlflowExists(f"Experiment(name={name}) already exists.")
    row = await ExperimentTracking(work).create(
        ExperimentCreate.model_construct(name=name, description=description, tags=tags),
        # Behind this server there is one place for an experiment, whatever a client wishes to call it.
        artifact_location=None if location is None or location.startswith(SCHEME) else location,
    )
    return answer({"experiment_id": str(row.number)})


@on_wire(router, "GET", "/experiments/get", permission=EXPERIMENTS_READ)
async def get_experiment(fields: FieldsOf, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    given = fields.needed("experiment_id")
    number = rules.experiment_number(given)
    if number == DEFAULT:
        await ensure_default(request, caller, runtime)
    async with runtime.database.read() as session:
        row = _found(await ExperimentReader(session, caller).numbered(number), given)
    return answer({"experiment": to_experiment(row)})


@on_wire(router, "GET", "/experiments/get-by-name", permission=EXPERIMENTS_READ)
async def get_experiment_by_name(fields: FieldsOf, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    name = fields.needed("experiment_name")
    if name == "Default":
        await ensure_default(request, caller, runtime)
    async with runtime.database.read() as session:
        row = await ExperimentReader(session, caller).named(name)
    if row is None:
        raise MlflowMissing(f"Could not find experiment with name '{name}'")
    return answer({"experiment": to_experiment(row)})


@on_wire(router, "GET", "/experiments/search", permission=EXPERIMENTS_READ)
@on_wire(router, "POST", "/experiments/search", permission=EXPERIMENTS_READ)
async def search_experiments(fields: FieldsOf, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    size = fields.integer("max_results")
    rules.check_results(size)
    asked = (fields.text("filter"), tuple(fields.texts("order_by")), view_of(fields, "view_type"))
    tree, order = read_filter(asked[0], EXPERIMENTS), read_order(asked[1], EXPERIMENTS)
    key, digest = runtime.auth_keys.pepper, digest_of("experiments", *asked)
    after = place_of_token(key, digest, fields.optional("page_token"))
    await ensure_default(request, caller, runtime)
    async with runtime.database.read() as session:
        reader = ExperimentReader(session, caller)
        rows = await reader.search(tree, order, deleted=asked[2], limit=(size or 0) + 1, after=after)
    shown = rows[:size]
    body: dict[str, Any] = {"experiments": [to_experiment(row) for row in shown]}
    if len(rows) > len(shown):
        body["next_page_token"] = token_of(key, digest, place_of(shown[-1]))
    return answer(body)


@on_wire(router, "POST", "/experiments/delete", permission=EXPERIMENTS_WRITE)
async def delete_experiment(fields: FieldsOf, work: Work) -> Response:
    row = await _any_experiment(work, fields)
    if row.deleted_at is not None:
        raise MlflowMissing(f"No Experiment with id={row.number} exists")
    await ExperimentTracking(work).delete(row.id)
    return done()


@on_wire(router, "POST", "/experiments/restore", permission=EXPERIMENTS_WRITE)
async def restore_experiment(fields: FieldsOf, work: Work) -> Response:
    row = await _any_experiment(work, fields)
    if row.deleted_at is None:
        raise MlflowMissing(f"No Experiment with id={row.number} exists")
    await ExperimentTracking(work).restore(row.id)
    return done()


@on_wire(router, "POST", "/experiments/update", permission=EXPERIMENTS_WRITE)
async def update_experiment(fields: FieldsOf, work: Work) -> Response:
    name = rules.checked_experiment_name(fields.needed("new_name"))
    row = await _any_experiment(work, fields)
    if row.deleted_at is not None:
        raise MlflowInvalid("Cannot rename a non-active experiment.")
    other = await ExperimentReader(work.session, work.principal).named(name)
    if other is not None and other.id != row.id:
        raise MlflowExists(f"Experiment(name={name}) already exists.")
    await ExperimentTracking(work).update(row.id, ExperimentUpdate.model_construct(name=name, tags={}))
    return done()


@on_wire(router, "POST", "/experiments/set-experiment-tag", permission=EXPERIMENTS_WRITE)
async def set_experiment_tag(fields: FieldsOf, work: Work) -> Response:
    tags, description = _checked_tags({fields.needed("key"): fields.text("value")})
    row = await writable_experiment(work, fields.needed("experiment_id"))
    change = ExperimentUpdate.model_construct(description=description, tags=dict(tags))
    await ExperimentTracking(work).update(row.id, change)
    return done()


@on_wire(router, "POST", "/experiments/delete-experiment-tag", permission=EXPERIMENTS_WRITE)
async def delete_experiment_tag(fields: FieldsOf, work: Work) -> Response:
    key = fields.needed("key")
    row = await writable_experiment(work, fields.needed("experiment_id"))
    if key not in row.tags:
        raise MlflowMissing(f"No tag with name: {key} in experiment with id {row.number}")
    await ExperimentTracking(work).update(row.id, ExperimentUpdate.model_construct(tags={key: None}))
    return done()


def digest_of(*decisive: Any) -> bytes:
    """What a page token belongs to."""
    return hashlib.sha256(repr(decisive).encode()).digest()[:12]


def _tags(fields: Fields) -> tuple[dict[str, str], str | None]:
    return _checked_tags({tag.needed("key"): tag.text("value") for tag in fields.items("tags")})


def _checked_tags(tags: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """The tags, and the description that MLflow keeps as one of them."""
    for key, value in tags.items():
        rules.checked_key(key, "key", "key")
        if len(value) > rules.MAX_EXPERIMENT_TAG_VALUE:
            raise rules.too_long("value", rules.MAX_EXPERIMENT_TAG_VALUE)
    description = tags.pop(rules.NOTE, None)
    return tags, description

"""Runs on MLflow's wire: their life. What is logged to them is in `logging`."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from mlops_platform.contracts.tracking import RunCreate, RunStatus, RunUpdate
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain import mlflow_rules as rules
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.domain.runs import FINAL
from mlops_platform.tracking.endpoints.mlflow.answers import runs_of, to_info
from mlops_platform.tracking.endpoints.mlflow.experiments import writable_experiment
from mlops_platform.tracking.endpoints.mlflow.wire import Fields, FieldsOf, answer, done, on_wire
from mlops_platform.tracking.errors import MlflowInvalid, RunNotFound
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.runs import RunTracking

router = platform_router(tags=["mlflow"])

MAX_NAME = 500
_STATUSES: Mapping[Any, RunStatus] = {
    **{str(each): each for each in RunStatus},
    **dict(enumerate((RunStatus.RUNNING, RunStatus.SCHEDULED, RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED), 1)),
}


@on_wire(router, "POST", "/runs/create", permission=EXPERIMENTS_WRITE)
async def create_run(fields: FieldsOf, work: Work) -> Response:
    tags = read_tags(fields)
    name = _name(fields.optional("run_name"), tags.get(rules.RUN_NAME))
    experiment = await writable_experiment(work, fields.text("experiment_id") or "0")
    rest, columns = await split_tags(tags, work.session, work.principal)
    started = fields.integer("start_time")
    new = RunCreate.model_construct(
        run_name=name,
        tags=rest,
        parent_run_id=columns.get("parent_run_id"),
        notes=columns.get("notes"),
        user=fields.optional("user_id"),
        start_time=rules.to_time(started, "start_time") if started else None,
    )
    row = await RunTracking(work).create(experiment.id, new)
    return answer({"run": await _run(work.session, work.principal, row)})


@on_wire(router, "GET", "/runs/get", permission=EXPERIMENTS_READ)
async def get_run(fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    row = await found_run(session, caller, fields.run_id())
    return answer({"run": await _run(session, caller, row)})


@on_wire(router, "POST", "/runs/update", permission=EXPERIMENTS_WRITE)
async def update_run(fields: FieldsOf, work: Work) -> Response:
    status, ended, name = _status(fields), fields.integer("end_time"), fields.optional("run_name")
    # A client that resumes a run sends the end that the run had; what goes on has none.
    has_end = ended and (status is None or status in FINAL)
    change = RunUpdate.model_construct(
        status=status,
        end_time=rules.to_time(ended or 0, "end_time") if has_end else None,
        run_name=name[:MAX_NAME] if name else None,
        start_time=None,
        notes=None,
        tags={},
    )
    row = await RunTracking(work).update(fields.run_id(), change)
    experiments = await ExperimentReader(work.session, work.principal).of_ids([row.experiment_id])
    return answer({"run_info": to_info(row, experiments[row.experiment_id])})


@on_wire(router, "POST", "/runs/delete", permission=EXPERIMENTS_WRITE)
async def delete_run(fields: FieldsOf, work: Work) -> Response:
    await RunTracking(work).delete(fields.run_id())
    return done()


@on_wire(router, "POST", "/runs/restore", permission=EXPERIMENTS_WRITE)
async def restore_run(fields: FieldsOf, work: Work) -> Response:
    await RunTracking(work).restore(fields.run_id())
    return done()


def read_tags(fields: Fields) -> dict[str, str]:
    """The tags of a body, values cut to their limit; of a key that comes twice the last one stands."""
    return dict(read_tag(tag) for tag in fields.items("tags"))


def read_tag(tag: Fields) -> tuple[str, str]:
    """One tag."""
    key = rules.checked_key(tag.needed("key"), tag.path_of("key"), tag.path_of("key"))
    return key, tag.text("value")[: rules.MAX_TAG_VALUE]


async def split_tags(
    tags: Mapping[str, str], session: ReadSession, principal: Principal
) -> tuple[dict[str, str], dict[str, Any]]:
    """Tags, and those that are fields of a run here: its name, its notes, and the run that it is part of."""
    rest = dict(tags)
    columns: dict[str, Any] = {}
    if name := rest.pop(rules.RUN_NAME, None):
        columns["name"] = name[:MAX_NAME]
    if rules.NOTE in rest:
        columns["notes"] = rest.pop(rules.NOTE)
    parent = rest.get(rules.PARENT_RUN)
    if parent is not None and is_id(parent) and await RunReader(session, principal).run(parent) is not None:
        columns["parent_run_id"] = rest.pop(rules.PARENT_RUN)
    return rest, columns


async def found_run(session: ReadSession, principal: Principal, run_id: str) -> Record:
    """The run, deleted or not."""
    row = await RunReader(session, principal).run(run_id)
    if row is None:
        raise RunNotFound.of(run_id)
    return row


async def _run(session: ReadSession, principal: Principal, row: Record) -> dict[str, Any]:
    experiments = await ExperimentReader(session, principal).of_ids([row.experiment_id])
    return (await runs_of(session, principal, [row], experiments))[0]


def _name(given: str | None, tagged: str | None) -> str | None:
    if given and tagged and given != tagged:
        raise MlflowInvalid(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{given}', mlflow.runName='{tagged}')."
        )
    name = (given or tagged or "")[:MAX_NAME]
    return name if name.strip() else None


def _status(fields: Fields) -> RunStatus | None:
    if "status" not in fields:
        return None
    try:
        given: Any = fields.text("status")
    except MlflowInvalid:
        given = fields.integer("status")
    if given not in _STATUSES:
        raise rules.invalid("status", given)
    return _STATUSES[given]

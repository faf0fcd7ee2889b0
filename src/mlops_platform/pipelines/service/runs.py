"""Runs: started, cancelled, taken up again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_platform.contracts.pipelines import ParameterSpec, PipelineRunCreate, PipelineRunState, RunTrigger
from mlops_platform.core.auth.authenticator import AuthKeys
from mlops_platform.core.auth.directory import Directory
from mlops_platform.core.clock import to_wire
from mlops_platform.core.db.notify import notify
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import Principal, PrincipalId, PrincipalKind, ProjectId, new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.pipelines.domain.parameters import bind
from mlops_platform.pipelines.domain.states import check_run_move
from mlops_platform.pipelines.errors import PipelineNotFound, PipelineRunNotFound, PipelineVersionNotFound
from mlops_platform.pipelines.repository import definitions as definitions_sql
from mlops_platform.pipelines.repository import dispatch as dispatch_sql
from mlops_platform.pipelines.repository import runs as runs_sql
from mlops_platform.pipelines.repository.permissions import PIPELINES_WRITE

# Two channels: work is ready (any worker may look), and a run is being cancelled (its workers must look).
READY_CHANNEL = "mlops_pipelines_ready"
CANCEL_CHANNEL = "mlops_pipelines_cancel"


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run about to be made."""

    pipeline_id: str
    pipeline: str
    version_id: str
    version: int
    task_count: int
    parameters: Mapping[str, Any]
    trigger: RunTrigger = RunTrigger.MANUAL
    schedule_id: str | None = None
    scheduled_for: datetime | None = None
    is_queued: bool = False


def acting_for(row: Any) -> Principal:
    """The principal in whose name the platform goes on with a run or a schedule."""
    return Principal(
        id=PrincipalId(row.principal_id),
        name=row.principal_name,
        kind=PrincipalKind.SERVICE,
        project=ProjectId(row.project_id),
        grants=(),
        scopes=tuple(row.scopes),
    )


def declared_parameters(stored: Mapping[str, Any]) -> dict[str, ParameterSpec]:
    """Parameters as a version keeps them."""
    return {name: ParameterSpec.model_validate(spec) for name, spec in stored.items()}


async def open_run(work: UnitOfWork, new: NewRun) -> str | None:
    """Make a run with all its tasks and start it, unless it is queued. None when its instant has a run already."""
    run_id = new_id()
    values = {
        "id": run_id,
        "project_id": work.principal.project,
        "pipeline_id": new.pipeline_id,
        "version_id": new.version_id,
        "state": PipelineRunState.QUEUED.value,
        "trigger": new.trigger.value,
        "schedule_id": new.schedule_id,
        "scheduled_for": new.scheduled_for,
        "parameters": dict(new.parameters),
        "principal_id": work.principal.id,
        "principal_name": work.principal.name,
        "scopes": list(work.principal.scopes),
        "trace_parent": work.trace_parent,
    }
    if not await runs_sql.insert_run(work.session, values, new.task_count):
        return None
    resource = work.urn("pipeline-run", run_id)
    facts = {
        "run_id": run_id,
        "pipeline": new.pipeline,
        "version": new.version,
        "trigger": new.trigger.value,
        "scheduled_for": to_wire(new.scheduled_for) if new.scheduled_for else None,
    }
    await work.audit("pipeline_run.created", resource, after=values, detail=facts)
    await work.emit("pipeline_run.created", resource, facts)
    await work.link(resource, "run_of", work.urn("pipeline", new.pipeline))
    if not new.is_queued:
        await begin_run(work, run_id, new.pipeline)
    return run_id


async def begin_run(work: UnitOfWork, run_id: str, pipeline: str) -> None:
    """Let a run begin: what waits for nothing is ready, and workers are told."""
    await runs_sql.start_run(work.session, run_id)
    await work.emit("pipeline_run.started", work.urn("pipeline-run", run_id), {"run_id": run_id, "pipeline": pipeline})
    await notify(work.session, READY_CHANNEL)


async def end_tokens(session: WriteSession, keys: AuthKeys, now: datetime, *, run_ids: Sequence[str]) -> None:
    """Revoke what workers held for runs that have ended."""
    directory = Directory(session, keys, now)
    for credential_id in await dispatch_sql.take_tokens(session, run_ids):
        await directory.revoke(credential_id)


class Runs:
    """What a caller does to runs."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._session = work.session
        self._principal = work.principal

    async def start(self, name: str, body: PipelineRunCreate) -> str:
        """Start a run of the current version, or of the one that is named."""
        pipeline = await definitions_sql.find_pipeline(self._session, self._principal, name)
        if pipeline is None:
            raise PipelineNotFound(name)
        number = body.version or pipeline.current_version
        version = await definitions_sql.find_version(self._session, self._principal, pipeline.id, version=number)
        if version is None:
            raise PipelineVersionNotFound(name, number)
        parameters = bind(declared_parameters(version.parameters), body.parameters)
        run_id = await open_run(
            self._work,
            NewRun(pipeline.id, pipeline.name, version.id, version.version, version.task_count, parameters),
        )
        if run_id is None:
            raise PipelineRunNotFound(name)
        return run_id

    async def cancel(self, run_id: str, keys: AuthKeys) -> None:
        """End a run. Tasks that wait end now, those that run are told to stop; cancelling twice is cancelling once."""
        run = await self._hold(run_id)
        state = PipelineRunState(run.state)
        if state in {PipelineRunState.CANCELLING, PipelineRunState.CANCELLED}:
            return
        check_run_move(state, PipelineRunState.CANCELLED)
        await runs_sql.cancel_tasks(self._session, run_id)
        is_open = await runs_sql.has_open_tasks(self._session, run_id)
        await self._move(run, PipelineRunState.CANCELLING if is_open else PipelineRunState.CANCELLED)
        if not is_open:
            await end_tokens(self._session, keys, self._work.clock.now(), run_ids=[run_id])
        await notify(self._session, CANCEL_CHANNEL)

    async def retry(self, run_id: str) -> None:
        """Take a failed or cancelled run up again: what succeeded is kept, the rest runs once more."""
        run = await self._hold(run_id)
        check_run_move(PipelineRunState(run.state), PipelineRunState.RUNNING)
        await runs_sql.reset_unsuccessful(self._session, run_id)
        await self._work.audit("pipeline_run.retried", self._work.urn("pipeline-run", run_id), before={"state": run.state})
        await begin_run(self._work, run_id, run.pipeline)

    async def _hold(self, run_id: str) -> Any:
        run = await runs_sql.lock_run(self._session, self._principal, run_id)
        if run is None:
            raise PipelineRunNotFound(run_id)
        self._principal.require(PIPELINES_WRITE, run.pipeline)
        return run

    async def _move(self, run: Any, target: PipelineRunState) -> None:
        is_final = target is PipelineRunState.CANCELLED
        await runs_sql.set_run_state(self._session, run.id, target, is_final=is_final)
        resource = self._work.urn("pipeline-run", run.id)
        await self._work.audit(
            f"pipeline_run.{target.value}", resource, before={"state": run.state}, after={"state": target.value}
        )
        facts = {"run_id": run.id, "pipeline": run.pipeline, "state": target.value}
        await self._work.emit("pipeline_run.finished" if is_final else "pipeline_run.cancelling", resource, facts)

"""Use cases on runs: their life, parameters, tags, and what they read."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_platform.contracts.tracking import RunCreate, RunStatus, RunUpdate
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain import leases
from mlops_platform.tracking.domain import params as param_rules
from mlops_platform.tracking.domain import runs as rules
from mlops_platform.tracking.domain.params import Param
from mlops_platform.tracking.errors import (
    ExperimentArchived,
    ExperimentDeleted,
    ExperimentNotFound,
    ParamChanged,
    RunDeleted,
    RunIdTaken,
    RunNotFound,
)
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.leases import LeaseRepository
from mlops_platform.tracking.repository.runs import RunRepository, data_of
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE


class RunTracking:
    """The use cases that write runs."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._runs = RunRepository(work.session, work.principal)
        self._experiments = ExperimentRepository(work.session, work.principal)
        self._leases = LeaseRepository(work.session, work.principal)

    async def create(self, experiment_id: str, new: RunCreate) -> Record:
        """Start a run, or schedule or record one."""
        await self._live_experiment(experiment_id)
        if new.parent_run_id is not None and await self._runs.run(new.parent_run_id) is None:
            raise InvalidInput.of("parent_run_id", "no run has this id", new.parent_run_id)
        now = self._work.clock.now()
        run_id = new.id or new_id()
        rules.check_given_id(new.id, now=now)
        life = rules.born(new.status, start_time=new.start_time, now=now)
        params = param_rules.flatten(new.parameters)
        values = {
            "id": run_id,
            "experiment_id": experiment_id,
            "name": new.run_name or rules.made_up_name(run_id),
            "status": life.status.value,
            "user_name": new.user or self._work.principal.on_behalf_of or self._work.principal.name,
            "start_time": life.start_time,
            "end_time": life.end_time,
            "parent_run_id": new.parent_run_id,
            "notes": new.notes,
            "group_name": new.group,
            "heartbeat_seconds": new.heartbeat_seconds,
            "created_by": self._work.principal.name,
            "created_at": now,
            "updated_at": now,
        }
        if not await self._runs.add(values):
            return await self._made_before(run_id, experiment_id, new, params)
        await self._runs.add_params(experiment_id, run_id, params)
        await self._runs.change_tags(experiment_id, run_id, new.tags)
        await self._experiments.count(experiment_id, run_id, {life.status.value: 1})
        if life.status is RunStatus.RUNNING and (new.heartbeat_seconds or new.writer):
            await self._leases.take(run_id, new.writer or self._made_up_writer(run_id), new.heartbeat_seconds, now)
        await self._record(
            "run.created", run_id, experiment_id, after={**values, "parameters": new.parameters, "tags": new.tags}
        )
        return await self._found(run_id)

    async def update(self, run_id: str, change: RunUpdate, *, experiment_id: str | None = None) -> Record:
        """Change a run; a final status finishes it, RUNNING resumes it."""
        row = await self._held(run_id, experiment_id)
        if change.writer is not None and row.status == RunStatus.RUNNING:
            leases.check_writer(run_id, await self._leases.lease(run_id), change.writer)
        life = rules.changed(
            rules.Life(RunStatus(row.status), row.start_time, row.end_time),
            now=self._work.clock.now(),
            status=change.status,
            start_time=change.start_time,
            end_time=change.end_time,
        )
        values: dict[str, Any] = {"status": life.status.value, "start_time": life.start_time, "end_time": life.end_time}
        if change.run_name is not None:
            values["name"] = change.run_name
        if change.notes is not None:
            values["notes"] = change.notes
        if change.group is not None:
            values["group_name"] = change.group or None
        if change.status_reason is not None or life.status is RunStatus.RUNNING:
            values["status_reason"] = change.status_reason or None
        await self._keep_lease(row, life.status, change.writer)
        before = {key: getattr(row, key) for key in values}
        await self._runs.change(run_id, {**values, "updated_at": self._work.clock.now()})
        await self._runs.change_tags(row.experiment_id, run_id, change.tags)
        await self._move_count(row, values["status"])
        action = "run.finished" if life.status in rules.FINAL and row.status != life.status else "run.updated"
        await self._record(action, run_id, row.experiment_id, before=before, after={**values, "tags": change.tags})
        return await self._found(run_id)

    async def delete(self, run_id: str, *, experiment_id: str | None = None) -> None:
        """Hide a run; it can be restored. Deleting it again changes nothing."""
        row = await self._held(run_id, experiment_id, live=False)
        if row.deleted_at is None:
            await self._runs.change(run_id, {"deleted_at": self._work.clock.now()})
            await self._experiments.count(row.experiment_id, run_id, {row.status: -1})
            await self._record("run.deleted", run_id, row.experiment_id, before={"run_name": row.name})

    async def restore(self, run_id: str, *, experiment_id: str | None = None) -> Record:
        """Bring a run back; a no-op for one that is there."""
        row = await self._held(run_id, experiment_id, live=False)
        if row.experiment_deleted_at is not None:
            raise ExperimentDeleted.of(row.experiment_id)
        if row.deleted_at is not None:
            await self._runs.change(run_id, {"deleted_at": None})
            await self._experiments.count(row.experiment_id, run_id, {row.status: 1})
            await self._record("run.restored", run_id, row.experiment_id, after={"run_name": row.name})
        return await self._found(run_id)

    async def add_params(self, run_id: str, parameters: Mapping[str, Any], *, experiment_id: str | None = None) -> Record:
        """Add parameters: all of them or none. The same value again is fine, another one is a conflict."""
        row = await self._held(run_id, experiment_id)
        await self._add_params(row, param_rules.flatten(parameters))
        return await self._found(run_id)

    async def change_tags(
        self, run_id: str, changes: Mapping[str, str | None], *, experiment_id: str | None = None
    ) -> Record:
        """Set and remove tags."""
        row = await self._held(run_id, experiment_id)
        await self._change_tags(row, changes)
        return await self._found(run_id)

    async def describe(
        self,
        run_id: str,
        *,
        params: Sequence[Param] = (),
        tags: Mapping[str, str | None] | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Parameters, tags and what stands on the run itself, in one change: all of it or nothing."""
        row = await self._held(run_id, None)
        await self._add_params(row, params)
        await self._change_tags(row, tags or {})
        changes = {name: value for name, value in (columns or {}).items() if getattr(row, name) != value}
        if changes:
            before = {name: getattr(row, name) for name in changes}
            await self._runs.change(run_id, {**changes, "updated_at": self._work.clock.now()})
            await self._record("run.updated", run_id, row.experiment_id, before=before, after=changes)

    async def _add_params(self, row: Record, params: Sequence[Param]) -> None:
        added = await self._runs.add_params(row.experiment_id, row.id, params)
        await self._refuse_changes(row.id, [param for param in params if param.key not in added])
        if added:
            after = {param.key: param.value for param in params if param.key in added}
            await self._touch(row.id)
            await self._record("run.params_added", row.id, row.experiment_id, after=after)

    async def _change_tags(self, row: Record, changes: Mapping[str, str | None]) -> None:
        await self._runs.change_tags(row.experiment_id, row.id, changes)
        if changes:
            await self._touch(row.id)
            await self._record("run.tags_changed", row.id, row.experiment_id, after=changes)

    async def state_inputs(self, run_id: str, inputs: Sequence[str], *, experiment_id: str | None = None) -> str:
        """State what a run read, for the lineage graph; the run's URN."""
        row = await self._held(run_id, experiment_id)
        subject = self._work.urn("run", run_id)
        for target in dict.fromkeys(inputs):
            if target.split(":")[2] != self._work.principal.project:
                raise InvalidInput.of(
                    "inputs", "names another project", target, hint=f"This one is {subject.split(':')[2]}."
                )
            await self._work.link(subject, "used", target)
        await self._work.audit(
            "run.inputs_stated", subject, after={"inputs": list(inputs), "experiment_id": row.experiment_id}
        )
        return subject

    async def _made_before(self, run_id: str, experiment_id: str, new: RunCreate, params: list[Param]) -> Record:
        """The run that the same request made; whatever else has the id, in this project or in another, has one answer."""
        row = await self._runs.whole(run_id, experiment_id=experiment_id)
        if row is None:
            raise RunIdTaken.of(run_id)
        if row.deleted_at is not None:
            raise RunDeleted.of(run_id)
        data = data_of(row)
        found = rules.Beginning(
            name=row.name,
            status=RunStatus(row.status),
            user=row.user_name,
            start_time=row.start_time,
            parent_run_id=row.parent_run_id,
            notes=row.notes,
            tags=data.tags,
            parameters=data.params,
        )
        wanted = {param.key: param.value for param in params}
        if not rules.is_same_beginning(new, wanted, found, is_untouched=row.updated_at == row.created_at):
            raise RunIdTaken.of(run_id)
        return row

    async def _refuse_changes(self, run_id: str, params: list[Param]) -> None:
        if not params:
            return
        existing = await self._runs.params(run_id, [param.key for param in params])
        for old, new in param_rules.changed(existing, params):
            raise ParamChanged.of(run_id, old, new)

    async def _move_count(self, row: Record, status: str) -> None:
        if status != row.status:
            await self._experiments.count(row.experiment_id, row.id, {row.status: -1, status: 1})

    async def _keep_lease(self, row: Record, status: RunStatus, writer: str | None) -> None:
        """Who ends a run gives it back; who starts one that promised heartbeats begins to owe them."""
        if status in rules.FINAL:
            await self._leases.end(row.id)
        elif status is RunStatus.RUNNING and row.status != status and (row.heartbeat_seconds or writer):
            now = self._work.clock.now()
            await self._leases.take(row.id, writer or self._made_up_writer(row.id), row.heartbeat_seconds, now)

    def _made_up_writer(self, run_id: str) -> str:
        return f"{self._work.principal.name}/{run_id[-8:]}"

    async def _touch(self, run_id: str) -> None:
        await self._runs.change(run_id, {"updated_at": self._work.clock.now()})

    async def _live_experiment(self, experiment_id: str) -> None:
        row = await self._experiments.uncounted(experiment_id)
        if row is None:
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.name)
        if row.deleted_at is not None:
            raise ExperimentDeleted.of(experiment_id)
        if row.archived_at is not None:
            raise ExperimentArchived.of(experiment_id)

    async def _held(self, run_id: str, experiment_id: str | None, *, live: bool = True) -> Record:
        row = await self._runs.hold(run_id, experiment_id=experiment_id)
        if row is None:
            raise RunNotFound.of(run_id, experiment_id=experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
        if live and (row.deleted_at is not None or row.experiment_deleted_at is not None):
            raise RunDeleted.of(run_id)
        return row

    async def _found(self, run_id: str) -> Record:
        row = await self._runs.whole(run_id)
        if row is None:
            raise RunNotFound.of(run_id)
        return row

    async def _record(
        self,
        action: str,
        run_id: str,
        experiment_id: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        resource = self._work.urn("run", run_id)
        await self._work.audit(action, resource, before=before, after=after)
        status = (after or {}).get("status")
        data = {"run_id": run_id, "experiment_id": experiment_id, **({"status": status} if status else {})}
        await self._work.emit(action, resource, data)

"""Pipelines, their versions and schedules: made, changed, removed."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlops_platform.contracts.pipelines import PipelineCreate, PipelineUpdate, ScheduleSpec
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.pipelines.domain.cron import check_schedule, next_instant
from mlops_platform.pipelines.domain.graph import build_graph
from mlops_platform.pipelines.domain.parameters import bind, check_declarations
from mlops_platform.pipelines.domain.versions import content_digest
from mlops_platform.pipelines.errors import PipelineDeleted, PipelineNotFound, ScheduleNotFound
from mlops_platform.pipelines.repository import definitions as sql
from mlops_platform.pipelines.repository.permissions import PIPELINES_WRITE
from mlops_platform.pipelines.service.runs import declared_parameters


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a document: the number of its version, and whether it was made now."""

    version: int
    is_new: bool


class Definitions:
    """What a caller does to pipelines."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._session = work.session
        self._principal = work.principal

    async def post(self, document: PipelineCreate) -> Posted:
        """Make the pipeline when it is absent, and a version unless the same content is one already."""
        self._principal.require(PIPELINES_WRITE, document.name)
        check_declarations(document.parameters)
        # Ten thousand tasks are a moment's work: other requests must not wait for it.
        graph = await asyncio.to_thread(build_graph, document)
        if document.schedule is not None:
            self._check_schedule(document.schedule, document.model_dump(mode="json")["parameters"], at="schedule")
        pipeline = await self._hold_or_make(document)
        digest = content_digest(document)
        known = await sql.find_version(self._session, self._principal, pipeline.id, digest=digest)
        if known is not None:
            posted = Posted(known.version, is_new=False)
        else:
            posted = Posted(pipeline.version_count + 1, is_new=True)
            values = {
                "id": new_id(),
                "project_id": self._principal.project,
                "pipeline_id": pipeline.id,
                "version": posted.version,
                "digest": digest,
                "parameters": document.model_dump(mode="json")["parameters"],
                "task_count": len(document.tasks),
                "created_by": self._principal.name,
                "created_at": self._work.clock.now(),
            }
            await sql.insert_version(self._session, values, graph)
            await self._tell("pipeline_version.created", document.name, after={"version": posted.version, "digest": digest})
        await self._point_at(pipeline, posted, document)
        if document.schedule is not None:
            await self._put_schedule(pipeline.id, document.name, document.schedule)
        return posted

    async def update(self, name: str, change: PipelineUpdate) -> None:
        """Change what is not content."""
        pipeline = await self._hold(name)
        if "description" in change.model_fields_set:
            now = self._work.clock.now()
            values = {"description": change.description, "updated_at": now}
            await sql.update_pipeline(self._session, self._principal, pipeline.id, **values)
            before = {"description": pipeline.description}
            await self._tell("pipeline.updated", name, before=before, after={"description": change.description})

    async def delete(self, name: str) -> None:
        """Hide the pipeline. Its name, versions and runs stay, its schedule stops, and it can be restored."""
        pipeline = await self._hold(name)
        await self._set_deleted(pipeline, self._work.clock.now())
        await self._tell("pipeline.deleted", name, before={"deleted_at": None})

    async def restore(self, name: str) -> None:
        """Bring a deleted pipeline back; a no-op when it is not deleted. Its schedule goes on from now."""
        pipeline = await sql.lock_pipeline(self._session, self._principal, name)
        if pipeline is None:
            raise PipelineNotFound(name)
        if pipeline.deleted_at is None:
            return
        await self._set_deleted(pipeline, None)
        await self._resume(pipeline.id)
        await self._tell("pipeline.restored", name, after={"deleted_at": None})

    async def put_schedule(self, name: str, spec: ScheduleSpec) -> None:
        """Set the schedule, in place of the one that there was."""
        pipeline = await self._hold(name)
        version = await sql.find_version(self._session, self._principal, pipeline.id, version=pipeline.current_version)
        self._check_schedule(spec, version.parameters if version else {}, at="")
        await self._put_schedule(pipeline.id, name, spec)

    async def set_paused(self, name: str, *, is_paused: bool) -> None:
        """Pause or resume. What passed while it was paused is not caught up."""
        pipeline = await self._hold(name)
        schedule = await sql.find_schedule(self._session, self._principal, pipeline.id)
        if schedule is None:
            raise ScheduleNotFound(name)
        if schedule.is_paused == is_paused:
            return
        await sql.update_schedule(
            self._session, self._principal, pipeline.id, is_paused=is_paused, updated_at=self._work.clock.now()
        )
        if not is_paused:
            await self._resume(pipeline.id)
        await self._tell("schedule.paused" if is_paused else "schedule.resumed", name)

    async def delete_schedule(self, name: str) -> None:
        """The pipeline runs by hand only from now on."""
        pipeline = await self._hold(name)
        if not await sql.delete_schedule(self._session, self._principal, pipeline.id):
            raise ScheduleNotFound(name)
        await self._tell("schedule.deleted", name)

    async def _hold(self, name: str) -> Any:
        pipeline = await sql.lock_pipeline(self._session, self._principal, name)
        if pipeline is None or pipeline.deleted_at is not None:
            raise PipelineNotFound(name)
        return pipeline

    async def _hold_or_make(self, document: PipelineCreate) -> Any:
        now = self._work.clock.now()
        values = {
            "id": new_id(),
            "project_id": self._principal.project,
            "name": document.name,
            "description": document.description,
            "current_version": 0,
            "version_count": 0,
            "created_by": self._principal.name,
            "created_at": now,
            "updated_at": now,
        }
        is_new = await sql.insert_pipeline(self._session, values)
        pipeline = await sql.lock_pipeline(self._session, self._principal, document.name)
        if pipeline is None or pipeline.deleted_at is not None:
            raise PipelineDeleted(document.name)
        if is_new:
            await self._tell("pipeline.created", document.name, after={"description": document.description})
        return pipeline

    async def _point_at(self, pipeline: Any, posted: Posted, document: PipelineCreate) -> None:
        values = {
            "current_version": posted.version,
            "version_count": max(pipeline.version_count, posted.version),
            "description": document.description if document.description is not None else pipeline.description,
        }
        changed = {key: value for key, value in values.items() if getattr(pipeline, key) != value}
        if changed:
            await sql.update_pipeline(
                self._session, self._principal, pipeline.id, **changed, updated_at=self._work.clock.now()
            )
        if "current_version" in changed and not posted.is_new:
            before, after = {"version": pipeline.current_version}, {"version": posted.version}
            await self._tell("pipeline.updated", document.name, before=before, after=after)
        if "current_version" in changed and document.schedule is None:
            await self._take_over_schedule(pipeline.id, document.name)

    def _check_schedule(self, spec: ScheduleSpec, declared: Mapping[str, Any], *, at: str) -> None:
        prefix = f"{at}." if at else ""
        check_schedule(spec.cron, spec.time_zone, at=prefix)
        bind(declared_parameters(declared), spec.parameters, at=f"{prefix}parameters")

    async def _put_schedule(self, pipeline_id: str, name: str, spec: ScheduleSpec) -> None:
        now = self._work.clock.now()
        values = {
            "id": new_id(),
            "project_id": self._principal.project,
            "pipeline_id": pipeline_id,
            **spec.model_dump(mode="json"),
            "is_paused": False,
            "next_at": next_instant(spec.cron, spec.time_zone, now),
            "principal_id": self._principal.id,
            "principal_name": self._principal.name,
            "scopes": list(self._principal.scopes),
            "created_at": now,
            "updated_at": now,
        }
        await sql.put_schedule(self._session, values)
        await self._tell("schedule.updated", name, after=spec.model_dump(mode="json"))

    async def _take_over_schedule(self, pipeline_id: str, name: str) -> None:
        """Whoever decides what a schedule runs answers for its runs: nobody's code runs with the rights of another."""
        schedule = await sql.find_schedule(self._session, self._principal, pipeline_id)
        owner = {"principal_id": self._principal.id, "scopes": list(self._principal.scopes)}
        if schedule is None or owner == {"principal_id": schedule.principal_id, "scopes": list(schedule.scopes)}:
            return
        changed = {**owner, "principal_name": self._principal.name, "updated_at": self._work.clock.now()}
        await sql.update_schedule(self._session, self._principal, pipeline_id, **changed)
        before, after = {"runs_as": schedule.principal_name}, {"runs_as": self._principal.name}
        await self._tell("schedule.updated", name, before=before, after=after)

    async def _resume(self, pipeline_id: str) -> None:
        schedule = await sql.find_schedule(self._session, self._principal, pipeline_id)
        if schedule is not None:
            next_at = next_instant(schedule.cron, schedule.time_zone, self._work.clock.now())
            await sql.update_schedule(self._session, self._principal, pipeline_id, next_at=next_at)

    async def _set_deleted(self, pipeline: Any, deleted_at: Any) -> None:
        await sql.update_pipeline(
            self._session, self._principal, pipeline.id, deleted_at=deleted_at, updated_at=self._work.clock.now()
        )

    async def _tell(
        self,
        action: str,
        name: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """The audit entry and the event of a change."""
        resource = self._work.urn("pipeline", name)
        await self._work.audit(action, resource, before=before, after=after, detail={"pipeline": name})
        await self._work.emit(action, resource, {"pipeline": name, **(after or {})})

"""Use cases on experiments."""

from collections.abc import Mapping
from typing import Any

from mlops_platform.contracts.tracking import ExperimentCreate, ExperimentUpdate
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import Permission, new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain.runs import changed_tags
from mlops_platform.tracking.errors import ExperimentDeleted, ExperimentNameTaken, ExperimentNotFound
from mlops_platform.tracking.repository.experiments import ExperimentRepository

EXPERIMENTS_WRITE = Permission("experiments:write")


class ExperimentTracking:
    """The use cases that write experiments."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._experiments = ExperimentRepository(work.session, work.principal)

    async def create(
        self, new: ExperimentCreate, *, artifact_location: str | None = None, number: int | None = None
    ) -> Record:
        """Make an experiment; its name is unique among the live ones of the project. Without a number it gets the next."""
        self._work.principal.require(EXPERIMENTS_WRITE, new.name)
        now = self._work.clock.now()
        experiment_id = new_id()
        values = {
            "id": experiment_id,
            "name": new.name,
            "number": number,
            "description": new.description,
            "artifact_location": artifact_location,
            "tags": dict(new.tags),
            "owner": new.owner or self._work.principal.on_behalf_of or self._work.principal.name,
            "retention_days": new.retention_days,
            "created_by": self._work.principal.name,
            "created_at": now,
            "updated_at": now,
        }
        if not await self._experiments.add(values):
            raise _name_taken(new.name)
        await self._record("experiment.created", experiment_id, after=new.model_dump(mode="json"))
        return await self._found(experiment_id)

    async def ensure_default(self) -> None:
        """Make the experiment that has the number 0, where a project has none yet."""
        if await self._experiments.numbered(0) is not None or not self._work.principal.may(EXPERIMENTS_WRITE, "Default"):
            return
        for name in ("Default", "Default (0)"):
            new = ExperimentCreate(name=name)
            try:
                await self.create(new, number=0)
            except ExperimentNameTaken:
                if await self._experiments.numbered(0) is not None:
                    return  # made at the same moment by another request
            else:
                return

    async def update(self, experiment_id: str, change: ExperimentUpdate) -> Record:
        """Rename, describe, tag. The id stays."""
        row = await self._held(experiment_id)
        values: dict[str, Any] = change.model_dump(exclude_none=True, exclude={"tags"})
        if change.name is not None:
            self._work.principal.require(EXPERIMENTS_WRITE, change.name)
        if change.retention_days == 0:
            values["retention_days"] = None
        if change.tags:
            values["tags"] = changed_tags(row.tags, change.tags)
        before = {key: getattr(row, key) for key in values}
        if not await self._experiments.change(experiment_id, {**values, "updated_at": self._work.clock.now()}):
            raise _name_taken(change.name or row.name)
        await self._record("experiment.updated", experiment_id, before=before, after=values)
        return await self._found(experiment_id)

    async def delete(self, experiment_id: str) -> None:
        """Hide an experiment with its runs; it can be restored. Deleting it again changes nothing."""
        row = await self._held(experiment_id, live=False)
        if row.deleted_at is None:
            await self._experiments.change(experiment_id, {"deleted_at": self._work.clock.now()})
            await self._record("experiment.deleted", experiment_id, before={"name": row.name})

    async def archive(self, experiment_id: str) -> Record:
        """Put an experiment away: it keeps its name and is read as ever, and takes no new runs."""
        row = await self._held(experiment_id)
        if row.archived_at is None:
            await self._experiments.change(experiment_id, {"archived_at": self._work.clock.now()})
            await self._record("experiment.archived", experiment_id, before={"name": row.name})
        return await self._found(experiment_id)

    async def restore(self, experiment_id: str) -> Record:
        """Bring a deleted or archived experiment back, unless its name was given to another one meanwhile."""
        row = await self._held(experiment_id, live=False)
        if row.deleted_at is not None or row.archived_at is not None:
            if not await self._experiments.change(experiment_id, {"deleted_at": None, "archived_at": None}):
                raise _name_taken(row.name)
            await self._record("experiment.restored", experiment_id, after={"name": row.name})
        return await self._found(experiment_id)

    async def _held(self, experiment_id: str, *, live: bool = True) -> Record:
        row = await self._experiments.hold(experiment_id)
        if row is None:
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.name)
        if live and row.deleted_at is not None:
            raise ExperimentDeleted.of(experiment_id)
        return row

    async def _found(self, experiment_id: str) -> Record:
        row = await self._experiments.experiment(experiment_id)
        if row is None:
            raise ExperimentNotFound.of(experiment_id)
        return row

    async def _record(
        self,
        action: str,
        experiment_id: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        resource = self._work.urn("experiment", experiment_id)
        await self._work.audit(action, resource, before=before, after=after)
        await self._work.emit(action, resource, {"experiment_id": experiment_id, "before": before, "after": after})


def _name_taken(name: str) -> ExperimentNameTaken:
    return ExperimentNameTaken(
        f"An experiment named {name!r} exists in this project.",
        hint="Find it with GET /api/experiments?name=..., rename one of the two, or choose another name.",
    )

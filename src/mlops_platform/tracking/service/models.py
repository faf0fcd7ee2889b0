"""Use cases on logged models: a model that a run made, known before it is registered anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain.runs import made_up_name
from mlops_platform.tracking.errors import ExperimentDeleted, ExperimentNotFound, LoggedModelNotFound, MlflowMissing
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.models import LoggedModelRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE

PENDING, READY = "PENDING", "READY"


class LoggedModelTracking:
    """The use cases that write logged models."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._models = LoggedModelRepository(work.session, work.principal)
        self._experiments = ExperimentRepository(work.session, work.principal)

    async def create(
        self,
        experiment_id: str,
        *,
        name: str | None,
        model_type: str | None,
        source_run_id: str | None,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        status: str = PENDING,
    ) -> Record:
        """Announce a model; its files follow, and then it is finished."""
        experiment = await self._experiments.experiment(experiment_id)
        if experiment is None:
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, experiment.name)
        if experiment.deleted_at is not None:
            raise ExperimentDeleted.of(experiment_id)
        now = self._work.clock.now()
        model_id = new_id()
        values = {
            "id": model_id,
            "experiment_id": experiment_id,
            "name": name or made_up_name(model_id),
            "status": status,
            "model_type": model_type,
            "source_run_id": source_run_id,
            "params": dict(params),
            "tags": dict(tags),
            "created_by": self._work.principal.name,
            "created_at": now,
            "updated_at": now,
        }
        await self._models.add(values)
        await self._record("logged_model.created", model_id, experiment_id, values)
        return await self.found(model_id)

    async def finish(self, model_id: str, status: str) -> Record:
        """Say how the upload of its files went."""
        await self._change(model_id, "logged_model.finished", {"status": status})
        return await self.found(model_id)

    async def set_tags(self, model_id: str, tags: Mapping[str, str]) -> Record:
        """Set tags, replacing those of the same keys."""
        row = await self._held(model_id)
        await self._change(model_id, "logged_model.updated", {"tags": {**row.tags, **tags}})
        return await self.found(model_id)

    async def remove_tag(self, model_id: str, key: str) -> None:
        """Remove a tag that is there."""
        row = await self._held(model_id)
        if key not in row.tags:
            raise MlflowMissing(f"No tag with key {key!r} found for model with ID 'm-{model_id}'.")
        rest = {name: value for name, value in row.tags.items() if name != key}
        await self._change(model_id, "logged_model.updated", {"tags": rest})

    async def add_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """Add parameters, in as many requests as their number takes."""
        row = await self._held(model_id)
        await self._change(model_id, "logged_model.updated", {"params": {**row.params, **params}})

    async def delete(self, model_id: str) -> None:
        """Hide a model."""
        await self._change(model_id, "logged_model.deleted", {"deleted_at": self._work.clock.now()})

    async def add_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Say of which models points of a run speak. The points themselves are the run's, and so is their record."""
        known = await self._models.models({row["model_id"] for row in rows})
        for row in rows:
            model = known.get(row["model_id"])
            if model is None or model.deleted_at is not None:
                raise LoggedModelNotFound.of(f"m-{row['model_id']}")
            self._work.principal.require(EXPERIMENTS_WRITE, model.experiment_name)
        await self._models.add_metrics(rows)

    async def found(self, model_id: str, *, allow_deleted: bool = False) -> Record:
        """The model as it is now."""
        row = await self._models.model(model_id)
        if row is None or (row.deleted_at is not None and not allow_deleted):
            raise LoggedModelNotFound.of(f"m-{model_id}")
        return row

    async def _held(self, model_id: str) -> Record:
        row = await self._models.hold(model_id)
        if row is None or row.deleted_at is not None:
            raise LoggedModelNotFound.of(f"m-{model_id}")
        self._work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
        return row

    async def _change(self, model_id: str, action: str, values: Mapping[str, Any]) -> None:
        row = await self._held(model_id)
        await self._models.change(model_id, {**values, "updated_at": self._work.clock.now()})
        before = {key: getattr(row, key) for key in values}
        await self._record(action, model_id, row.experiment_id, values, before=before)

    async def _record(
        self,
        action: str,
        model_id: str,
        experiment_id: str,
        after: Mapping[str, Any],
        *,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        resource = self._work.urn("logged-model", f"m-{model_id}")
        await self._work.audit(action, resource, before=before, after=after)
        data = {"model_id": f"m-{model_id}", "experiment_id": experiment_id}
        await self._work.emit(action, resource, {**data, **({"status": after["status"]} if "status" in after else {})})

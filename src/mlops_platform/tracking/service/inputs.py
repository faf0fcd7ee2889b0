"""Use cases on what runs read and made: datasets by digest, and logged models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlops_platform.contracts.tracking_inputs import ModelLogged
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain.artifacts import ARTIFACT_PATH, checked_path
from mlops_platform.tracking.errors import LoggedModelNotFound, RunDeleted, RunNotFound
from mlops_platform.tracking.repository.inputs import InputRepository
from mlops_platform.tracking.repository.models import LoggedModelRepository
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.models import READY, LoggedModelTracking


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data as a run says what it read: known within the project by name and digest."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """A dataset that a run read, and what for (`training`, `validation`)."""

    dataset: Dataset
    context: str | None
    tags: Mapping[str, str]


class RunInputTracking:
    """The use cases that tie runs to datasets and logged models. Each may be said again without effect."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._runs = RunRepository(work.session, work.principal)
        self._inputs = InputRepository(work.session, work.principal)
        self._models = LoggedModelRepository(work.session, work.principal)

    async def read(
        self, run_id: str, uses: Sequence[DatasetUse], models: Sequence[str] = (), *, experiment_id: str | None = None
    ) -> None:
        """State which datasets and logged models a run read."""
        row = await self._held(run_id, experiment_id)
        first: dict[tuple[str, str], DatasetUse] = {}
        for use in uses:
            first.setdefault((use.dataset.name, use.dataset.digest), use)
        if first:
            await self._add_datasets(row, first)
        await self._tie(row, "input", [(model_id, 0) for model_id in models])

    async def made(self, run_id: str, models: Sequence[tuple[str, int]]) -> None:
        """State which logged models a run made, and at which step."""
        await self._tie(await self._held(run_id), "output", models)

    async def make(self, run_id: str, new: ModelLogged, *, experiment_id: str | None = None) -> Record:
        """A model that a run made, with files among the run's artifacts: ready at once, and one however often said."""
        row = await self._held(run_id, experiment_id)
        where = {} if new.path is None else {ARTIFACT_PATH: checked_path(new.path)}
        before = await self._made_before(run_id, new, {**new.tags, **where})
        if before is not None:
            return before
        model = await LoggedModelTracking(self._work).create(
            row.experiment_id,
            name=new.name,
            model_type=new.model_type,
            source_run_id=run_id,
            params=new.params,
            tags={**new.tags, **where},
            status=READY,
        )
        await self._tie(row, "output", [(model.id, new.step)])
        return model

    async def _made_before(self, run_id: str, new: ModelLogged, tags: Mapping[str, str]) -> Record | None:
        # The run is held: nobody else adds one meanwhile.
        ties = await self._inputs.models_of_runs([run_id])
        steps = {tie.model_id: tie.step for tie in ties if tie.direction == "output"}
        known = await self._models.models(list(steps))
        wanted = (new.name, new.model_type, dict(new.params), dict(tags), new.step, None)
        return next(
            (
                row
                for model_id, row in known.items()
                if (row.name, row.model_type, row.params, row.tags, steps[model_id], row.deleted_at) == wanted
            ),
            None,
        )

    def urn(self, dataset: Dataset) -> str:
        """A dataset as the lineage graph names it."""
        return self._work.urn("dataset", f"{quote(dataset.name, safe='')[:200]}@{quote(dataset.digest, safe='')[:90]}")

    async def _add_datasets(self, row: Record, uses: Mapping[tuple[str, str], DatasetUse]) -> None:
        now = self._work.clock.now()
        given = [{"id": new_id(), "created_at": now, **_columns(use.dataset)} for use in uses.values()]
        ids = await self._inputs.ensure(given)
        rows = [
            {
                "experiment_id": row.experiment_id,
                "run_id": row.id,
                "dataset_id": ids[key],
                "context": use.context,
                "tags": dict(use.tags),
                "created_at": now,
            }
            for key, use in uses.items()
        ]
        if await self._inputs.add(rows):
            run = self._work.urn("run", row.id)
            for use in uses.values():
                await self._work.link(run, "used", self.urn(use.dataset))
            datasets = [{"name": name, "digest": digest} for name, digest in uses]
            await self._record("run.datasets_logged", row, {"datasets": datasets})

    async def _tie(self, row: Record, direction: str, models: Sequence[tuple[str, int]]) -> None:
        if not models:
            return
        known = await self._models.models([model_id for model_id, _ in models])
        for model_id, _ in models:
            if model_id not in known:
                raise LoggedModelNotFound.of(f"m-{model_id}")
        rows = [
            {"run_id": row.id, "model_id": model_id, "direction": direction, "step": step}
            for model_id, step in dict(models).items()
        ]
        if await self._inputs.add_models(rows):
            relation = "used" if direction == "input" else "produced"
            for model_id, _ in models:
                await self._work.link(
                    self._work.urn("run", row.id), relation, self._work.urn("logged-model", f"m-{model_id}")
                )
            named = [f"m-{model_id}" for model_id, _ in models]
            await self._record("run.models_logged", row, {"direction": direction, "models": named})

    async def _record(self, action: str, row: Record, what: Mapping[str, Any]) -> None:
        resource = self._work.urn("run", row.id)
        await self._work.audit(action, resource, after=what)
        await self._work.emit(action, resource, {"run_id": row.id, "experiment_id": row.experiment_id, **what})

    async def _held(self, run_id: str, experiment_id: str | None = None) -> Record:
        row = await self._runs.hold(run_id, experiment_id=experiment_id)
        if row is None:
            raise RunNotFound.of(run_id, experiment_id=experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.experiment_name)
        if row.deleted_at is not None or row.experiment_deleted_at is not None:
            raise RunDeleted.of(run_id)
        return row


def _columns(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
        "schema": dataset.schema,
        "profile": dataset.profile,
    }

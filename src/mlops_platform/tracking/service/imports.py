"""Use cases that bring an experiment in whole. Each may be said again; what is there with other content stays as it is.

A run comes in live and in one transaction with all but its points and files, which take the ways of all points and files.
Its end then says that all has come, and hides it if it was deleted where it came from.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mlops_platform.contracts.tracking_archives import (
    ArchivedExperiment,
    ArchivedModel,
    ExperimentImport,
    ExperimentImported,
    ImportAnswer,
    Imported,
    ImportFinish,
    ImportFinished,
    ImportOutcome,
    ModelsImport,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import Change, UnitOfWork
from mlops_platform.tracking.domain.archives import differences, digest_of, said
from mlops_platform.tracking.domain.artifacts import SCHEME
from mlops_platform.tracking.domain.runs import LARGEST_SKEW
from mlops_platform.tracking.errors import (
    ExperimentArchived,
    ExperimentDeleted,
    ExperimentNameTaken,
    ExperimentNotFound,
    ImportIdTaken,
)
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.imports import ImportRepository
from mlops_platform.tracking.service.archives import archived_experiment, archived_model
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.import_ends import finish_experiment, finish_models, finish_runs


class Imports:
    """The use cases of one transaction."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._imports = ImportRepository(work.session, work.principal)
        self._experiments = ExperimentRepository(work.session, work.principal)

    async def experiment(self, body: ExperimentImport) -> ExperimentImported:
        """Make the experiment, or find the one that it is."""
        given = _placed(body.experiment)
        name = body.name or given.name
        self._work.principal.require(EXPERIMENTS_WRITE, name)
        check_times(self._work, given.created_at, given.updated_at)
        known = await self._imports.imported_experiment(given.id, name)
        if known is not None:
            return await self._known(given, known.id, name)
        there = await self._imports.anywhere(given.id)
        if there is not None and there.purged_at is not None:
            raise ImportIdTaken.of(given.id)
        if there is not None and (body.name is None or there.name == name):
            return await self._known(given, there.id, name)
        return await self._made(given, name)

    async def models(self, experiment_id: str, body: ModelsImport) -> ImportAnswer:
        """Bring logged models in."""
        await self.open(experiment_id)
        for model in body.models:
            check_times(self._work, model.created_at, model.updated_at)
        answers = {it.id: await self._model(experiment_id, it) for it in sorted(body.models, key=lambda it: it.id)}
        made = [it.id for it in body.models if answers[it.id].outcome is ImportOutcome.CREATED]
        await self._record_models(experiment_id, made)
        return ImportAnswer(items=[answers[it.id] for it in body.models])

    async def finish(self, experiment_id: str, body: ImportFinish) -> ImportFinished:
        """Say what is complete, and do what its end has to do."""
        row = await self.open(experiment_id, ends=body.experiment)
        runs = await finish_runs(self._work, row, body.runs) if body.runs else 0
        models = await finish_models(self._work, row, body.models) if body.models else 0
        ended = await finish_experiment(self._work, row) if body.experiment else False
        return ImportFinished(runs=runs, models=models, experiment=ended)

    async def open(self, experiment_id: str, *, ends: bool = False) -> Record:
        """The experiment, which must be there, the caller's to write, and take runs. At its end it may have ended."""
        row = await (self._experiments.hold(experiment_id) if ends else self._experiments.experiment(experiment_id))
        if row is None:
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.name)
        if row.deleted_at is not None and not ends:
            raise ExperimentDeleted.of(experiment_id)
        if row.archived_at is not None and not ends:
            raise ExperimentArchived.of(experiment_id)
        return row

    async def _known(self, given: ArchivedExperiment, experiment_id: str, name: str) -> ExperimentImported:
        row = await self._experiments.experiment(experiment_id)
        if row is None:
            # It is there, and not for this caller.
            raise ExperimentNotFound.of(experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, row.name)
        mark = (await self._imports.imported("experiment", [experiment_id])).get(experiment_id)
        record = given.model_dump(mode="json")
        outcome, differs = ImportOutcome.UNCHANGED, []
        if mark is not None and mark.digest == digest_of(record):
            outcome = ImportOutcome.UNCHANGED if mark.finished_at else ImportOutcome.CREATED
        else:
            found = (await archived_experiment(self._imports, row)).model_dump(mode="json")
            # Its id, number and name may have become others on the way.
            differs = differences(said(record, given.model_fields_set - {"id", "number", "name"}), found)
            if differs:
                outcome = ImportOutcome.CONFLICT
        return ExperimentImported(id=experiment_id, outcome=outcome, differs=differs, name=row.name)

    async def _made(self, given: ArchivedExperiment, name: str) -> ExperimentImported:
        """Make it, with its id and number where they are free; or find who made it at the same moment."""
        number = given.number if given.number is not None and not await self._imports.has_number(given.number) else None
        values = {"name": name, **given.model_dump(include=_KEPT), "tags": dict(given.tags)}
        # An id that is taken and not found here is another project's, about which nothing is said.
        for experiment_id, its_number in ((given.id, number), (given.id, None), (new_id(), None)):
            if await self._imports.add_experiment({**values, "id": experiment_id, "number": its_number}):
                return await self._begun(given, name, experiment_id, its_number)
            known = await self._imports.imported_experiment(given.id, name)
            if known is not None:
                return await self._known(given, known.id, name)
            if await self._experiments.named_live(name):
                break
        raise ExperimentNameTaken(
            f"An experiment named {name!r} exists in this project, and it is not the one that is brought in.",
            hint="Import it under another name, or rename that one.",
        )

    async def _begun(
        self, given: ArchivedExperiment, name: str, experiment_id: str, number: int | None
    ) -> ExperimentImported:
        whose = {"experiment_id": experiment_id}
        await self._imports.add("goals", [{**it.model_dump(), "goal": it.goal.value, **whose} for it in given.goals])
        await self._imports.add("views", [{**it.model_dump(), **whose} for it in given.views])
        record = given.model_dump(mode="json")
        left = {field: record[field] for field in ("deleted_at", "archived_at", "baseline_run_id", "updated_at")}
        now = self._work.clock.now()
        await self._imports.mark(self.marked("experiment", experiment_id, given.id, record, left, now))
        resource = self._work.urn("experiment", experiment_id)
        facts = {"experiment_id": experiment_id, "name": name, "source_id": given.id}
        await self._work.audit("experiment.imported", resource, after=record, detail=facts)
        await self._work.emit("experiment.imported", resource, facts)
        left_out = ["number"] if given.number is not None and number is None else []
        outcome = ImportOutcome.CREATED
        return ExperimentImported(id=experiment_id, outcome=outcome, left_out=left_out, name=name)

    async def _model(self, experiment_id: str, given: ArchivedModel) -> Imported:
        record = given.model_dump(mode="json")
        values = given.model_dump(exclude={"metrics", "artifacts", "deleted_at"})
        values |= {"experiment_id": experiment_id, "status": given.status.value}
        if not await self._imports.add_model(values):
            return await self._model_again(experiment_id, given, record)
        now = self._work.clock.now()
        points = [{**it.model_dump(), "model_id": given.id} for it in given.metrics]
        await self._imports.add("model_metrics", points)
        left = {field: record[field] for field in ("deleted_at", "updated_at", "artifacts")}
        await self._imports.mark(self.marked("model", given.id, given.id, record, left, now))
        return Imported(id=given.id, outcome=ImportOutcome.CREATED)

    async def _model_again(self, experiment_id: str, given: ArchivedModel, record: Mapping[str, Any]) -> Imported:
        rows = [row for row in await self._imports.model_rows([given.id]) if row.experiment_id == experiment_id]
        if not rows:
            return Imported(id=given.id, outcome=ImportOutcome.CONFLICT, differs=["id"])
        mark = (await self._imports.imported("model", [given.id])).get(given.id)
        if mark is not None and mark.digest == digest_of(record):
            outcome = ImportOutcome.UNCHANGED if mark.finished_at else ImportOutcome.CREATED
            return Imported(id=given.id, outcome=outcome)
        metrics = await self._imports.model_metrics(given.id, limit=len(given.metrics) + 1)
        found = archived_model(rows[0], metrics).model_dump(mode="json")
        differs = differences(said(record, given.model_fields_set), found)
        outcome = ImportOutcome.CONFLICT if differs else ImportOutcome.UNCHANGED
        return Imported(id=given.id, outcome=outcome, differs=differs)

    async def _record_models(self, experiment_id: str, made: Sequence[str]) -> None:
        facts = {"experiment_id": experiment_id}
        urns = {model_id: self._work.urn("logged-model", f"m-{model_id}") for model_id in made}
        await self._work.audit_each("logged_model.imported", [Change(urn, detail=facts) for urn in urns.values()])
        told = [(urn, {**facts, "model_id": f"m-{model_id}"}) for model_id, urn in urns.items()]
        await self._work.emit_each("logged_model.imported", told)

    @staticmethod
    def marked(
        kind: str, target_id: str, source_id: str, record: Mapping[str, Any], left: Mapping[str, Any], now: datetime
    ) -> dict[str, Any]:
        """What is remembered of something that is brought in."""
        return {
            "kind": kind,
            "target_id": target_id,
            "source_id": source_id,
            "digest": digest_of(record),
            "left": dict(left),
            "begun_at": now,
            "finished_at": None,
        }


_KEPT = {
    "description", "artifact_location", "owner", "retention_days", "created_by", "created_at", "updated_at",
}  # fmt: skip


def _placed(given: ArchivedExperiment) -> ArchivedExperiment:
    """A place that this server would have given is none of its own: here the number may be another."""
    if given.artifact_location is None or not given.artifact_location.startswith(SCHEME):
        return given
    return given.model_copy(update={"artifact_location": None})


def check_times(work: UnitOfWork, *moments: datetime) -> None:
    """Nothing was made tomorrow."""
    for moment in moments:
        if moment - work.clock.now() > LARGEST_SKEW:
            raise InvalidInput.of("created_at", "lies in the future", moment.isoformat())

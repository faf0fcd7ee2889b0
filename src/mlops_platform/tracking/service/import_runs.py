"""The use case that brings runs in: many in one transaction, each with all that hangs on it."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mlops_platform.contracts.common import check_json
from mlops_platform.contracts.tracking_archives import (
    ArchivedDataset,
    ArchivedParam,
    ArchivedRun,
    ImportAnswer,
    Imported,
    ImportOutcome,
    RunsImport,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.events.outbox import LINEAGE_STATED
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import Change, UnitOfWork
from mlops_platform.tracking.domain.archives import differences, digest_of, said
from mlops_platform.tracking.domain.mentions import mentions
from mlops_platform.tracking.domain.params import Param, ParamKind
from mlops_platform.tracking.domain.runs import check_given_id
from mlops_platform.tracking.errors import ImportIdTaken
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.imports import ImportRepository
from mlops_platform.tracking.repository.inputs import InputRepository
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.archives import archived_runs
from mlops_platform.tracking.service.imports import Imports, check_times

_COLUMNS = {
    "id", "status_reason", "created_by", "start_time", "end_time", "created_at", "updated_at", "notes", "heartbeat_seconds",
}  # fmt: skip
Rows = dict[str, list[dict[str, Any]]]


class RunImports:
    """The use case, for runs of one experiment."""

    def __init__(self, work: UnitOfWork, experiment_id: str) -> None:
        self._work = work
        self._experiment_id = experiment_id
        self._imports = ImportRepository(work.session, work.principal)
        self._runs = RunRepository(work.session, work.principal)
        self._inputs = InputRepository(work.session, work.principal)
        self._models: set[str] = set()
        """Those logged models of the request that are there; ties to others are left out."""

    async def bring(self, body: RunsImport) -> ImportAnswer:
        """Bring runs in, those that are not there; say of the others whether they are the same."""
        await Imports(self._work).open(self._experiment_id)
        self._check(body)
        if not await self._imports.forget_purged([run.id for run in body.runs]):
            raise ImportIdTaken.of(self._experiment_id)
        parents = await self._known_parents(body.runs)
        datasets = await self._datasets(body)
        self._models = await self._known_models(body.runs)
        # One order, so that two imports of the same runs wait for each other and do not deadlock.
        answers: dict[str, Imported] = {}
        fresh: list[ArchivedRun] = []
        for run in sorted(body.runs, key=lambda it: it.id):
            parent = run.parent_run_id if run.parent_run_id in parents else None
            left_out = ["parent_run_id"] if parent != run.parent_run_id else []
            if await self._runs.add({**_values(run), "experiment_id": self._experiment_id, "parent_run_id": parent}):
                fresh.append(run)
                answers[run.id] = Imported(id=run.id, outcome=ImportOutcome.CREATED, left_out=left_out)
            else:
                answers[run.id] = await self._again(run, datasets, follow=body.follow)
        await self._hang(fresh, datasets)
        await self._mark(fresh)
        counts = [(self._experiment_id, run.id, run.status.value, 1) for run in fresh]
        await ExperimentRepository(self._work.session, self._work.principal).count_each(counts)
        await self._record("run.imported", fresh)
        return ImportAnswer(items=[answers[run.id] for run in body.runs])

    def _check(self, body: RunsImport) -> None:
        ids = [run.id for run in body.runs]
        if len(set(ids)) != len(ids):
            raise InvalidInput.of("runs", "holds one id twice", len(ids))
        given = {(it.name, it.digest) for it in body.datasets}
        for number, run in enumerate(body.runs):
            where = f"runs[{number}]"
            check_given_id(run.id, now=self._work.clock.now())
            check_times(self._work, run.created_at)
            if run.start_time and run.end_time and run.end_time < run.start_time:
                raise InvalidInput.of(f"{where}.end_time", "lies before start_time", run.end_time.isoformat())
            for param in run.params:
                _param(param, f"{where}.params")
            if len({param.key for param in run.params}) != len(run.params):
                raise InvalidInput.of(f"{where}.params", "holds one key twice", run.id)
            for used in run.inputs:
                if (used.name, used.digest) not in given:
                    raise InvalidInput.of(f"{where}.inputs", "names a dataset that is not among datasets", used.name[:100])

    async def _known_parents(self, given: Sequence[ArchivedRun]) -> set[str]:
        """A parent may come with its child; one that is not there, or not for the caller to see, is left out."""
        named = sorted({run.parent_run_id for run in given if run.parent_run_id is not None})
        there = await self._imports.known_runs(named)
        readable = {row.id for row in await self._runs.readable_runs(named)} if named else set()
        return ({run.id for run in given} - there) | readable

    async def _known_models(self, given: Sequence[ArchivedRun]) -> set[str]:
        ties = sorted({tie.model_id for run in given for tie in run.models})
        return {row.id for row in await self._imports.model_rows(ties)} if ties else set()

    async def _datasets(self, body: RunsImport) -> Mapping[tuple[str, str], str]:
        rows = {(it.name, it.digest): self._dataset(it) for it in body.datasets}
        return await self._inputs.ensure(list(rows.values())) if rows else {}

    def _dataset(self, given: ArchivedDataset) -> dict[str, Any]:
        fields = given.model_dump(exclude={"columns"})
        return {**fields, "schema": given.columns, "id": new_id(), "created_at": self._work.clock.now()}

    async def _again(self, run: ArchivedRun, datasets: Mapping[tuple[str, str], str], *, follow: bool) -> Imported:
        row = await self._runs.hold(run.id)
        if row is None:
            return Imported(id=run.id, outcome=ImportOutcome.CONFLICT, differs=["id"])
        if row.experiment_id != self._experiment_id:
            return Imported(id=run.id, outcome=ImportOutcome.CONFLICT, differs=["experiment_id"])
        record = run.model_dump(mode="json")
        mark = (await self._imports.hold_marks("run", [run.id])).get(run.id)
        if mark is not None and mark.digest == digest_of(record):
            outcome = ImportOutcome.UNCHANGED if mark.finished_at else ImportOutcome.CREATED
            return Imported(id=run.id, outcome=outcome)
        if follow and mark is not None and mark.finished_at is None:
            await self._follow(run, row, datasets)
            return Imported(id=run.id, outcome=ImportOutcome.CREATED)
        (found,) = await archived_runs(self._work.session, self._work.principal, [run.id])
        differs = differences(said(record, run.model_fields_set), found.model_dump(mode="json"))
        outcome = ImportOutcome.CONFLICT if differs else ImportOutcome.UNCHANGED
        return Imported(id=run.id, outcome=outcome, differs=differs)

    async def _follow(self, run: ArchivedRun, row: Record, datasets: Mapping[tuple[str, str], str]) -> None:
        """A run that had not ended where it comes from when it was brought in has gone on."""
        values = _values(run)
        for fixed in ("id", "created_by", "created_at"):
            values.pop(fixed)
        await self._runs.change(run.id, values)
        rows = self._rows(run, datasets)
        await self._imports.replace_tags(rows.pop("tags"))
        for table, given in rows.items():
            await self._imports.add(table, given)
        if row.status != run.status:
            moved = {row.status: -1, run.status.value: 1}
            experiments = ExperimentRepository(self._work.session, self._work.principal)
            await experiments.count(self._experiment_id, run.id, moved)
        await self._mark([run])
        await self._record("run.import_followed", [run])

    async def _hang(self, fresh: Sequence[ArchivedRun], datasets: Mapping[tuple[str, str], str]) -> None:
        gathered: Rows = {}
        for run in fresh:
            for table, rows in self._rows(run, datasets).items():
                gathered.setdefault(table, []).extend(rows)
        for table, rows in gathered.items():
            await self._imports.add(table, rows)

    def _rows(self, run: ArchivedRun, datasets: Mapping[tuple[str, str], str]) -> Rows:
        whose = {"run_id": run.id}
        its = {**whose, "experiment_id": self._experiment_id}
        principal = self._work.principal
        return {
            "params": [{**its, **_param(param, "params")} for param in run.params],
            "tags": [{**its, "key": key, "value": value} for key, value in run.tags.items()],
            "inputs": [
                {
                    **its,
                    "dataset_id": datasets[used.name, used.digest],
                    "context": used.context,
                    "tags": used.tags,
                    "created_at": used.logged_at,
                }
                for used in run.inputs
            ],
            "ties": [
                {**whose, "model_id": tie.model_id, "direction": tie.direction.value, "step": tie.step}
                for tie in run.models
                if tie.model_id in self._models
            ],
            # The author's name is kept. Whoever brings the comment in answers for it, and nobody else may edit it.
            "comments": [
                {**whose, **it.model_dump(), "author_id": principal.id, "mentions": mentions(it.text)}
                for it in run.comments
            ],
        }

    async def _mark(self, given: Sequence[ArchivedRun]) -> None:
        now = self._work.clock.now()
        for run in given:
            record = run.model_dump(mode="json")
            left = {field: record[field] for field in ("deleted_at", "updated_at", "points", "artifacts")}
            await self._imports.mark(Imports.marked("run", run.id, run.id, record, left, now))

    async def _record(self, action: str, given: Sequence[ArchivedRun]) -> None:
        urns = {run.id: self._work.urn("run", run.id) for run in given}
        facts = {"experiment_id": self._experiment_id}
        changes = [Change(urns[run.id], after=run.model_dump(mode="json"), detail=facts) for run in given]
        await self._work.audit_each(action, changes)
        told = [(urns[run.id], {**facts, "run_id": run.id, "status": run.status.value}) for run in given]
        await self._work.emit_each(action, told)
        edges = [edge for run in given for edge in self._edges(run, urns[run.id])]
        stated = [(run, {"subject": run, "relation": relation, "object": target}) for run, relation, target in edges]
        await self._work.emit_each(LINEAGE_STATED, stated)

    def _edges(self, run: ArchivedRun, urn: str) -> list[tuple[str, str, str]]:
        names = [f"{quote(it.name, safe='')[:200]}@{quote(it.digest)}" for it in run.inputs]
        relations = {"input": "used", "output": "produced"}
        return [(urn, "used", self._work.urn("dataset", name)) for name in names] + [
            (urn, relations[tie.direction.value], self._work.urn("logged-model", f"m-{tie.model_id}"))
            for tie in run.models
            if tie.model_id in self._models
        ]


def _values(run: ArchivedRun) -> dict[str, Any]:
    return {
        **run.model_dump(include=_COLUMNS),
        "name": run.run_name,
        "status": run.status.value,
        "user_name": run.user,
        "group_name": run.group,
    }


def _param(given: ArchivedParam, where: str) -> dict[str, Any]:
    """A parameter's row. Its text must be what its type says, or reading it would fail for ever."""
    kind, text, number = ParamKind(given.kind.value), given.text, None
    try:
        # What escapes in JSON spell was in no text that came in: a lone surrogate, NUL.
        value = check_json(Param(given.key, kind, text).value)
        if kind in {ParamKind.INT, ParamKind.FLOAT}:
            number = float(value)
        is_right = kind is not ParamKind.BOOL or text in {"true", "false"}
    except (ValueError, OverflowError, RecursionError):
        is_right = False
    if not is_right:
        raise InvalidInput.of(f"{where}.{given.key[:60]}", f"is no {kind.value}", text[:60])
    return {"key": given.key, "kind": kind.value, "text": text, "number": number}

"""How what is brought in is completed: checked against what was announced, and put where it was.

What somebody deleted, archived or compared with meanwhile stays so.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mlops_platform.contracts.tracking_archives import ImportEnd
from mlops_platform.core.db.session import Record
from mlops_platform.core.work.unit import Change, UnitOfWork
from mlops_platform.tracking.errors import ImportIncomplete
from mlops_platform.tracking.repository.artifacts import MODELS, RUNS, Shelf
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.imports import ImportRepository
from mlops_platform.tracking.repository.runs import RunRepository


async def finish_runs(work: UnitOfWork, experiment: Record, ends: Sequence[ImportEnd]) -> int:
    """Complete runs; how many of them were not before."""
    imports = ImportRepository(work.session, work.principal)
    runs = RunRepository(work.session, work.principal)
    ids = [end.id for end in ends]
    rows = {row.id: row for row in await runs.hold_each(ids) if row.experiment_id == experiment.id}
    marks = await _open_marks(imports, "run", ends, rows)
    await _state_times(imports, RUNS, ends, marks)
    ended = [end.id for end in ends if end.id in marks and not end.more]
    points = await imports.point_counts(experiment.id, ended)
    files = await imports.count_files(RUNS, ended)
    gone: list[tuple[str, str, str, int]] = []
    for run_id in ended:
        left = marks[run_id].left
        _check(f"run {run_id!r}", left, points=points.get(run_id, 0), artifacts=files.get(run_id, 0))
        put = _put(rows[run_id], left, "deleted_at")
        await runs.change(run_id, {**put, "updated_at": _time(left.get("updated_at"))})
        if put:
            gone.append((experiment.id, run_id, rows[run_id].status, -1))
    await ExperimentRepository(work.session, work.principal).count_each(gone)
    await imports.finished("run", ended, work.clock.now())
    await _record(work, "run.import_finished", "run", {run_id: {"run_id": run_id} for run_id in ended}, experiment.id)
    return len(ended)


async def finish_models(work: UnitOfWork, experiment: Record, ends: Sequence[ImportEnd]) -> int:
    """Complete logged models; how many of them were not before."""
    imports = ImportRepository(work.session, work.principal)
    rows = {row.id: row for row in await imports.model_rows([end.id for end in ends]) if row.experiment_id == experiment.id}
    marks = await _open_marks(imports, "model", ends, rows)
    await _state_times(imports, MODELS, ends, marks)
    ended = [end.id for end in ends if end.id in marks and not end.more]
    files = await imports.count_files(MODELS, ended)
    for model_id in ended:
        left = marks[model_id].left
        _check(f"logged model 'm-{model_id}'", left, artifacts=files.get(model_id, 0))
        values = {**_put(rows[model_id], left, "deleted_at"), "updated_at": _time(left.get("updated_at"))}
        await imports.change_model(model_id, values)
    await imports.finished("model", ended, work.clock.now())
    told = {f"m-{model_id}": {"model_id": f"m-{model_id}"} for model_id in ended}
    await _record(work, "logged_model.import_finished", "logged-model", told, experiment.id)
    return len(ended)


async def finish_experiment(work: UnitOfWork, row: Record) -> bool:
    """Put the experiment where it was: archived, deleted, with its baseline. False when it was finished before."""
    imports = ImportRepository(work.session, work.principal)
    mark = (await imports.hold_marks("experiment", [row.id])).get(row.id)
    if mark is None or mark.finished_at is not None:
        return False
    left = mark.left
    baseline = left.get("baseline_run_id") if row.baseline_run_id is None else None
    is_there = baseline is not None and await RunRepository(work.session, work.principal).run(
        baseline, experiment_id=row.id
    )
    values = {**_put(row, left, "deleted_at", "archived_at"), "updated_at": _time(left.get("updated_at"))}
    if is_there:
        values["baseline_run_id"] = baseline
    await ExperimentRepository(work.session, work.principal).change(row.id, values)
    await imports.finished("experiment", [row.id], work.clock.now())
    await _record(work, "experiment.import_finished", "experiment", {row.id: {}}, row.id)
    return True


async def _open_marks(
    imports: ImportRepository, kind: str, ends: Sequence[ImportEnd], rows: Mapping[str, Record]
) -> dict[str, Record]:
    """The imports that are to be completed; those that are complete already are left alone."""
    marks = await imports.hold_marks(kind, [end.id for end in ends])
    for end in ends:
        if end.id not in marks or end.id not in rows:
            raise ImportIncomplete(f"No {kind} with the id {end.id!r} is being brought into this experiment.")
    return {target: mark for target, mark in marks.items() if mark.finished_at is None}


async def _state_times(
    imports: ImportRepository, shelf: Shelf, ends: Sequence[ImportEnd], marks: Mapping[str, Record]
) -> None:
    for end in ends:
        if end.id in marks:
            missing = await imports.state_times(shelf, end.id, [file.model_dump() for file in end.artifacts])
            if missing:
                raise ImportIncomplete(
                    f"{end.id!r} has no file {missing[0]!r} of this content, and {len(missing) - 1} more are missing."
                )


def _check(what: str, left: Mapping[str, Any], **counted: int) -> None:
    for name, count in counted.items():
        wanted = left.get(name)
        if wanted is not None and wanted != count:
            raise ImportIncomplete(f"The {what} was announced with {wanted} {name}, and has {count}.")


def _put(row: Record, left: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """Those of these times that the archive gives and the row does not have yet."""
    return {field: _time(left[field]) for field in fields if left.get(field) and getattr(row, field) is None}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


async def _record(
    work: UnitOfWork, action: str, kind: str, told: Mapping[str, Mapping[str, Any]], experiment_id: str
) -> None:
    facts = [(work.urn(kind, name), {"experiment_id": experiment_id, **its}) for name, its in told.items()]
    await work.audit_each(action, [Change(urn, detail=its) for urn, its in facts])
    await work.emit_each(action, facts)

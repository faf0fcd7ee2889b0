"""An experiment archive as something to bring in."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlops_platform.contracts.tracking_archives import (
    ArchivedArtifact,
    ArchivedDataset,
    ArchivedExperiment,
    ArchivedModel,
    ArchivedRun,
)
from mlops_platform.sdk.archive import layout
from mlops_platform.sdk.archive.layout import ArchiveError
from mlops_platform.sdk.archive.reader import ArchiveFile
from mlops_platform.sdk.archive.rows import POINTS_AT_ONCE, Rows
from mlops_platform.sdk.files import BadPath, landing
from mlops_platform.sdk.transfer import Record, Source, SourceFile, SourceModel, SourceRun

_HANGING = ("params", "tags", "inputs", "comments", "run_models")


class ArchiveSource(Source):
    """Reads an archive. `check` reads all of it first, and refuses what is damaged or cannot be."""

    def __init__(self, path: Path) -> None:
        self._file = ArchiveFile(path)
        self._datasets: dict[tuple[str, str], Record] = {}
        self._cursors: dict[str, _Cursor] = {}

    def check(self) -> None:
        """Everything that can be known before anything is sent."""
        self._file.verify()
        _validated(ArchivedExperiment, self.experiment())
        for dataset in self._file.table("datasets"):
            _validated(ArchivedDataset, dataset)
            self._datasets[dataset["name"], dataset["digest"]] = dataset
        points = self._counted("points", "run_id")
        files = self._counted("artifacts", "owner_id")
        self._check_artifacts()
        for model in self.models():
            _validated(ArchivedModel, model.record)
            _same(
                f"The logged model {model.record['id']}",
                "files",
                model.record["artifacts"],
                files.pop(model.record["id"], 0),
            )
        for run in self.runs():
            _validated(ArchivedRun, run.record)
            what = f"The run {run.record['id']}"
            _same(what, "points", run.record["points"], points.pop(run.record["id"], 0))
            _same(what, "files", run.record["artifacts"], files.pop(run.record["id"], 0))
        for cursor in self._cursors.values():
            cursor.end()
        self._cursors.clear()
        if points or files:
            raise ArchiveError(f"The archive has points or files of {next(iter({**points, **files}))}, which is not in it.")

    def experiment(self) -> Record:
        found: Any = self._file.json(layout.EXPERIMENT)
        if not isinstance(found, dict):
            raise ArchiveError(f"{layout.EXPERIMENT} holds no experiment.")
        return found

    def aim(self, experiment_id: str) -> None:
        # Everything in an archive has its id.
        return

    def models(self) -> Iterator[SourceModel]:
        metrics = self._cursor("model_metrics", "model_id")
        for row in self._rows("models", "id"):
            texts = {"params": _read(row["params"]), "tags": _read(row["tags"])}
            yield SourceModel(
                _times({**row, **texts, "metrics": [_times(_without(it, "model_id")) for it in metrics.take(row["id"])]})
            )

    def runs(self) -> Iterator[SourceRun]:
        hanging = {table: self._cursor(table, "run_id") for table in _HANGING}
        for row in self._rows("runs", "id"):
            its = {table: cursor.take(row["id"]) for table, cursor in hanging.items()}
            inputs = [{**_without(it, "run_id"), "tags": _read(it["tags"])} for it in its["inputs"]]
            run = {
                **row,
                "params": [_without(it, "run_id", "number") for it in its["params"]],
                "tags": {it["key"]: it["value"] for it in its["tags"]},
                "inputs": [_times(it) for it in inputs],
                "comments": [_times(_without(it, "run_id")) for it in its["comments"]],
                "models": [_without(it, "run_id") for it in its["run_models"]],
            }
            try:
                datasets = [self._datasets[it["name"], it["digest"]] for it in inputs]
            except KeyError as error:
                raise ArchiveError(f"The run {row['id']} names a dataset that is not in the archive.") from error
            yield SourceRun(_times(run), datasets)

    def points(self, run_ids: Sequence[str]) -> Iterator[Record]:
        cursor = self._cursor("points", "run_id", make=_PointCursor)
        yield from cursor.columns(set(run_ids), max(run_ids))

    def files(self, owner_ids: Sequence[str], *, of_models: bool = False) -> Iterator[SourceFile]:
        cursor = self._cursor("model artifacts" if of_models else "run artifacts", "owner_id")
        for owner in owner_ids:
            for row in cursor.take(owner, skip=True):
                yield SourceFile(
                    owner_id=row["owner_id"],
                    path=row["path"],
                    content_type=row["content_type"],
                    created_at=_text(row["created_at"]),
                    open=_opening(self._file, f"blobs/{row['sha256']}"),
                    size=row["size"],
                    sha256=row["sha256"],
                )

    def _rows(self, table: str, column: str) -> Iterator[Mapping[str, Any]]:
        last = ""
        for row in self._file.table(table):
            if row[column] <= last:
                raise ArchiveError(f"{table}.parquet is not in the order of {column}.")
            last = row[column]
            yield row

    def _cursor(self, table: str, column: str, *, make: "Callable[..., Any] | None" = None) -> Any:
        if table not in self._cursors:
            kind, _, name = table.rpartition(" ")
            rows = self._file.table(name)
            chosen = (row for row in rows if not kind or row["owner"] == kind) if make is None else rows
            self._cursors[table] = (make or _Cursor)(name, column, chosen)
        return self._cursors[table]

    def _counted(self, table: str, column: str) -> dict[str, int]:
        found: dict[str, int] = {}
        last = ""
        for batch in self._file.table(table).batches(POINTS_AT_ONCE):
            for owner, rows in groupby(_texts(batch.column(column))):
                if table == "points" and owner < last:
                    raise ArchiveError(f"{table}.parquet is not in the order of {column}.")
                last = owner
                found[owner] = found.get(owner, 0) + sum(1 for _ in rows)
        return found

    def _check_artifacts(self) -> None:
        wanted = set()
        for row in self._file.table("artifacts"):
            _validated(ArchivedArtifact, row)
            name = f"blobs/{row['sha256']}"
            promised = self._file.members.get(name)
            if row["owner"] not in {"run", "model"} or promised is None or promised["size"] != row["size"]:
                raise ArchiveError(f"The file {row['path'][:200]!r} of {row['owner_id']} has no content in the archive.")
            try:
                landing(Path(), row["path"])
            except BadPath as error:
                raise ArchiveError(f"The archive names a file {row['path'][:200]!r}, which is no path.") from error
            wanted.add(name)
        if spare := {name for name in self._file.members if name.startswith("blobs/")} - wanted:
            raise ArchiveError(f"The archive holds {min(spare)}, which no file is made of.")


class _Cursor:
    """Rows that come in the order of their owners, taken owner by owner."""

    def __init__(self, name: str, column: str, rows: Any) -> None:
        self._name = name
        self._column = column
        self._groups = groupby(rows, key=lambda row: str(row[column]))
        self._owner: str | None = None
        self._group: Iterator[Mapping[str, Any]] = iter(())
        self._is_done = False

    def take(self, owner: str, *, skip: bool = False) -> list[Mapping[str, Any]]:
        """The rows of one owner. Those of owners before it, which nobody asked for, are left out only with `skip`."""
        self._advance()
        while not self._is_done and self._owner is not None and self._owner < owner:
            if not skip:
                raise ArchiveError(
                    f"{self._name}.parquet has rows of {self._owner}, which is not there or not in its place."
                )
            self._owner = None
            self._advance()
        if self._owner != owner:
            return []
        self._owner = None
        return list(self._group)

    def end(self) -> None:
        """There must be nothing more."""
        self._advance()
        if self._owner is not None:
            raise ArchiveError(f"{self._name}.parquet has rows of {self._owner}, which is not there or not in its place.")

    def _advance(self) -> None:
        if self._owner is None and not self._is_done:
            try:
                self._owner, self._group = next(self._groups)
            except StopIteration:
                self._is_done = True


class _PointCursor:
    """Points in the order of their runs, in columns."""

    def __init__(self, name: str, column: str, rows: Rows) -> None:
        self._batches = rows.batches(POINTS_AT_ONCE)
        self._held: Any = None

    def columns(self, wanted: set[str], last: str) -> Iterator[Record]:
        """The points of those runs that are wanted; what comes after the last of them is kept."""
        while (batch := self._next()) is not None:
            runs = _texts(batch.column("run_id"))
            end = next((place for place, run in enumerate(runs) if run > last), len(runs))
            if end < len(runs):
                self._held = batch.slice(end)
            chosen = [place for place in range(end) if runs[place] in wanted]
            if chosen:
                yield _columns(batch, chosen, runs)
            if end < len(runs):
                return

    def end(self) -> None:
        """What is left is counted elsewhere."""

    def _next(self) -> Any:
        held, self._held = self._held, None
        return held if held is not None else next(self._batches, None)


def _columns(batch: Any, chosen: list[int], runs: list[str]) -> Record:
    if len(chosen) < len(runs):
        batch, runs = batch.take(chosen), [runs[at] for at in chosen]
    keys = zip(_texts(batch.column("key")), _texts(batch.column("context")), strict=True)
    times = batch.column("time").cast("int64").to_pylist()
    steps, values, arrived = (batch.column(name).to_pylist() for name in ("step", "value", "arrived"))
    run_places: dict[str, int] = {}
    key_places: dict[tuple[str, str], int] = {}
    made: dict[str, list[Any]] = {
        "run": [run_places.setdefault(run, len(run_places)) for run in runs],
        "key": [key_places.setdefault(key, len(key_places)) for key in keys],
        "step": steps,
        "time_us": times,
        "value": values,
        "arrived": arrived,
    }
    named = [{"name": name, "context": _read(context) if context else {}} for name, context in key_places]
    return {**made, "run_ids": list(run_places), "keys": named}


def _texts(column: Any) -> list[str]:
    """The texts of a column; of a dictionary each is made once, however often it stands there."""
    if not hasattr(column, "dictionary"):
        return list(column.to_pylist())
    words = column.dictionary.to_pylist()
    return [words[place] for place in column.indices.to_pylist()]


def _opening(file: ArchiveFile, name: str) -> Callable[[], Any]:
    return lambda: file.open(name)


def _validated(kind: Any, record: Mapping[str, Any]) -> None:
    try:
        kind.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArchiveError(f"The archive holds a record that cannot be: {where}: {first['msg']}.") from error


def _same(what: str, name: str, said: int, found: int) -> None:
    if said != found:
        raise ArchiveError(f"{what} says that it has {said} {name}, and the archive has {found}.")


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"A text of the archive should be JSON and is not: {text[:60]!r}.") from error


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _times(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _text(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

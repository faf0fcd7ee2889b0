"""MLflow's SQLite database (`mlflow.db`), opened to be read only, with the folder in which its files lie."""

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from mlops_platform.sdk.errors import MlopsError
from mlops_platform.sdk.mlflow.places import opened, plain_files
from mlops_platform.sdk.mlflow.store import Fields, MlflowStore, Point, StoredFile

_HEAD = b"SQLite format 3\0"
_LOCAL = {"", "file"}


class NotADatabase(MlopsError):
    """A file is not the SQLite database of an MLflow server."""


class DatabaseStore(MlflowStore):
    """A database file. Files are read below `artifacts` alone, wherever the database says that they are.

    Without it they are read below `mlruns` and `mlartifacts` beside the database.
    """

    def __init__(self, path: Path, artifacts: Path | None) -> None:
        super().__init__()
        self._path = path.resolve()
        self._artifacts = artifacts.resolve() if artifacts is not None else None
        with opened(self._path) as file:
            if file.read(len(_HEAD)) != _HEAD:
                raise NotADatabase(f"{path} is no SQLite database.")
        list(self._ask("SELECT run_uuid, deleted_time, lifecycle_stage FROM runs LIMIT 1"))

    def experiments(self) -> Iterator[Fields]:
        for row in self._ask("SELECT * FROM experiments ORDER BY experiment_id"):
            tags = self._pairs("experiment_tags", "key, value", "experiment_id", row["experiment_id"])
            yield {**row, "tags": tags}

    def runs(self, experiment_id: str) -> Iterator[Fields]:
        columns = "run_uuid, name, user_id, status, start_time, end_time, deleted_time, lifecycle_stage, artifact_uri"
        order = "ORDER BY start_time, run_uuid"
        for row in self._ask(f"SELECT {columns} FROM runs WHERE experiment_id = ? {order}", int(experiment_id)):  # noqa: S608
            run_id = row["run_uuid"]
            keys = self._ask("SELECT DISTINCT key FROM metrics WHERE run_uuid = ? ORDER BY key", run_id)
            yield {
                "info": {**row, "run_id": run_id, "run_name": row["name"]},
                "data": {
                    "params": self._pairs("params", "key, value", "run_uuid", run_id),
                    "tags": self._pairs("tags", "key, value", "run_uuid", run_id),
                    "metrics": {it["key"]: "" for it in keys},
                },
                "inputs": {"dataset_inputs": self._datasets(run_id), "model_inputs": self._ties(run_id, "INPUT")},
                "outputs": {"model_outputs": self._ties(run_id, "OUTPUT")},
            }

    def history(self, run: Fields, key: str) -> Iterator[Point]:
        statement = (
            "SELECT timestamp, step, value, is_nan FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp"
        )
        for row in self._ask(statement, run["info"]["run_id"], key):
            yield row["timestamp"], row["step"], math.nan if row["is_nan"] else row["value"]

    def models(self, experiment_id: str) -> Iterator[Fields]:
        if not self._ask_all("SELECT name FROM sqlite_master WHERE name = 'logged_models'"):
            return
        statement = "SELECT * FROM logged_models WHERE experiment_id = ? ORDER BY creation_timestamp_ms, model_id"
        for row in self._ask(statement, int(experiment_id)):
            params = self._pairs("logged_model_params", "param_key, param_value", "model_id", row["model_id"])
            tags = self._pairs("logged_model_tags", "tag_key, tag_value", "model_id", row["model_id"])
            yield {
                "info": {**row, "tags": tags},
                "data": {"params": params, "metrics": self._model_metrics(row["model_id"])},
            }

    def started(self, experiment_id: str, run_id: str) -> int | None:
        statement = "SELECT start_time FROM runs WHERE run_uuid = ? AND experiment_id = ?"
        found = self._ask_all(statement, run_id, int(experiment_id))
        return int(found[0]["start_time"] or 0) if found else None

    def files(self, run: Fields) -> Iterator[StoredFile]:
        yield from self._files(str(run["info"].get("artifact_uri") or ""), f"run {run['info']['run_id']}")

    def model_files(self, model: Fields) -> Iterator[StoredFile]:
        info = model["info"]
        yield from self._files(str(info.get("artifact_location") or ""), f"model {info['model_id']}")

    def close(self) -> None:
        # Nothing stays open between two questions.
        return

    def _files(self, uri: str, what: str) -> Iterator[StoredFile]:
        folder = self._folder(uri)
        if folder is None:
            is_local = urlsplit(uri).scheme in {*_LOCAL, "mlflow-artifacts"}
            hint = " (--artifacts names their folder)" if is_local and self._artifacts is None else ""
            self.left_out.append(f"{what}: its files, which lie at {uri[:200]!r}{hint}")
            return
        for path, place in plain_files(folder, self.left_out, what=what):
            yield StoredFile(path, _opening(place))

    def _folder(self, uri: str) -> Path | None:
        """Where files lie, as far as that is below the folder that was given, or below MLflow's usual ones."""
        parts = urlsplit(uri)
        path = unquote(parts.path)
        beside = self._path.parent
        if parts.scheme == "mlflow-artifacts":
            roots = [self._artifacts or beside / "mlartifacts"]
            found = roots[0] / path.lstrip("/")
        elif parts.scheme in _LOCAL:
            # Never the database's own folder: that may be somebody's home.
            roots = [self._artifacts] if self._artifacts else [beside / "mlruns", beside / "mlartifacts"]
            found = beside / path
        else:
            return None
        # Resolved, as the roots are: neither dots nor a link on the way lead out of them.
        place = found.resolve()
        return place if any(place.is_relative_to(root) and not root.is_symlink() for root in roots) else None

    def _model_metrics(self, model_id: str) -> list[Fields]:
        statement = (
            "SELECT metric_name AS key, metric_timestamp_ms AS timestamp, metric_step AS step, metric_value AS value,"
            " run_id, dataset_name, dataset_digest FROM logged_model_metrics WHERE model_id = ?"
        )
        return self._ask_all(statement, model_id)

    def _datasets(self, run_id: str) -> list[Fields]:
        statement = (
            "SELECT d.*, i.input_uuid FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
            " WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = ?"
            " ORDER BY d.name, d.digest"
        )
        return [
            {
                "dataset": {
                    "name": row["name"],
                    "digest": row["digest"],
                    "source_type": row["dataset_source_type"],
                    "source": row["dataset_source"],
                    "schema": row["dataset_schema"],
                    "profile": row["dataset_profile"],
                },
                "tags": self._pairs("input_tags", "name, value", "input_uuid", row["input_uuid"]),
            }
            for row in self._ask(statement, run_id)
        ]

    def _ties(self, run_id: str, kind: str) -> list[Fields]:
        statement = (
            "SELECT destination_id AS model_id, step FROM inputs"
            " WHERE source_type = ? AND source_id = ? AND destination_type = ? ORDER BY destination_id"
        )
        try:
            return self._ask_all(statement, f"RUN_{kind}", run_id, f"MODEL_{kind}")
        except NotADatabase:
            # A database of before 3.0 has no steps, and no models.
            return []

    def _pairs(self, table: str, columns: str, owner: str, value: Any) -> list[Fields]:
        key, text = columns.split(", ")
        rows = self._ask(f"SELECT {key} AS key, {text} AS value FROM {table} WHERE {owner} = ? ORDER BY 1", value)  # noqa: S608
        return list(rows)

    def _ask_all(self, statement: str, *values: Any) -> list[Fields]:
        return list(self._ask(statement, *values))

    def _ask(self, statement: str, *values: Any) -> Iterator[Fields]:
        """Rows by name. A connection for each: they are asked for from several threads."""
        return _rows(self._path, statement, values)


def _rows(path: Path, statement: str, values: Sequence[Any]) -> Iterator[Fields]:
    try:
        made = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)
        with closing(made) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(statement, values):
                yield dict(row)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise NotADatabase(f"{path} is not the database of an MLflow server: {error}") from error


def _opening(place: Path) -> Callable[[], Any]:
    return lambda: opened(place)

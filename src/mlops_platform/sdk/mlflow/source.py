"""From MLflow's words to ours."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.contracts.tracking_archives import MAX_MODEL_METRICS
from mlops_platform.sdk.content import content_type_of
from mlops_platform.sdk.mlflow.store import Fields, MlflowStore, Point, StoredFile
from mlops_platform.sdk.transfer import Record, Source, SourceFile, SourceModel, SourceRun

ORIGIN = "mlops.imported.run_id"
"""The tag that keeps the id that a run had in MLflow."""
POINTS_AT_ONCE = 10_000
MAX_PARAM = 16_384
MAX_TAG = 100_000
LATEST_MS = 253_402_300_799_999
_PARENT, _NAME, _NOTE, _CONTEXT = "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content", "mlflow.data.context"
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", re.ASCII)
_FINAL = {"FINISHED", "FAILED", "KILLED"}
_RUN_STATUS = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
_MODEL_STATUS = {
    "LOGGED_MODEL_PENDING": "PENDING", "LOGGED_MODEL_READY": "READY", "LOGGED_MODEL_UPLOAD_FAILED": "UPLOAD_FAILED",
    "1": "PENDING", "2": "READY", "3": "UPLOAD_FAILED", "FAILED": "UPLOAD_FAILED",
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MlflowSource(Source):
    """One experiment of a store. Ids are made of MLflow's, so that the same run has the same id each time."""

    follows = True

    def __init__(self, store: MlflowStore, experiment: Fields) -> None:
        self._store = store
        self._experiment = experiment
        self._id = str(experiment["experiment_id"])
        self._salt = ""
        self._run_ids: dict[str, str | None] = {}
        self._model_ids: dict[str, str] = {}
        self._read_runs: dict[str, Fields] = {}
        self._read_models: dict[str, Fields] = {}
        self._left_out: list[str] = []

    def experiment(self) -> Record:
        fields = self._experiment
        created = _ms(fields.get("creation_time"))
        updated = _ms(fields.get("last_update_time"), created)
        tags = self._tags(fields.get("tags"), f"experiment {self._id}")
        return {
            "id": made_id(created, "experiment", self._id, str(created)),
            "name": str(fields["name"])[:500] or f"mlflow-{self._id}",
            "description": tags.pop(_NOTE, None),
            "tags": {**tags, "mlops.imported.experiment_id": self._id},
            "created_by": "mlflow",
            "created_at": _time(created),
            "updated_at": _time(max(created, updated)),
            "deleted_at": _time(max(created, updated)) if fields.get("lifecycle_stage") == "deleted" else None,
        }

    def aim(self, experiment_id: str) -> None:
        self._salt = experiment_id

    def models(self) -> Iterator[SourceModel]:
        for model in self._store.models(self._id):
            record = self._model(model)
            self._read_models[record["id"]] = model
            yield SourceModel(record, has_ended=record["status"] != "PENDING")

    def runs(self) -> Iterator[SourceRun]:
        for run in self._store.runs(self._id):
            # Those before were sent, and nobody asks for their points again.
            if len(self._read_runs) > 2000:
                self._read_runs = dict(list(self._read_runs.items())[-1000:])
            made = self._run(run)
            self._read_runs[made.record["id"]] = run
            yield made

    def points(self, run_ids: Sequence[str]) -> Iterator[Record]:
        gathered = _Columns()
        for run_id in run_ids:
            run = self._read_runs[run_id]
            for key in self._metric_keys(run):
                for point in self._store.history(run, key):
                    if not self._is_point(point, key, run):
                        continue
                    gathered.add(run_id, key, point)
                    if len(gathered) >= POINTS_AT_ONCE:
                        yield gathered.take()
        if len(gathered):
            yield gathered.take()

    def files(self, owner_ids: Sequence[str], *, of_models: bool = False) -> Iterator[SourceFile]:
        for owner in owner_ids:
            fields = self._read_models[owner] if of_models else self._read_runs[owner]
            found = self._store.model_files(fields) if of_models else self._store.files(fields)
            info = fields["info"]
            moment = _time(_ms(info.get("creation_timestamp_ms" if of_models else "start_time"), self._made()))
            for file in found:
                if _is_path(file.path):
                    yield _source_file(owner, file, moment)
                else:
                    self._left_out.append(f"{owner}: the file {file.path[:200]!r}, whose name cannot be kept")

    def left_out(self) -> Sequence[str]:
        return [*self._left_out, *self._store.left_out]

    def _made(self) -> int:
        return _ms(self._experiment.get("creation_time"))

    def _run(self, run: Fields) -> SourceRun:
        info, data = run["info"], run.get("data") or {}
        source_id = str(info.get("run_id") or info.get("run_uuid"))
        started = _ms(info.get("start_time"), self._made())
        run_id = made_id(started, "run", self._salt, source_id)
        tags = self._tags(data.get("tags"), f"run {source_id}")
        name = str(info.get("run_name") or tags.get(_NAME) or f"run-{source_id[:8]}")[:500]
        tags.pop(_NAME, None)
        notes, parent = tags.pop(_NOTE, None), self._run_id(tags.get(_PARENT))
        if parent is not None:
            tags.pop(_PARENT)
        status = _RUN_STATUS.get(str(info.get("status")), str(info.get("status")))
        status = status if status in set(RunStatus) else "FAILED"
        ended = self._ended(info, started, source_id) if status in _FINAL else None
        inputs, datasets = self._inputs(run, started)
        user = str(info.get("user_id") or "")[:250] or None
        record = {
            "id": run_id,
            "run_name": name if name.strip() else f"run-{source_id[:8]}",
            "status": status,
            "user": user,
            "created_by": user or "mlflow",
            "start_time": _time(started),
            "end_time": None if ended is None else _time(ended),
            "created_at": _time(started),
            "updated_at": _time(max(started, ended or started)),
            "deleted_at": self._deleted(info, max(started, ended or started)),
            "parent_run_id": parent,
            "notes": notes,
            "params": self._params(data.get("params"), source_id),
            "tags": {**tags, ORIGIN: source_id},
            "inputs": inputs,
            "models": self._ties(run),
        }
        self._run_ids[source_id] = run_id
        return SourceRun(record, datasets, has_ended=status in _FINAL)

    def _run_id(self, source_id: Any) -> str | None:
        """Our id of a run of the experiment."""
        if not source_id:
            return None
        if source_id not in self._run_ids:
            started = self._store.started(self._id, str(source_id))
            made = None if started is None else made_id(_ms(started, self._made()), "run", self._salt, str(source_id))
            self._run_ids[source_id] = made
        return self._run_ids[source_id]

    def _ended(self, info: Fields, started: int, source_id: str) -> int | None:
        ended = _ms(info.get("end_time"), -1)
        if 0 <= ended < started:
            self._left_out.append(f"run {source_id}: its end, which lies before its start")
        return max(ended, started) if ended >= 0 else None

    @staticmethod
    def _deleted(info: Fields, otherwise: int) -> str | None:
        if str(info.get("lifecycle_stage") or "active") == "active":
            return None
        return _time(_ms(info.get("deleted_time"), otherwise))

    def _params(self, given: Any, source_id: str) -> list[dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for key, value in _pairs(given):
            if not _is_key(key) or len(value) > MAX_PARAM or not _is_text(value):
                self._left_out.append(f"run {source_id}: the parameter {key[:100]!r}, which cannot be kept")
            else:
                found[key] = {"key": key, "kind": _kind(value), "text": value}
        return list(found.values())

    def _tags(self, given: Any, what: str) -> dict[str, str]:
        found = {}
        for key, value in _pairs(given):
            if not _is_key(key) or len(value) > MAX_TAG or not _is_text(value):
                self._left_out.append(f"{what}: the tag {key[:100]!r}, which cannot be kept")
            else:
                found[key] = value
        return found

    def _inputs(self, run: Fields, started: int) -> tuple[list[Record], list[Record]]:
        inputs: dict[tuple[str, str], Record] = {}
        datasets: dict[tuple[str, str], Record] = {}
        for used in (run.get("inputs") or {}).get("dataset_inputs") or ():
            dataset = used.get("dataset") or {}
            name, digest = str(dataset.get("name") or ""), str(dataset.get("digest") or "")
            if not name or not digest:
                self._left_out.append(f"run {run['info'].get('run_id')}: a dataset without name or digest")
                continue
            tags = dict(_pairs(used.get("tags")))
            moment = _time(started)
            inputs.setdefault(
                (name, digest),
                {"name": name, "digest": digest, "context": tags.pop(_CONTEXT, None), "tags": tags, "logged_at": moment},
            )
            datasets[name, digest] = {
                "name": name,
                "digest": digest,
                "source_type": str(dataset.get("source_type") or ""),
                "source": str(dataset.get("source") or ""),
                "columns": dataset.get("schema"),
                "profile": dataset.get("profile"),
            }
        return list(inputs.values()), list(datasets.values())

    def _ties(self, run: Fields) -> list[Record]:
        ties: list[Record] = []
        for direction, part, name in (("input", "inputs", "model_inputs"), ("output", "outputs", "model_outputs")):
            for tie in (run.get(part) or {}).get(name) or ():
                model_id = self._model_ids.get(str(tie.get("model_id")))
                if model_id is not None:
                    ties.append({"model_id": model_id, "direction": direction, "step": int(tie.get("step") or 0)})
        return ties

    def _model(self, model: Fields) -> dict[str, Any]:
        info, data = model["info"], model.get("data") or {}
        source_id = str(info["model_id"])
        created = _ms(info.get("creation_timestamp_ms"), self._made())
        updated = max(created, _ms(info.get("last_updated_timestamp_ms"), created))
        model_id = made_id(created, "model", self._salt, source_id)
        self._model_ids[source_id] = model_id
        return {
            "id": model_id,
            "name": str(info.get("name") or source_id)[:500],
            "status": _MODEL_STATUS.get(str(info.get("status")), "PENDING"),
            "model_type": info.get("model_type") or None,
            "source_run_id": self._run_id(info.get("source_run_id")),
            "metrics": self._model_metrics(data.get("metrics"), source_id),
            "params": dict(_pairs(data.get("params"))),
            "tags": {**dict(_pairs(info.get("tags"))), "mlops.imported.model_id": source_id},
            "created_by": "mlflow",
            "created_at": _time(created),
            "updated_at": _time(updated),
            "deleted_at": _time(updated) if info.get("lifecycle_stage") == "deleted" else None,
        }

    def _model_metrics(self, given: Any, source_id: str) -> list[Record]:
        found: dict[tuple[Any, ...], Record] = {}
        for it in given or ():
            run_id, key = self._run_id(it.get("run_id")), str(it.get("key"))
            if run_id is None or not _is_key(key) or it.get("value") is None:
                self._left_out.append(f"model {source_id}: a point of {key[:100]!r}")
                continue
            point = {
                "run_id": run_id,
                "key": key,
                "step": int(it.get("step") or 0),
                "timestamp": _time(_ms(it.get("timestamp"))),
                "value": float(it["value"]),
                "dataset_name": it.get("dataset_name") or None,
                "dataset_digest": it.get("dataset_digest") or None,
            }
            found[tuple(point.values())[:5]] = point
        if len(found) > MAX_MODEL_METRICS:
            self._left_out.append(f"model {source_id}: {len(found) - MAX_MODEL_METRICS} points")
        return list(found.values())[:MAX_MODEL_METRICS]

    def _metric_keys(self, run: Fields) -> list[str]:
        keys = [key for key, _ in _pairs((run.get("data") or {}).get("metrics"))]
        for key in keys:
            if not _is_key(key):
                self._left_out.append(f"run {run['info'].get('run_id')}: the metric {key[:100]!r}, which cannot be kept")
        return [key for key in dict.fromkeys(keys) if _is_key(key)]

    def _is_point(self, point: Point, key: str, run: Fields) -> bool:
        is_right = 0 <= point[0] <= LATEST_MS and -(2**63) <= point[1] < 2**63
        if not is_right:
            self._left_out.append(f"run {run['info'].get('run_id')}: a point of {key!r} at {point[0]} ms, step {point[1]}")
        return is_right


class _Columns:
    """Points on their way, as columns."""

    def __init__(self) -> None:
        self._runs: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._columns: dict[str, list[Any]] = {name: [] for name in ("run", "key", "step", "time_us", "value")}

    def __len__(self) -> int:
        return len(self._columns["run"])

    def add(self, run_id: str, key: str, point: Point) -> None:
        moment, step, value = point
        self._columns["run"].append(self._runs.setdefault(run_id, len(self._runs)))
        self._columns["key"].append(self._keys.setdefault(key, len(self._keys)))
        self._columns["step"].append(step)
        self._columns["time_us"].append(moment * 1000)
        self._columns["value"].append(value)

    def take(self) -> Record:
        taken = {
            **self._columns,
            "arrived": [False] * len(self),
            "run_ids": list(self._runs),
            "keys": [{"name": key} for key in self._keys],
        }
        self._runs, self._keys = {}, {}
        self._columns = {name: [] for name in self._columns}
        return taken


def made_id(milliseconds: int, *parts: str) -> str:
    """A UUIDv7 of a time whose chance is the digest of what it is made from: always the same.

    >>> made_id(1_790_000_000_000, "run", "a", "b") == made_id(1_790_000_000_000, "run", "a", "b")
    True
    """
    chance = int.from_bytes(hashlib.sha256("\0".join(("mlflow", *parts)).encode()).digest()[:10], "big")
    now = int((datetime.now(UTC) - _EPOCH).total_seconds() * 1000)
    # What says that it was made tomorrow would stand above all others for ever.
    moment = min(milliseconds, now)
    value = (moment & (2**48 - 1)) << 80 | 0x7 << 76 | (chance >> 68) << 64 | 0b10 << 62 | (chance & (2**62 - 1))
    return f"{value:032x}"


def _source_file(owner: str, file: StoredFile, moment: str) -> SourceFile:
    return SourceFile(owner, file.path, content_type_of(file.path), moment, file.open, size=file.size)


def _pairs(given: Any) -> list[tuple[str, str]]:
    """Keys and values, however they are written: a list of objects, or an object."""
    if isinstance(given, Mapping):
        return [(str(key), _string(value)) for key, value in given.items()]
    return [(str(it.get("key")), _string(it.get("value"))) for it in given or () if isinstance(it, Mapping)]


def _string(value: Any) -> str:
    return "" if value is None else str(value)


def _is_key(key: str) -> bool:
    return 0 < len(key) <= 250 and key.isprintable() and _is_text(key)


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _is_path(path: str) -> bool:
    parts = path.split("/")
    is_odd = "\\" in path or any(part in {"", ".", ".."} for part in parts) or len(path.encode(errors="replace")) > 1024
    return not is_odd and _is_text(path) and not any(ord(char) < 32 or ord(char) == 127 for char in path)


def _kind(text: str) -> str:
    """The type that a text reads as, as the platform reads MLflow's parameters."""
    if _INTEGER.fullmatch(text) and text != "-0":
        return "int"
    if len(text) < 40 and _FRACTION.fullmatch(text) and math.isfinite(float(text)):
        return "float"
    return "string"


def _ms(value: Any, otherwise: int = 0) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError):
        return otherwise
    return found if 0 <= found <= LATEST_MS else otherwise


def _time(milliseconds: int) -> str:
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

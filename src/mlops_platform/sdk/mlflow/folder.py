"""The `mlruns` folder of MLflow's file store. It is never trusted: what cannot be read is named, and the rest goes on."""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlops_platform.sdk.archive.layout import PackageMissing
from mlops_platform.sdk.mlflow.places import NotReadable, opened, plain_files, plain_folder, plain_folders, text_of
from mlops_platform.sdk.mlflow.store import Fields, MlflowStore, Point, StoredFile

META = "meta.yaml"
TRASH = ".trash"
MAX_YAML = 64 * 1024 * 1024
MAX_TEXT = 4 * 1024 * 1024
_RESERVED = {"tags", "datasets", "traces", "models"}
_NO_EXPERIMENTS = {TRASH, "models"}
_LINE = re.compile(r"(-?\d+) (\S+)(?: (-?\d+))?(?: (.*))?")
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, NotReadable)


class FolderStore(MlflowStore):
    """A folder whose folders are experiments."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root.resolve()
        self._read = _yaml_reader()
        self._places: dict[str, Path] = {}

    def experiments(self) -> Iterator[Fields]:
        for folder in (self._root, self._root / TRASH):
            for place in plain_folders(folder, self.left_out, what=folder.name):
                if place.name in _NO_EXPERIMENTS or not (place / META).exists():
                    continue
                meta = self._meta(place, f"experiment {place.name}")
                if meta is not None and "name" in meta:
                    number = str(meta.get("experiment_id", place.name))
                    self._places[number] = place
                    tags = self._texts(place / "tags", f"experiment {number}")
                    stage = "deleted" if folder.name == TRASH else meta.get("lifecycle_stage", "active")
                    yield {**meta, "experiment_id": number, "lifecycle_stage": stage, "tags": tags}

    def runs(self, experiment_id: str) -> Iterator[Fields]:
        found: list[tuple[int, str, Path]] = []
        for place in plain_folders(self._places[experiment_id], self.left_out, what=f"experiment {experiment_id}"):
            if place.name in _RESERVED:
                continue
            meta = self._meta(place, f"run {place.name}")
            if meta is not None:
                found.append((_integer(meta.get("start_time")), place.name, place))
        for _, _, place in sorted(found):
            meta = self._meta(place, f"run {place.name}")
            if meta is not None:
                yield self._run(place, meta)

    def started(self, experiment_id: str, run_id: str) -> int | None:
        place = self._places[experiment_id] / run_id
        if not re.fullmatch(r"[\w-]+", run_id) or not (place / META).exists() or place.is_symlink():
            return None
        meta = self._meta(place, f"run {run_id}")
        return None if meta is None else _integer(meta.get("start_time"))

    def history(self, run: Fields, key: str) -> Iterator[Point]:
        what, bad = f"run {run['info']['run_id']}", 0
        try:
            with opened(run["place"] / "metrics" / key) as lines:
                for line in lines:
                    point = _point(line)
                    if point is None:
                        bad += 1
                    else:
                        yield point
        except _BROKEN as error:
            self.left_out.append(f"{what}: the metric {key!r}: {error}")
        if bad:
            self.left_out.append(f"{what}: {bad} broken lines of the metric {key!r}")

    def models(self, experiment_id: str) -> Iterator[Fields]:
        folder = self._places[experiment_id] / "models"
        for place in plain_folders(folder, self.left_out, what=f"experiment {experiment_id}"):
            what = f"model {place.name}"
            meta = self._meta(place, what)
            if meta is not None:
                info = {**meta, "model_id": place.name, "tags": self._texts(place / "tags", what)}
                info["creation_timestamp_ms"] = meta.get("creation_timestamp_ms", meta.get("creation_timestamp"))
                info["last_updated_timestamp_ms"] = meta.get(
                    "last_updated_timestamp_ms", meta.get("last_updated_timestamp")
                )
                data = {"params": self._texts(place / "params", what), "metrics": self._model_metrics(place, what)}
                yield {"info": info, "data": data, "place": place}

    def files(self, run: Fields) -> Iterator[StoredFile]:
        yield from self._files(run, f"run {run['info']['run_id']}", str(run["info"].get("artifact_uri") or ""))

    def model_files(self, model: Fields) -> Iterator[StoredFile]:
        info = model["info"]
        yield from self._files(model, f"model {info['model_id']}", str(info.get("artifact_location") or ""))

    def close(self) -> None:
        # Nothing stays open between two questions.
        return

    def _files(self, owner: Fields, what: str, uri: str) -> Iterator[StoredFile]:
        folder = owner["place"] / "artifacts"
        # A folder that was moved still has its files with it, whatever it says of where they lay.
        tail = Path(unquote(urlsplit(uri).path)).parts[-2:]
        if uri and tail != folder.parts[-2:]:
            self.left_out.append(f"{what}: its files, which lie at {uri[:200]!r}")
            return
        for path, place in plain_files(folder, self.left_out, what=what):
            yield StoredFile(path, _opening(place))

    def _model_metrics(self, place: Path, what: str) -> list[Fields]:
        """Lines of a model's metric name their run, and may name a dataset."""
        found: list[Fields] = []
        for key, path in plain_files(place / "metrics", self.left_out, what=what):
            try:
                for line in text_of(path, most=MAX_TEXT).splitlines():
                    moment, value, step, run_id, *dataset = line.split(" ")
                    name, digest = dataset if len(dataset) == 2 else (None, None)
                    point = {"key": key, "timestamp": int(moment), "value": float(value), "step": int(step)}
                    found.append({**point, "run_id": run_id, "dataset_name": name, "dataset_digest": digest})
            except _BROKEN as error:
                self.left_out.append(f"{what}: the metric {key!r}: {error}")
        return found

    def _run(self, place: Path, meta: Mapping[str, Any]) -> Fields:
        what = f"run {place.name}"
        keys = [path for path, _ in plain_files(place / "metrics", self.left_out, what=what)]
        data = {
            "params": self._texts(place / "params", what),
            "tags": self._texts(place / "tags", what),
            "metrics": dict.fromkeys(keys, ""),
        }
        inputs, outputs = self._inputs(place, what)
        return {
            "info": {**meta, "run_id": str(meta.get("run_id") or meta.get("run_uuid") or place.name)},
            "data": data,
            "inputs": inputs,
            "outputs": outputs,
            "place": place,
        }

    def _inputs(self, place: Path, what: str) -> tuple[Fields, Fields]:
        datasets, used, made = [], [], []
        for folder in plain_folders(place / "inputs", self.left_out, what=what):
            meta = self._meta(folder, what)
            source = str((meta or {}).get("source_id", ""))
            if meta is None or not re.fullmatch(r"[\w-]+", source):
                continue
            if meta.get("source_type") == "DATASET":
                found = plain_folder(place.parent, f"datasets/{source}", self.left_out, what=what)
                dataset = None if found is None else self._meta(found, what)
                if dataset is not None:
                    datasets.append({"dataset": dataset, "tags": meta.get("tags") or {}})
            else:
                used.append({"model_id": source})
        for folder in plain_folders(place / "outputs", self.left_out, what=what):
            meta = self._meta(folder, what)
            if meta is not None:
                made.append({"model_id": meta.get("destination_id"), "step": meta.get("step", 0)})
        return {"dataset_inputs": datasets, "model_inputs": used}, {"model_outputs": made}

    def _texts(self, folder: Path, what: str) -> dict[str, str]:
        found = {}
        for path, place in plain_files(folder, self.left_out, what=what):
            try:
                found[path] = text_of(place, most=MAX_TEXT)
            except _BROKEN as error:
                self.left_out.append(f"{what}: {folder.name}/{path}: {error}")
        return found

    def _meta(self, folder: Path, what: str) -> dict[str, Any] | None:
        try:
            found = self._read(text_of(folder / META, most=MAX_YAML))
        except _BROKEN as error:
            self.left_out.append(f"{what}: {META} cannot be read: {str(error)[:200]}")
            return None
        if not isinstance(found, dict):
            self.left_out.append(f"{what}: {META} holds no fields")
            return None
        return {str(key): value for key, value in found.items()}


def _yaml_reader() -> Callable[[str], Any]:
    try:
        yaml: Any = import_module("yaml")
    except ImportError as error:
        raise PackageMissing(
            "Folders of MLflow need the package 'PyYAML'.", hint="pip install 'mlops-platform[mlruns]'"
        ) from error

    class Plain(yaml.SafeLoader):  # type: ignore[misc]  # the package carries no types
        """YAML without references: a few lines of them can stand for more than a machine can hold."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise ValueError("references are not read")
            return super().compose_node(parent, index)

    def read(text: str) -> Any:
        try:
            return yaml.load(text, Loader=Plain)  # a safe loader, and less
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error

    return read


def _point(line: bytes) -> Point | None:
    try:
        match = _LINE.fullmatch(line.decode("utf-8").rstrip("\r\n"))
        return None if match is None else (int(match[1]), int(match[3] or 0), float(match[2]))
    except ValueError:
        return None


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _opening(place: Path) -> Callable[[], Any]:
    return lambda: opened(place)

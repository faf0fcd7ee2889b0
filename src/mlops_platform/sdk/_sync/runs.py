# Generated from sdk/_async/runs.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""One run while it is going on: what a training loop holds."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, SupportsFloat

from mlops_platform.contracts.tracking import Artifact, Run, RunStatus
from mlops_platform.sdk import content, contexts, current, datasets, models
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.artifacts import Artifacts
from mlops_platform.sdk._sync.offline import KeptArtifacts
from mlops_platform.sdk.contexts import Context
from mlops_platform.sdk.heartbeat import Pulse
from mlops_platform.sdk.recorder import Recorder
from mlops_platform.sdk.system_metrics import SystemMetrics
from mlops_platform.sdk.wire import file_path, milliseconds, segment, timestamp_now

RESERVED_KEYS = frozenset({"step", "timestamp"})
LONGEST_KEY = 250


class ActiveRun:
    """A run that is being recorded. `log_metric` and its siblings return at once and never raise for the server's sake.

    As a context manager it ends the run: finished, or failed when the body raised, or killed on Ctrl-C.
    """

    def __init__(
        self,
        info: Run,
        recorder: Recorder,
        artifacts: Artifacts | KeptArtifacts,
        *,
        owner: Any = None,
        path: str | None = None,
        experiment: str | None = None,
        pulse: Pulse | None = None,
        is_guest: bool = False,
    ) -> None:
        self.info = info
        self.id = info.id
        self.experiment_id = info.experiment_id
        self.owner = owner
        """The part of the platform that started it, and that starts its children."""
        self._experiment = experiment
        self._recorder = recorder
        self._artifacts = artifacts
        self._path = path or f"/api/experiments/{info.experiment_id}/runs/{info.id}"
        self._metrics_path = f"{self._path}/metrics"
        self._watch: SystemMetrics | None = None
        self._known_keys: set[str] = set()
        self._known_contexts: dict[tuple[Any, ...], Context] = {}
        self._is_open = True
        self._pulse = pulse
        self._pid = os.getpid()
        self._is_guest = is_guest
        """Another process writes the run, and ends it."""

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        *,
        step: int | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Record one value. NaN and infinities are kept. Costs an append on the caller's thread.

        A `context` such as `{"split": "val"}` tells series of one key apart.
        """
        if key not in self._known_keys:
            self._check_key(key)
        at = time.time_ns() // 1_000_000 if timestamp is None else milliseconds(timestamp)
        about = self._context(context, (key,)) if context else ()
        self._recorder.point(self._metrics_path, key, float(value), step, at, about)

    def log_metrics(
        self,
        metrics: Mapping[str, SupportsFloat],
        *,
        step: int | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Record several values of one step."""
        at = time.time_ns() // 1_000_000 if timestamp is None else milliseconds(timestamp)
        about = self._context(context, metrics) if context else ()
        for key, value in metrics.items():
            if key not in self._known_keys:
                self._check_key(key)
            self._recorder.point(self._metrics_path, key, float(value), step, at, about)

    def log_param(self, key: str, value: Any) -> None:
        """Record one parameter."""
        self.log_params({key: value})

    def log_params(self, parameters: Mapping[str, Any]) -> None:
        """Record parameters; nested ones are flattened with dots. They never change afterwards."""
        self._recorder.request("POST", f"{self._path}/params", {"parameters": dict(parameters)})

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags; None removes one."""
        self._recorder.request("PATCH", self._path, {"tags": dict(tags)})

    def set_notes(self, text: str) -> None:
        """Replace the run's notes."""
        self._recorder.request("PATCH", self._path, {"notes": text})

    def log_inputs(self, urns: Iterable[str]) -> None:
        """State what the run read (training sets, model versions), by URN: edges of the lineage graph."""
        self._recorder.request("POST", f"{self._path}/inputs", {"inputs": list(urns)})

    def log_artifact(
        self, source: Path | str, path: str | None = None, *, progress: bool | None = None
    ) -> Sequence[Artifact]:
        """Upload a file, or all files below a directory, under `path`. Unlike metrics, this waits and raises."""
        return self._artifacts.upload(f"{self._path}/artifacts", Path(source), path, answer=Artifact, progress=progress)

    def log_text(self, text: str, path: str) -> Artifact:
        """Store a text as an artifact."""
        return self._put(path, content.Content(text.encode(), "text/plain"))

    def log_json(self, value: Any, path: str) -> Artifact:
        """Store dictionaries, lists, numbers and texts as JSON."""
        return self._put(path, content.json_document(value))

    def log_dict(self, value: Mapping[str, Any], path: str) -> Artifact:
        """The same as `log_json`, by the name that other trackers have for it."""
        return self.log_json(value, path)

    def log_figure(self, figure: Any, path: str) -> Artifact:
        """Store a figure of matplotlib (`.png`, `.svg`, `.pdf`) or of plotly (`.html`, `.json`)."""
        return self._put(path, backend.in_thread(content.figure, figure, path))

    def log_image(self, image: Any, path: str) -> Artifact:
        """Store a picture: of Pillow, an array of height x width (x 3 or 4), a tensor, or encoded bytes."""
        return self._put(path, backend.in_thread(content.image, image, path))

    def log_table(self, table: Any, path: str) -> Artifact:
        """Store rows, columns by name, or a table of pandas, polars or pyarrow, as `.json`, `.csv` or `.parquet`."""
        return self._put(path, backend.in_thread(content.table, table, path))

    def log_model(
        self,
        model: Any,
        path: str = "model",
        *,
        format: str | None = None,  # noqa: A002  # the word of the registry
        signature: Mapping[str, Any] | None = None,
        example: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Store a fitted model as a folder with a manifest, which is answered. No server ever loads it."""
        with TemporaryDirectory(prefix="mlops-model-") as name:
            manifest = backend.in_thread(
                models.save, model, Path(name), form=format, signature=signature, example=example, metadata=metadata
            )
            self.log_artifact(Path(name), path)
        self.record_model(manifest, path)
        return manifest

    def log_dataset(
        self,
        data: Any = None,
        *,
        name: str | None = None,
        targets: Any = None,
        digest: str | None = None,
        source: str | None = None,
        context: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """State what data the run read: an array, a table, rows, the `Path` of a file or folder, or a known `digest`.

        What is told of it is answered: digest, columns, rows, source. The data itself is not sent.
        """
        about = {"targets": targets, "digest": digest, "source": source, "context": context, "tags": tags}
        told = backend.in_thread(datasets.told, data, name=name, **about)
        self.record_dataset(told)
        return told

    # Without waiting

    def record_dataset(self, told: Mapping[str, Any]) -> None:
        """State what data the run read, in the words of the API."""
        self._recorder.request("POST", f"{self._path}/inputs", {"datasets": [dict(told)]})

    def record_model(self, manifest: Mapping[str, Any], path: str) -> None:
        """State that the run made the model whose folder lies at `path` among its artifacts."""
        self._recorder.request("POST", f"{self._path}/models", models.told(manifest, path))

    def record_file(self, source: Path | bytes, path: str, *, content_type: str | None = None) -> None:
        """Keep a copy of a content here and upload it with all else that is recorded. Never waits and never raises."""
        kind = content_type or content.content_type_of(path)
        self._recorder.file(f"{self._path}/artifacts/{file_path(path)}", source, kind)

    def end(self, status: RunStatus | str = RunStatus.FINISHED) -> None:
        """End the run, after all that was recorded, without waiting for it.

        Who does not write the run does not end it: a forked process, one that joined it, one that lost it to another.
        """
        if not self._is_open:
            return
        # One reading of the clock: two would differ by a second now and then, and a run end before it began.
        body = {"status": RunStatus(status).value, "end_time": timestamp_now()}
        self._is_open = False
        current.leave(self)
        if self._watch is not None:
            self._watch.stop()
        if self._is_guest or os.getpid() != self._pid:
            return
        if self._pulse is not None:
            self._pulse.stop()
            if self._pulse.is_lost:
                return
            body["writer"] = self._pulse.writer
        self._recorder.request("PATCH", self._path, body)

    def leave(self) -> None:
        """Record nothing more here, and leave the run as the server has it: it has ended there, or goes on elsewhere."""
        if self._is_open:
            self._is_open = False
            current.leave(self)
            if self._watch is not None:
                self._watch.stop()

    def watch_system(self, *, interval_seconds: float = 10.0) -> None:
        """Record `system/...` metrics of this machine until the end of the run."""
        if self._watch is None and self._is_open:
            self._watch = SystemMetrics(self.log_metrics, interval_seconds=interval_seconds)
            self._watch.start()

    # Runs within this one

    @contextmanager
    def child(
        self,
        run_name: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Iterator["ActiveRun"]:
        """A run within this one, which ends with the block."""
        started = self.owner.start_run(
            self.experiment, run_name=run_name, parameters=parameters, tags=tags, parent_run_id=self.id
        )
        with started:
            yield started

    @property
    def experiment(self) -> str:
        """The name that the experiment was given when the run was started here, else its id."""
        return self._experiment or self.experiment_id

    def flush(self, *, timeout_seconds: float = 30.0) -> bool:
        """Wait until the server has what was recorded. False: the rest is in the spool and will be sent later."""
        return backend.in_thread(self._recorder.flush, timeout_seconds=timeout_seconds)

    def finish(self, status: RunStatus | str = RunStatus.FINISHED) -> None:
        """End the run, after all that was recorded. While the server is away this too is kept and sent later."""
        if self._is_open:
            self.end(status)
            self.flush()

    def __enter__(self) -> Self:
        current.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish(RunStatus.FINISHED)
        else:
            self.finish(RunStatus.KILLED if issubclass(kind, KeyboardInterrupt) else RunStatus.FAILED)

    def _context(self, given: Mapping[str, str], keys: Iterable[str]) -> Context:
        if "context" in keys:
            raise ValueError("A metric named 'context' cannot have a context.")
        entries = tuple(given.items())
        found = self._known_contexts.get(entries)
        if found is None:
            found = self._known_contexts[entries] = contexts.checked(given)
        return found

    def _check_key(self, key: str) -> None:
        # Said where the mistake is made: the server would refuse the point long after the call has returned.
        if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable() or key in RESERVED_KEYS:
            raise ValueError(
                f"{key!r} cannot be a metric: its key has 1 to {LONGEST_KEY} printable characters and is not one of "
                f"{', '.join(sorted(RESERVED_KEYS))}."
            )
        self._known_keys.add(key)

    def _put(self, path: str, made: content.Content) -> Artifact:
        url_path = f"{self._path}/artifacts/{file_path(path)}"
        return self._artifacts.put_bytes(url_path, made.data, answer=Artifact, content_type=made.content_type)

    def _repr_html_(self) -> str:
        return self.info._repr_html_()  # the name that notebooks look for

    def __repr__(self) -> str:
        return f"<run {self.info.run_name!r} {segment(self.id)}>"

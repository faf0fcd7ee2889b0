# Generated from sdk/_async/tracking.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""Experiment Tracking: experiments, runs, their metrics and artifacts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import ArtifactEntry, Run
from mlops_platform.sdk import calls, current, models, reproduction
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.artifacts import Artifacts, RemoteFile
from mlops_platform.sdk._sync.client import Pool, ServiceClient
from mlops_platform.sdk._sync.delivery import Deliveries
from mlops_platform.sdk._sync.experiments import Experiments
from mlops_platform.sdk._sync.listing import Listing
from mlops_platform.sdk._sync.metrics import Metrics
from mlops_platform.sdk._sync.offline import KeptArtifacts, OfflineSync, SyncedRun
from mlops_platform.sdk._sync.run_management import RunManagement
from mlops_platform.sdk._sync.runs import ActiveRun
from mlops_platform.sdk._sync.sweeps import Sweeping
from mlops_platform.sdk._sync.transfers import Transfers
from mlops_platform.sdk._sync.uploads import PartUploads
from mlops_platform.sdk.errors import (
    PlatformUnreachable,
    ServerError,
    TooManyRequests,
    missing,
)
from mlops_platform.sdk.files import BlobCache
from mlops_platform.sdk.heartbeat import Pulse, new_writer
from mlops_platform.sdk.ids import new_id
from mlops_platform.sdk.offline import OfflineRun, begun
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import file_path, given, segment, timestamp_now

F = TypeVar("F", bound=Callable[..., Any])


class Tracking(Experiments, RunManagement, Metrics, Transfers, Sweeping):
    """Experiments and runs.

    ```python
    with platform.tracking.run("churn", parameters={"lr": 0.01}) as run:
        run.log_metric("loss", 0.3, step=1)
    ```
    """

    def __init__(self, pool: Pool, settings: ClientSettings) -> None:
        self._client = ServiceClient(Service.TRACKING, pool, settings)
        parts = PartUploads(self._client, above_bytes=settings.parts_above_bytes)
        self._artifacts = Artifacts(self._client, BlobCache(settings.cache), parts=parts)
        self._settings = settings
        self._delivery = Deliveries(
            pool, settings, url=self._client.url, artifacts=self._artifacts, experiment=self.ensure_experiment
        )

    # Runs

    @contextmanager
    def run(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
        group: str | None = None,
        seeds: Mapping[str, int] | int | None = None,
        system_metrics: bool | None = None,
    ) -> Iterator[ActiveRun]:
        """A run that ends with the block: finished, failed when the block raised, killed on Ctrl-C."""
        started = self.start_run(
            experiment,
            run_name=run_name,
            parameters=parameters,
            tags=tags,
            parent_run_id=parent_run_id,
            group=group,
            seeds=seeds,
            system_metrics=system_metrics,
        )
        with started:
            yield started

    def start_run(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
        group: str | None = None,
        seeds: Mapping[str, int] | int | None = None,
        system_metrics: bool | None = None,
    ) -> ActiveRun:
        """The same without a block, for notebooks: call `finish()`.

        While the server does not answer, the run begins here as `begin_run` begins one, and a warning says so.
        """
        body = given(run_name=run_name, parameters=parameters, tags=tags, parent_run_id=parent_run_id, group=group)
        started = self._start(experiment, self._beginning(body))
        if self._settings.capture and parent_run_id is None:
            backend.in_thread(reproduction.record, started, seeds=seeds)
        if self._settings.system_metrics if system_metrics is None else system_metrics:
            started.watch_system()
        return started

    def begin_run(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
        group: str | None = None,
    ) -> ActiveRun:
        """Start a run without waiting for the server: it is made there with the first that is delivered.

        It begins whether or not the server answers. What the server refuses is said by a warning, as for all recorded.
        """
        body = given(run_name=run_name, parameters=parameters, tags=tags, parent_run_id=parent_run_id, group=group)
        return self._begin(experiment, self._beginning(body))

    def active_run(self) -> ActiveRun | None:
        """The innermost run of this thread or task whose block is open here."""
        found: ActiveRun | None = current.innermost(self)
        return found

    def track(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        log_arguments: bool = True,
    ) -> Callable[[F], F]:
        """A decorator: each call is a run, named after the function, whose plain arguments are its parameters.

        A parameter named `run` is given the run, when the caller does not give it.
        """

        def decorate(function: F) -> F:
            @wraps(function)
            def tracked(*arguments: Any, **named: Any) -> Any:
                parameters = calls.plain_arguments(function, arguments, named) if log_arguments else None
                name = run_name or function.__name__
                with self.run(experiment, run_name=name, parameters=parameters, tags=tags) as run:
                    return function(*arguments, **calls.with_run(function, arguments, named, run))

            return cast("F", tracked)

        return decorate

    def autolog(
        self,
        experiment: str = "autolog",
        *,
        disable: bool = False,
        log_models: bool = True,
        log_datasets: bool = True,
        most_children: int = 100,
    ) -> None:
        """Record trainings of scikit-learn, XGBoost, LightGBM, Keras and Lightning by themselves, until `disable=True`.

        Into the run whose block is open, else into a run of its own in `experiment`. What a search tried are runs within
        it, at most `most_children`. Trouble of the recording is a warning and never reaches the training.
        """
        from mlops_platform.sdk.autolog import switch
        from mlops_platform.sdk.autolog.session import Options

        if disable:
            switch.off()
            return
        _ = self._delivery.recorder  # made here: where the user's loop is
        switch.on(self, Options(experiment, log_models, log_datasets, most_children))

    def resume_run(self, run_id: str, *, take_over: bool = False) -> ActiveRun:
        """Set a run running again and go on recording it, as the one process that writes it.

        `RunHeld` while another process has it; `take_over` takes it from that one, which is known to be dead.
        """
        if self._delivery.offline is not None:
            return self._reopened(run_id)
        promised = self._delivery.promise() or {"writer": new_writer()}
        info = self.take_run(run_id, **promised, take_over=take_over)
        # Also when this client promises nothing: the run may have, when it was started.
        pulse = self._delivery.pulse(run_id, {**promised, "heartbeat_seconds": info.heartbeat_seconds})
        return ActiveRun(info, self._delivery.recorder, self._artifacts, owner=self, pulse=pulse)

    def join_run(self, run_id: str) -> ActiveRun:
        """Record into a run that another process writes, as the workers of a distributed training do, and never end it."""
        if self._delivery.offline is not None:
            return self._reopened(run_id, is_guest=True)
        info = self.get_run(run_id)
        return ActiveRun(info, self._delivery.recorder, self._artifacts, owner=self, is_guest=True)

    def _handed_run(self, run_id: str) -> ActiveRun:
        """Record into a run that the server handed to this process, such as a trial, which beats by itself."""
        return ActiveRun(self.get_run(run_id), self._delivery.recorder, self._artifacts, owner=self)

    def get_run(self, run_id: str) -> Run:
        return self._client.get(Run, _run(run_id))

    def update_run(self, run_id: str, **changes: Any) -> Run:
        """Change `run_name`, `status`, `start_time`, `end_time`, `notes` or `tags`."""
        return self._client.send("PATCH", _run(run_id), Run, json=changes)

    def delete_run(self, run_id: str) -> None:
        self._client.request("DELETE", _run(run_id))

    def restore_run(self, run_id: str) -> Run:
        return self._client.send("POST", f"{_run(run_id)}/restore", Run)

    def search(
        self,
        filter: str = "",  # noqa: A002  # the word of the wire
        *,
        experiments: Sequence[str] = (),
        order_by: Sequence[str] = (),
        fields: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Listing[Run]:
        """Runs that match, such as `search("metrics.accuracy > 0.9", order_by=["metrics.accuracy DESC"])`."""
        query = given(filter=filter or None, order_by=list(order_by) or None, fields=fields)
        return Listing(lambda: self._found(query, experiments, limit))

    def _found(self, query: Mapping[str, Any], experiments: Sequence[str], limit: int | None) -> Iterator[Run]:
        ids = [(self.experiment(name)).id for name in experiments]
        body = dict(query) | {"experiment_ids": ids, "page_size": min(limit or 100, 1000)}
        seen = 0
        while True:
            page = self._client.send("POST", "/api/runs/search", Page[Run], json=body)
            for run in page.items:
                yield run
                seen += 1
                if limit is not None and seen >= limit:
                    return
            if page.next_page_token is None:
                return
            body["page_token"] = page.next_page_token

    # Artifacts

    def artifacts(self, run_id: str, path: str = "") -> Listing[ArtifactEntry]:
        """What lies in one folder of a run's artifacts."""
        query = given(path=path or None)
        return Listing(lambda: self._client.pages(ArtifactEntry, f"{_run(run_id)}/artifacts", params=query))

    def load_model(self, run_id: str, path: str = "model", *, trust: bool = False) -> Any:
        """The model that `log_model` stored. Pickle and joblib run code of their author: they need `trust=True`."""
        with TemporaryDirectory(prefix="mlops-model-") as folder:
            landed = self.download_artifacts(run_id, path, to=folder, progress=False)
            return backend.in_thread(models.load, landed, trust=trust)

    def read_artifact(self, run_id: str, path: str) -> bytes:
        """One file whole, for what is small."""
        response = self._client.request("GET", f"{_run(run_id)}/artifacts/{file_path(path)}")
        return response.content

    def download_artifacts(
        self, run_id: str, path: str = "", *, to: Path | str = ".", progress: bool | None = None
    ) -> Path:
        """Bring a file, or a folder with all that lies below it, into the directory `to`; verified and cached."""
        files = [
            RemoteFile(entry.path, entry.sha256 or "", entry.size, f"{_run(run_id)}/artifacts/{file_path(entry.path)}")
            for entry in self._files(run_id, path)
        ]
        if not files:
            raise missing(f"Run {run_id} has no artifact at {path!r}.")
        self._artifacts.download(files, Path(to), label=path or run_id, progress=progress)
        return Path(to) / path

    def _files(self, run_id: str, path: str) -> Iterator[ArtifactEntry]:
        folders = [path]
        if path:
            # Only the listing of the folder around it says whether a path is a file or a folder.
            around = [entry for entry in self.artifacts(run_id, path.rpartition("/")[0]) if entry.path == path]
            folders = [entry.path for entry in around if entry.is_folder]
            for entry in around:
                if not entry.is_folder:
                    yield entry
        while folders:
            for entry in self.artifacts(run_id, folders.pop()):
                if entry.is_folder:
                    folders.append(entry.path)
                else:
                    yield entry

    # What waits

    def sync(self) -> tuple[int, int]:
        """Send what earlier processes could not deliver. Answers how many requests were delivered and how many remain."""
        return backend.in_thread(self._delivery.recorder.sync)

    def sync_offline(self, folder: Path | str | None = None) -> Sequence[SyncedRun]:
        """Bring runs that were recorded offline to the server, in order. Doing it again does nothing twice."""
        runs = OfflineSync(self._client, self._artifacts, self.ensure_experiment)
        return runs.sync(Path(folder) if folder is not None else self._settings.offline_runs)

    def _settle(self) -> None:
        backend.in_thread(self._delivery.recorder.flush)
        self.sync()

    def close(self) -> None:
        self._delivery.close()

    def _beginning(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """With an id and a time of its own, the same request may be sent now, again, or much later: it makes one run."""
        return {**body, **self._delivery.promise(), "id": new_id(), "start_time": timestamp_now()}

    def _start(self, experiment: str, beginning: Mapping[str, Any]) -> ActiveRun:
        if self._delivery.offline is not None or self._delivery.is_away():
            return self._begin(experiment, beginning)
        try:
            found = self.ensure_experiment(experiment)
            info = self._client.send("POST", f"/api/experiments/{found.id}/runs", Run, json=beginning)
        except (PlatformUnreachable, ServerError, TooManyRequests) as error:
            if self._settings.must_reach:
                raise
            self._delivery.note_absence(error)
            return self._begin(experiment, beginning)
        pulse = self._delivery.pulse(info.id, beginning)
        return ActiveRun(info, self._delivery.recorder, self._artifacts, owner=self, experiment=experiment, pulse=pulse)

    def _begin(self, experiment: str, beginning: Mapping[str, Any]) -> ActiveRun:
        if self._delivery.offline is not None:
            # Not by the queue: from here on the run is there, and whatever becomes of the process.
            self._delivery.offline.begin(experiment, beginning)
        else:
            self._delivery.recorder.request("POST", "/runs", beginning, experiment=experiment)
        return self._active(beginning, experiment, pulse=self._delivery.pulse(beginning["id"], beginning))

    def _reopened(self, run_id: str, *, is_guest: bool = False) -> ActiveRun:
        recorded = OfflineRun(self._settings.offline_runs / run_id)
        return self._active(recorded.about["run"], recorded.experiment, is_guest=is_guest)

    def _active(
        self, beginning: Mapping[str, Any], experiment: str, *, pulse: Pulse | None = None, is_guest: bool = False
    ) -> ActiveRun:
        store = self._delivery.offline
        return ActiveRun(
            begun(beginning, experiment),
            self._delivery.recorder,
            self._artifacts if store is None else KeptArtifacts(store),
            owner=self,
            path=f"/api/runs/{beginning['id']}",
            experiment=experiment,
            pulse=pulse,
            is_guest=is_guest,
        )


def _run(run_id: str) -> str:
    return f"/api/runs/{segment(run_id)}"

# Generated from sdk/_async/tracking.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""Experiment Tracking: experiments, runs, their metrics and artifacts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Artifact, ArtifactEntry, Experiment, Metric, Point, Run
from mlops_platform.sdk import calls, current, models, reproduction
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.artifacts import Artifacts, RemoteFile
from mlops_platform.sdk._sync.client import Pool, ServiceClient, unexpected_answer
from mlops_platform.sdk._sync.listing import Listing
from mlops_platform.sdk._sync.offline import KeptArtifacts, OfflineSync, SyncedRun
from mlops_platform.sdk._sync.run_management import RunManagement
from mlops_platform.sdk._sync.runs import ActiveRun
from mlops_platform.sdk._sync.sweeps import Sweeping
from mlops_platform.sdk.errors import Conflict, NotFound, missing
from mlops_platform.sdk.files import BlobCache
from mlops_platform.sdk.ids import is_id, new_id
from mlops_platform.sdk.offline import OfflineRun, OfflineStore, begun
from mlops_platform.sdk.recorder import Recorder
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.spool import Delivery, Spool
from mlops_platform.sdk.wire import file_path, given, segment, timestamp_now

DELIVERY_SECONDS = 10.0
SLOWEST_BYTES_PER_SECOND = 250_000
F = TypeVar("F", bound=Callable[..., Any])


class Tracking(RunManagement, Sweeping):
    """Experiments and runs.

    ```python
    with platform.tracking.run("churn", parameters={"lr": 0.01}) as run:
        run.log_metric("loss", 0.3, step=1)
    ```
    """

    def __init__(self, pool: Pool, settings: ClientSettings) -> None:
        self._client = ServiceClient(Service.TRACKING, pool, settings)
        self._artifacts = Artifacts(self._client, BlobCache(settings.cache))
        # The recorder has the spool to fall back on: it asks once, and does not hold up the end of a run for long.
        quick = replace(settings, retries=1, timeout_seconds=min(DELIVERY_SECONDS, settings.timeout_seconds))
        self._delivery_client = ServiceClient(Service.TRACKING, pool, quick)
        self._spool = Spool(settings.spool, self._client.url, settings.project)
        self._settings = settings
        self._recorder: Recorder | None = None
        self._known_experiments: dict[str, str] = {}
        self._offline = OfflineStore(settings.offline_runs) if settings.offline else None

    # Experiments

    def create_experiment(
        self, name: str, *, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        body = given(name=name, description=description, tags=tags)
        return self._client.send("POST", "/api/experiments", Experiment, json=body)

    def experiment(self, name_or_id: str) -> Experiment:
        """One experiment, by id or by name."""
        if is_id(name_or_id):
            return self._client.get(Experiment, f"/api/experiments/{segment(name_or_id)}")
        found = self._client.get(Page[Experiment], "/api/experiments", params={"name": name_or_id})
        if not found.items:
            raise missing(f"There is no experiment {name_or_id!r}.", hint="'mlops experiment list' shows what there is.")
        return found.items[0]

    def ensure_experiment(self, name_or_id: str) -> Experiment:
        """The experiment, which is made when it is absent; many processes may ask at once."""
        if is_id(name_or_id):
            return self.experiment(name_or_id)
        try:
            return self.experiment(name_or_id)
        except NotFound:
            try:
                return self.create_experiment(name_or_id)
            except Conflict:
                return self.experiment(name_or_id)

    def experiments(self, *, limit: int | None = None) -> Listing[Experiment]:
        return Listing(lambda: self._client.pages(Experiment, "/api/experiments", limit=limit))

    def update_experiment(self, name_or_id: str, **changes: Any) -> Experiment:
        """Change `name`, `description` or `tags`."""
        found = self.experiment(name_or_id)
        return self._client.send("PATCH", f"/api/experiments/{found.id}", Experiment, json=changes)

    def delete_experiment(self, name_or_id: str) -> None:
        """Delete softly; `restore_experiment` takes it back."""
        found = self.experiment(name_or_id)
        self._client.request("DELETE", f"/api/experiments/{found.id}")

    def restore_experiment(self, experiment_id: str) -> Experiment:
        """Bring a deleted or archived experiment back."""
        return self._client.send("POST", f"/api/experiments/{segment(experiment_id)}/restore", Experiment)

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
        """The same without a block, for notebooks: call `finish()`."""
        body = given(run_name=run_name, parameters=parameters, tags=tags, parent_run_id=parent_run_id, group=group)
        if self._offline is not None:
            started = self._begin(experiment, body)
        else:
            found = self.ensure_experiment(experiment)
            info = self._client.send("POST", f"/api/experiments/{found.id}/runs", Run, json=body)
            started = ActiveRun(info, self._recording(), self._artifacts, owner=self, experiment=experiment)
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
        return self._begin(experiment, body)

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
        self._recording()
        switch.on(self, Options(experiment, log_models, log_datasets, most_children))

    def resume_run(self, run_id: str) -> ActiveRun:
        """Go on recording a run, also from another process."""
        if self._offline is not None:
            recorded = OfflineRun(self._offline.folder(run_id))
            return self._active(recorded.about["run"], recorded.experiment)
        return ActiveRun(self.get_run(run_id), self._recording(), self._artifacts, owner=self)

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

    def metrics(self, run_id: str) -> Sequence[Metric]:
        """What is kept of each metric: last, least, greatest, mean."""
        response = self._client.request("GET", f"{_run(run_id)}/metrics")
        try:
            return TypeAdapter(list[Metric]).validate_json(response.content)
        except ValidationError as error:
            raise unexpected_answer(response) from error

    def history(self, run_id: str, key: str, *, limit: int | None = None) -> Listing[Point]:
        """All points of one metric, in order of step and time."""
        path = f"{_run(run_id)}/metrics/{file_path(key)}"
        return Listing(lambda: self._client.pages(Point, path, limit=limit))

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
        return backend.in_thread(self._recording().sync)

    def sync_offline(self, folder: Path | str | None = None) -> Sequence[SyncedRun]:
        """Bring runs that were recorded offline to the server, in order. Doing it again does nothing twice."""
        runs = OfflineSync(self._client, self._artifacts, self.ensure_experiment)
        return runs.sync(Path(folder) if folder is not None else self._settings.offline_runs)

    def close(self) -> None:
        if self._recorder is not None:
            backend.in_thread(self._recorder.close)

    def _begin(self, experiment: str, body: Mapping[str, Any]) -> ActiveRun:
        beginning = {**body, "id": new_id(), "start_time": timestamp_now()}
        if self._offline is not None:
            # Not by the queue: from here on the run is there, and whatever becomes of the process.
            self._offline.begin(experiment, beginning)
        else:
            self._recording().request("POST", "/runs", beginning, experiment=experiment)
        return self._active(beginning, experiment)

    def _active(self, beginning: Mapping[str, Any], experiment: str) -> ActiveRun:
        info = begun(beginning, experiment)
        artifacts = self._artifacts if self._offline is None else KeptArtifacts(self._offline)
        path = f"/api/runs/{info.id}"
        return ActiveRun(info, self._recording(), artifacts, owner=self, path=path, experiment=experiment)

    def _recording(self) -> Recorder:
        if self._recorder is None:
            self._recorder = self._recorder_offline() if self._offline is not None else self._recorder_online()
        return self._recorder

    def _recorder_offline(self) -> Recorder:
        store = OfflineStore(self._settings.offline_runs) if self._offline is None else self._offline
        spool = Spool(store.root / ".pending", "offline", None)
        return Recorder(lambda it: store.take(it, spool.file(it) if it.file is not None else None), spool)

    def _recorder_online(self) -> Recorder:
        outside = backend.Outside()

        def send(delivery: Delivery) -> None:
            def request() -> None:
                self._deliver(delivery)

            size = self._spool.file(delivery).stat().st_size if delivery.file is not None else 0
            outside.call(request, timeout_seconds=2 * DELIVERY_SECONDS + size / SLOWEST_BYTES_PER_SECOND)

        return Recorder(send, self._spool)

    def _deliver(self, delivery: Delivery) -> None:
        path = delivery.path
        if delivery.experiment is not None:
            if delivery.experiment not in self._known_experiments:
                self._known_experiments[delivery.experiment] = (self.ensure_experiment(delivery.experiment)).id
            path = f"/api/experiments/{self._known_experiments[delivery.experiment]}{path}"
        if delivery.file is not None:
            self._artifacts.put_file(path, self._spool.file(delivery), Artifact)
        elif delivery.content_type is not None:
            headers = {"Content-Type": delivery.content_type}
            self._delivery_client.request(delivery.method, path, content=delivery.body.encode(), headers=headers)
        else:
            key = delivery.idempotency_key
            self._delivery_client.request(delivery.method, path, json=delivery.body, idempotency_key=key)


def _run(run_id: str) -> str:
    return f"/api/runs/{segment(run_id)}"

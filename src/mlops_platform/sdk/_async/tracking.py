"""Experiment Tracking: experiments, runs, their metrics and artifacts."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import ArtifactEntry, Experiment, Metric, Point, Run, RunSearch
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.artifacts import AsyncArtifacts, RemoteFile
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient, unexpected_answer
from mlops_platform.sdk._async.runs import AsyncActiveRun
from mlops_platform.sdk.errors import Conflict, NotFound, missing
from mlops_platform.sdk.files import BlobCache
from mlops_platform.sdk.recorder import Recorder
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.spool import Delivery, Spool
from mlops_platform.sdk.wire import file_path, given, segment

DELIVERY_SECONDS = 10.0


class AsyncTracking:
    """Experiments and runs.

    ```python
    async with platform.tracking.run("churn", parameters={"lr": 0.01}) as run:
        run.log_metric("loss", 0.3, step=1)
    ```
    """

    def __init__(self, pool: AsyncPool, settings: ClientSettings) -> None:
        self._client = AsyncServiceClient(Service.TRACKING, pool, settings)
        self._artifacts = AsyncArtifacts(self._client, BlobCache(settings.cache))
        # The recorder has the spool to fall back on: it asks once, and does not hold up the end of a run for long.
        quick = replace(settings, retries=1, timeout_seconds=min(DELIVERY_SECONDS, settings.timeout_seconds))
        self._delivery_client = AsyncServiceClient(Service.TRACKING, pool, quick)
        self._spool = Spool(settings.spool, self._client.url, settings.project)
        self._recorder: Recorder | None = None

    # Experiments

    async def create_experiment(
        self, name: str, *, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        body = given(name=name, description=description, tags=tags)
        return await self._client.send("POST", "/api/experiments", Experiment, json=body)

    async def experiment(self, name_or_id: str) -> Experiment:
        """One experiment, by id or by name."""
        if _is_id(name_or_id):
            return await self._client.get(Experiment, f"/api/experiments/{segment(name_or_id)}")
        found = await self._client.get(Page[Experiment], "/api/experiments", params={"name": name_or_id})
        if not found.items:
            raise missing(f"There is no experiment {name_or_id!r}.", hint="'mlops experiment list' shows what there is.")
        return found.items[0]

    async def ensure_experiment(self, name_or_id: str) -> Experiment:
        """The experiment, which is made when it is absent; many processes may ask at once."""
        if _is_id(name_or_id):
            return await self.experiment(name_or_id)
        try:
            return await self.experiment(name_or_id)
        except NotFound:
            try:
                return await self.create_experiment(name_or_id)
            except Conflict:
                return await self.experiment(name_or_id)

    def experiments(self, *, limit: int | None = None) -> AsyncIterator[Experiment]:
        return self._client.pages(Experiment, "/api/experiments", limit=limit)

    async def update_experiment(self, name_or_id: str, **changes: Any) -> Experiment:
        """Change `name`, `description` or `tags`."""
        found = await self.experiment(name_or_id)
        return await self._client.send("PATCH", f"/api/experiments/{found.id}", Experiment, json=changes)

    async def delete_experiment(self, name_or_id: str) -> None:
        """Delete softly; `restore_experiment` takes it back."""
        found = await self.experiment(name_or_id)
        await self._client.request("DELETE", f"/api/experiments/{found.id}")

    async def restore_experiment(self, experiment_id: str) -> Experiment:
        return await self._client.send("POST", f"/api/experiments/{segment(experiment_id)}/restore", Experiment)

    # Runs

    @asynccontextmanager
    async def run(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> AsyncIterator[AsyncActiveRun]:
        """A run that ends with the block: finished, failed when the block raised, killed on Ctrl-C."""
        started = await self.start_run(
            experiment, run_name=run_name, parameters=parameters, tags=tags, parent_run_id=parent_run_id
        )
        async with started:
            yield started

    async def start_run(
        self,
        experiment: str,
        *,
        run_name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> AsyncActiveRun:
        """The same without a block, for notebooks: call `finish()`."""
        found = await self.ensure_experiment(experiment)
        body = given(run_name=run_name, parameters=parameters, tags=tags, parent_run_id=parent_run_id)
        info = await self._client.send("POST", f"/api/experiments/{found.id}/runs", Run, json=body)
        return AsyncActiveRun(info, self._recording(), self._artifacts)

    async def resume_run(self, run_id: str) -> AsyncActiveRun:
        """Go on recording a run, also from another process."""
        return AsyncActiveRun(await self.get_run(run_id), self._recording(), self._artifacts)

    async def get_run(self, run_id: str) -> Run:
        return await self._client.get(Run, _run(run_id))

    async def update_run(self, run_id: str, **changes: Any) -> Run:
        """Change `run_name`, `status`, `start_time`, `end_time`, `notes` or `tags`."""
        return await self._client.send("PATCH", _run(run_id), Run, json=changes)

    async def delete_run(self, run_id: str) -> None:
        await self._client.request("DELETE", _run(run_id))

    async def restore_run(self, run_id: str) -> Run:
        return await self._client.send("POST", f"{_run(run_id)}/restore", Run)

    async def search(
        self,
        filter: str = "",  # noqa: A002  # the word of the wire
        *,
        experiments: Sequence[str] = (),
        order_by: Sequence[str] = (),
        fields: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Run]:
        """Runs that match, such as `search("metrics.accuracy > 0.9", order_by=["metrics.accuracy DESC"])`."""
        ids = [(await self.experiment(name)).id for name in experiments]
        size = min(limit or 100, 1000)
        query = RunSearch(experiment_ids=ids, filter=filter, order_by=list(order_by), page_size=size)
        body = query.model_dump(mode="json", exclude_unset=True) | given(fields=fields)
        seen = 0
        while True:
            page = await self._client.send("POST", "/api/runs/search", Page[Run], json=body)
            for run in page.items:
                yield run
                seen += 1
                if limit is not None and seen >= limit:
                    return
            if page.next_page_token is None:
                return
            body["page_token"] = page.next_page_token

    async def metrics(self, run_id: str) -> Sequence[Metric]:
        """What is kept of each metric: last, least, greatest, mean."""
        response = await self._client.request("GET", f"{_run(run_id)}/metrics")
        try:
            return TypeAdapter(list[Metric]).validate_json(response.content)
        except ValidationError as error:
            raise unexpected_answer(response) from error

    def history(self, run_id: str, key: str, *, limit: int | None = None) -> AsyncIterator[Point]:
        """All points of one metric, in order of step and time."""
        return self._client.pages(Point, f"{_run(run_id)}/metrics/{file_path(key)}", limit=limit)

    # Artifacts

    def artifacts(self, run_id: str, path: str = "") -> AsyncIterator[ArtifactEntry]:
        """What lies in one folder of a run's artifacts."""
        return self._client.pages(ArtifactEntry, f"{_run(run_id)}/artifacts", params=given(path=path or None))

    async def download_artifacts(
        self, run_id: str, path: str = "", *, to: Path | str = ".", progress: bool | None = None
    ) -> Path:
        """Bring a file, or a folder with all that lies below it, into the directory `to`; verified and cached."""
        files = [
            RemoteFile(entry.path, entry.sha256 or "", entry.size, f"{_run(run_id)}/artifacts/{file_path(entry.path)}")
            async for entry in self._files(run_id, path)
        ]
        if not files:
            raise missing(f"Run {run_id} has no artifact at {path!r}.")
        await self._artifacts.download(files, Path(to), label=path or run_id, progress=progress)
        return Path(to) / path

    async def _files(self, run_id: str, path: str) -> AsyncIterator[ArtifactEntry]:
        folders = [path]
        if path:
            # Only the listing of the folder around it says whether a path is a file or a folder.
            around = [entry async for entry in self.artifacts(run_id, path.rpartition("/")[0]) if entry.path == path]
            folders = [entry.path for entry in around if entry.is_folder]
            for entry in around:
                if not entry.is_folder:
                    yield entry
        while folders:
            async for entry in self.artifacts(run_id, folders.pop()):
                if entry.is_folder:
                    folders.append(entry.path)
                else:
                    yield entry

    # What waits

    async def sync(self) -> tuple[int, int]:
        """Send what earlier processes could not deliver. Answers how many requests were delivered and how many remain."""
        return await backend.in_thread(self._recording().sync)

    async def aclose(self) -> None:
        if self._recorder is not None:
            await backend.in_thread(self._recorder.close)

    def _recording(self) -> Recorder:
        if self._recorder is None:
            outside = backend.Outside()

            def send(delivery: Delivery) -> None:
                async def request() -> None:
                    await self._delivery_client.request(
                        delivery.method, delivery.path, json=delivery.body, idempotency_key=delivery.idempotency_key
                    )

                outside.call(request, timeout_seconds=2 * DELIVERY_SECONDS)

            self._recorder = Recorder(send, self._spool)
        return self._recorder


def _run(run_id: str) -> str:
    return f"/api/runs/{segment(run_id)}"


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(character in "0123456789abcdef" for character in text)

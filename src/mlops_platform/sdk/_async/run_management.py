"""What `platform.tracking` does with runs and experiments as a whole: their life, their places, and talk about them."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mlops_platform.contracts.tracking import DatasetInput, Experiment, Run, RunModel
from mlops_platform.contracts.tracking_compare import Comparison
from mlops_platform.contracts.tracking_experiments import Comment, ExperimentContents, ExperimentFolder, SavedView
from mlops_platform.contracts.tracking_runs import BulkChanged, RunLease, RunsPurged
from mlops_platform.sdk._async.client import AsyncServiceClient, unexpected_answer
from mlops_platform.sdk._async.listing import AsyncListing
from mlops_platform.sdk.wire import given, segment

T = TypeVar("T", DatasetInput, RunModel)


class AsyncRunManagement(ABC):
    """The part of `platform.tracking` that records nothing."""

    _client: AsyncServiceClient

    @abstractmethod
    async def experiment(self, name_or_id: str) -> Experiment: ...

    # A run's life

    async def heartbeat(self, run_id: str, *, writer: str | None = None, heartbeat_seconds: int | None = None) -> RunLease:
        """Say that the run's process is alive; silence for longer than it promised marks the run FAILED."""
        body = given(writer=writer, heartbeat_seconds=heartbeat_seconds)
        return await self._client.send("POST", f"{_run(run_id)}/heartbeat", RunLease, json=body)

    async def lease(self, run_id: str) -> RunLease:
        """Who writes a run, when it was last heard, and when it counts as dead. `NotFound` when nobody said so."""
        return await self._client.get(RunLease, f"{_run(run_id)}/heartbeat")

    async def take_run(
        self, run_id: str, writer: str, *, heartbeat_seconds: int | None = None, take_over: bool = False
    ) -> Run:
        """Set a run running for this writer. `RunHeld`, which names the other one, while another writer has it."""
        body = given(writer=writer, heartbeat_seconds=heartbeat_seconds, take_over=take_over)
        return await self._client.send("POST", f"{_run(run_id)}/resume", Run, json=body)

    def children(self, run_id: str, *, limit: int | None = None) -> AsyncListing[Run]:
        """The runs directly below one."""
        return AsyncListing(lambda: self._client.pages(Run, f"{_run(run_id)}/children", limit=limit))

    async def correct_param(self, run_id: str, key: str, value: Any, *, reason: str) -> Run:
        """Correct a parameter that was logged wrong; the correction is audited with its reason."""
        body = {"key": key, "value": value, "reason": reason}
        return await self._client.send("PATCH", f"{_run(run_id)}/params", Run, json=body)

    # What it read and made

    async def inputs(self, run_id: str) -> Sequence[DatasetInput]:
        """The datasets that a run read."""
        return await self._listed(DatasetInput, f"{_run(run_id)}/inputs")

    async def models(self, run_id: str) -> Sequence[RunModel]:
        """The models that a run made or read; `load_model` loads one by its `path`."""
        return await self._listed(RunModel, f"{_run(run_id)}/models")

    async def _listed(self, kind: type[T], path: str) -> Sequence[T]:
        response = await self._client.request("GET", path)
        try:
            return TypeAdapter(list[kind]).validate_json(response.content)  # type: ignore[valid-type]  # known at run time
        except ValidationError as error:
            raise unexpected_answer(response) from error

    # Their places

    async def move_run(self, run_id: str, experiment: str) -> Run:
        """Give a run to another experiment; its id stays."""
        target = await self.experiment(experiment)
        return await self._client.send("POST", f"{_run(run_id)}/move", Run, json={"experiment_id": target.id})

    async def copy_run(self, run_id: str, experiment: str, **options: Any) -> Run:
        """Copy a run that has ended. Options: `run_name`, `with_artifacts`, `with_metrics`."""
        target = await self.experiment(experiment)
        body = {"experiment_id": target.id, **options}
        return await self._client.send("POST", f"{_run(run_id)}/copy", Run, json=body)

    async def purge_run(self, run_id: str) -> RunsPurged:
        """Remove a deleted run for ever."""
        return await self._client.send("POST", f"{_run(run_id)}/purge", RunsPurged)

    async def bulk(
        self,
        action: str,
        *,
        run_ids: Sequence[str] | None = None,
        filter: str = "",  # noqa: A002  # the word of the wire
        experiments: Sequence[str] = (),
        tags: Mapping[str, str | None] | None = None,
        to: str | None = None,
    ) -> BulkChanged:
        """`delete`, `restore`, `tag` or `move` up to 1,000 runs, by id or by a search in experiments: all or none."""
        body = given(action=action, run_ids=run_ids, tags=tags)
        if run_ids is None:
            ids = [(await self.experiment(name)).id for name in experiments]
            body["search"] = {"filter": filter, "experiment_ids": ids}
        if to is not None:
            body["experiment_id"] = (await self.experiment(to)).id
        return await self._client.send("POST", "/api/runs/bulk", BulkChanged, json=body)

    async def compare(self, run_ids: Sequence[str], **options: Any) -> Comparison:
        """Runs side by side. Options: `target`, `importance`, `summary`, `params`, `metrics`, `baseline_run_id`."""
        body = {"run_ids": list(run_ids), **options}
        return await self._client.send("POST", "/api/compare", Comparison, json=body)

    # Experiments

    def folder(self, path: str = "", *, limit: int | None = None) -> AsyncListing[ExperimentFolder]:
        """What lies directly in a folder of experiments."""
        query = given(path=path or None)
        return AsyncListing(
            lambda: self._client.pages(ExperimentFolder, "/api/experiments/folders", params=query, limit=limit)
        )

    async def archive_experiment(self, name_or_id: str) -> Experiment:
        """Put an experiment away; `restore_experiment` brings it back."""
        found = await self.experiment(name_or_id)
        return await self._client.send("POST", f"/api/experiments/{found.id}/archive", Experiment)

    async def purge_experiment(self, experiment_id: str, *, confirm: str | None = None) -> ExperimentContents:
        """What purging would remove; with the experiment's name in `confirm` it is removed for ever."""
        body = given(preview=confirm is None, confirm=confirm)
        return await self._client.send(
            "POST", f"/api/experiments/{segment(experiment_id)}/purge", ExperimentContents, json=body
        )

    async def set_baseline(self, experiment: str, run_id: str | None) -> Experiment:
        """Pin the run that others of the experiment are compared with; None unpins it."""
        path = f"/api/experiments/{(await self.experiment(experiment)).id}/baseline"
        if run_id is None:
            return await self._client.send("DELETE", path, Experiment)
        return await self._client.send("PUT", path, Experiment, json={"run_id": run_id})

    # Talk and views

    def comments(self, run_id: str, *, limit: int | None = None) -> AsyncListing[Comment]:
        """The comments on a run, the oldest first."""
        return AsyncListing(lambda: self._client.pages(Comment, f"{_run(run_id)}/comments", limit=limit))

    async def comment(self, run_id: str, text: str) -> Comment:
        """Comment on a run, in Markdown; `@name` mentions somebody."""
        return await self._client.send("POST", f"{_run(run_id)}/comments", Comment, json={"text": text})

    async def edit_comment(self, run_id: str, comment_id: str, text: str) -> Comment:
        """Change a comment of one's own."""
        path = f"{_run(run_id)}/comments/{segment(comment_id)}"
        return await self._client.send("PATCH", path, Comment, json={"text": text})

    async def delete_comment(self, run_id: str, comment_id: str) -> None:
        await self._client.request("DELETE", f"{_run(run_id)}/comments/{segment(comment_id)}")

    def views(self, experiment: str, *, limit: int | None = None) -> AsyncListing[SavedView]:
        """The saved views of an experiment."""
        return AsyncListing(lambda: self._views(experiment, limit))

    async def _views(self, experiment: str, limit: int | None) -> AsyncIterator[SavedView]:
        path = f"/api/experiments/{(await self.experiment(experiment)).id}/views"
        async for view in self._client.pages(SavedView, path, limit=limit):
            yield view

    async def view(self, view_id: str) -> SavedView:
        """One saved view, such as a link names it."""
        return await self._client.get(SavedView, f"/api/views/{segment(view_id)}")

    async def save_view(self, experiment: str, name: str, **fields: Any) -> SavedView:
        """Save a view. Fields: `filter`, `order_by`, `columns`, `charts`."""
        path = f"/api/experiments/{(await self.experiment(experiment)).id}/views"
        return await self._client.send("POST", path, SavedView, json={"name": name, **fields})

    async def update_view(self, view_id: str, **changes: Any) -> SavedView:
        """Change `name`, `filter`, `order_by`, `columns` or `charts`."""
        return await self._client.send("PATCH", f"/api/views/{segment(view_id)}", SavedView, json=changes)

    async def delete_view(self, view_id: str) -> None:
        await self._client.request("DELETE", f"/api/views/{segment(view_id)}")


def _run(run_id: str) -> str:
    return f"/api/runs/{segment(run_id)}"

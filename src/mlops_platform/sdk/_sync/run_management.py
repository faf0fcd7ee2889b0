# Generated from sdk/_async/run_management.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""What `platform.tracking` does with runs and experiments as a whole: their life, their places, and talk about them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mlops_platform.contracts.tracking import DatasetInput, Experiment, Run, RunModel
from mlops_platform.contracts.tracking_compare import Comparison
from mlops_platform.contracts.tracking_experiments import Comment, ExperimentContents, ExperimentFolder, SavedView
from mlops_platform.contracts.tracking_runs import BulkChanged, RunLease, RunsPurged
from mlops_platform.sdk._sync.client import ServiceClient, unexpected_answer
from mlops_platform.sdk._sync.listing import Listing
from mlops_platform.sdk.wire import given, segment

T = TypeVar("T", DatasetInput, RunModel)


class RunManagement(ABC):
    """The part of `platform.tracking` that records nothing."""

    _client: ServiceClient

    @abstractmethod
    def experiment(self, name_or_id: str) -> Experiment: ...

    # A run's life

    def heartbeat(self, run_id: str, *, writer: str | None = None, heartbeat_seconds: int | None = None) -> RunLease:
        """Say that the run's process is alive; silence for longer than it promised marks the run FAILED."""
        body = given(writer=writer, heartbeat_seconds=heartbeat_seconds)
        return self._client.send("POST", f"{_run(run_id)}/heartbeat", RunLease, json=body)

    def lease(self, run_id: str) -> RunLease:
        """Who writes a run, when it was last heard, and when it counts as dead. `NotFound` when nobody said so."""
        return self._client.get(RunLease, f"{_run(run_id)}/heartbeat")

    def take_run(self, run_id: str, writer: str, *, heartbeat_seconds: int | None = None, take_over: bool = False) -> Run:
        """Set a run running for this writer. `RunHeld`, which names the other one, while another writer has it."""
        body = given(writer=writer, heartbeat_seconds=heartbeat_seconds, take_over=take_over)
        return self._client.send("POST", f"{_run(run_id)}/resume", Run, json=body)

    def children(self, run_id: str, *, limit: int | None = None) -> Listing[Run]:
        """The runs directly below one."""
        return Listing(lambda: self._client.pages(Run, f"{_run(run_id)}/children", limit=limit))

    def correct_param(self, run_id: str, key: str, value: Any, *, reason: str) -> Run:
        """Correct a parameter that was logged wrong; the correction is audited with its reason."""
        body = {"key": key, "value": value, "reason": reason}
        return self._client.send("PATCH", f"{_run(run_id)}/params", Run, json=body)

    # What it read and made

    def inputs(self, run_id: str) -> Sequence[DatasetInput]:
        """The datasets that a run read."""
        return self._listed(DatasetInput, f"{_run(run_id)}/inputs")

    def models(self, run_id: str) -> Sequence[RunModel]:
        """The models that a run made or read; `load_model` loads one by its `path`."""
        return self._listed(RunModel, f"{_run(run_id)}/models")

    def _listed(self, kind: type[T], path: str) -> Sequence[T]:
        response = self._client.request("GET", path)
        try:
            return TypeAdapter(list[kind]).validate_json(response.content)  # type: ignore[valid-type]  # known at run time
        except ValidationError as error:
            raise unexpected_answer(response) from error

    # Their places

    def move_run(self, run_id: str, experiment: str) -> Run:
        """Give a run to another experiment; its id stays."""
        target = self.experiment(experiment)
        return self._client.send("POST", f"{_run(run_id)}/move", Run, json={"experiment_id": target.id})

    def copy_run(self, run_id: str, experiment: str, **options: Any) -> Run:
        """Copy a run that has ended. Options: `run_name`, `with_artifacts`, `with_metrics`."""
        target = self.experiment(experiment)
        body = {"experiment_id": target.id, **options}
        return self._client.send("POST", f"{_run(run_id)}/copy", Run, json=body)

    def purge_run(self, run_id: str) -> RunsPurged:
        """Remove a deleted run for ever."""
        return self._client.send("POST", f"{_run(run_id)}/purge", RunsPurged)

    def bulk(
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
            ids = [(self.experiment(name)).id for name in experiments]
            body["search"] = {"filter": filter, "experiment_ids": ids}
        if to is not None:
            body["experiment_id"] = (self.experiment(to)).id
        return self._client.send("POST", "/api/runs/bulk", BulkChanged, json=body)

    def compare(self, run_ids: Sequence[str], **options: Any) -> Comparison:
        """Runs side by side. Options: `target`, `importance`, `summary`, `params`, `metrics`, `baseline_run_id`."""
        body = {"run_ids": list(run_ids), **options}
        return self._client.send("POST", "/api/compare", Comparison, json=body)

    # Experiments

    def folder(self, path: str = "", *, limit: int | None = None) -> Listing[ExperimentFolder]:
        """What lies directly in a folder of experiments."""
        query = given(path=path or None)
        return Listing(lambda: self._client.pages(ExperimentFolder, "/api/experiments/folders", params=query, limit=limit))

    def archive_experiment(self, name_or_id: str) -> Experiment:
        """Put an experiment away; `restore_experiment` brings it back."""
        found = self.experiment(name_or_id)
        return self._client.send("POST", f"/api/experiments/{found.id}/archive", Experiment)

    def purge_experiment(self, experiment_id: str, *, confirm: str | None = None) -> ExperimentContents:
        """What purging would remove; with the experiment's name in `confirm` it is removed for ever."""
        body = given(preview=confirm is None, confirm=confirm)
        return self._client.send("POST", f"/api/experiments/{segment(experiment_id)}/purge", ExperimentContents, json=body)

    def set_baseline(self, experiment: str, run_id: str | None) -> Experiment:
        """Pin the run that others of the experiment are compared with; None unpins it."""
        path = f"/api/experiments/{(self.experiment(experiment)).id}/baseline"
        if run_id is None:
            return self._client.send("DELETE", path, Experiment)
        return self._client.send("PUT", path, Experiment, json={"run_id": run_id})

    # Talk and views

    def comments(self, run_id: str, *, limit: int | None = None) -> Listing[Comment]:
        """The comments on a run, the oldest first."""
        return Listing(lambda: self._client.pages(Comment, f"{_run(run_id)}/comments", limit=limit))

    def comment(self, run_id: str, text: str) -> Comment:
        """Comment on a run, in Markdown; `@name` mentions somebody."""
        return self._client.send("POST", f"{_run(run_id)}/comments", Comment, json={"text": text})

    def edit_comment(self, run_id: str, comment_id: str, text: str) -> Comment:
        """Change a comment of one's own."""
        path = f"{_run(run_id)}/comments/{segment(comment_id)}"
        return self._client.send("PATCH", path, Comment, json={"text": text})

    def delete_comment(self, run_id: str, comment_id: str) -> None:
        self._client.request("DELETE", f"{_run(run_id)}/comments/{segment(comment_id)}")

    def views(self, experiment: str, *, limit: int | None = None) -> Listing[SavedView]:
        """The saved views of an experiment."""
        return Listing(lambda: self._views(experiment, limit))

    def _views(self, experiment: str, limit: int | None) -> Iterator[SavedView]:
        path = f"/api/experiments/{(self.experiment(experiment)).id}/views"
        yield from self._client.pages(SavedView, path, limit=limit)

    def view(self, view_id: str) -> SavedView:
        """One saved view, such as a link names it."""
        return self._client.get(SavedView, f"/api/views/{segment(view_id)}")

    def save_view(self, experiment: str, name: str, **fields: Any) -> SavedView:
        """Save a view. Fields: `filter`, `order_by`, `columns`, `charts`."""
        path = f"/api/experiments/{(self.experiment(experiment)).id}/views"
        return self._client.send("POST", path, SavedView, json={"name": name, **fields})

    def update_view(self, view_id: str, **changes: Any) -> SavedView:
        """Change `name`, `filter`, `order_by`, `columns` or `charts`."""
        return self._client.send("PATCH", f"/api/views/{segment(view_id)}", SavedView, json=changes)

    def delete_view(self, view_id: str) -> None:
        self._client.request("DELETE", f"/api/views/{segment(view_id)}")


def _run(run_id: str) -> str:
    return f"/api/runs/{segment(run_id)}"

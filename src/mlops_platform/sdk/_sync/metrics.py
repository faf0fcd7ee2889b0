# Generated from sdk/_async/metrics.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""What `platform.tracking` reads of metrics, and how it corrects them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from mlops_platform.contracts.tracking import Experiment, Metric, Point
from mlops_platform.contracts.tracking_metrics import ExperimentMetricGoal, MetricGoal, MetricsTruncated
from mlops_platform.sdk._sync.client import ServiceClient, unexpected_answer
from mlops_platform.sdk._sync.listing import Listing
from mlops_platform.sdk.contexts import spelled
from mlops_platform.sdk.series import Curves
from mlops_platform.sdk.wire import file_path, given, segment

A = TypeVar("A", bound=BaseModel)
MOST_KEYS = 100


class Metrics(ABC):
    """The part of `platform.tracking` about metrics."""

    _client: ServiceClient

    @abstractmethod
    def experiment(self, name_or_id: str) -> Experiment: ...

    @abstractmethod
    def _settle(self) -> None: ...

    def metrics(self, run_id: str) -> Sequence[Metric]:
        """What is kept of each metric: last, best, least, greatest, mean."""
        return self._several(Metric, f"{_run(run_id)}/metrics")

    def history(
        self, run_id: str, key: str, *, context: Mapping[str, str] | None = None, limit: int | None = None
    ) -> Listing[Point]:
        """All points of one metric, exactly, in order of step and time."""
        path = f"{_run(run_id)}/metrics/{file_path(spelled(key, context))}"
        return Listing(lambda: self._client.pages(Point, path, limit=limit))

    def points(self, run_id: str, keys: Sequence[str], *, limit: int | None = None) -> Listing[Point]:
        """All points of several metrics, one metric after the other. A context is written as in `loss{split=val}`."""
        return Listing(lambda: self._points(run_id, list(keys), limit))

    def _points(self, run_id: str, keys: list[str], limit: int | None) -> Iterator[Point]:
        seen = 0
        for first in range(0, len(keys), MOST_KEYS):
            query = {"key": keys[first : first + MOST_KEYS]}
            for point in self._client.pages(Point, f"{_run(run_id)}/metric-points", params=query):
                yield point
                seen += 1
                if limit is not None and seen >= limit:
                    return

    def series(
        self,
        runs: Sequence[str],
        keys: Sequence[str],
        *,
        x: str = "step",
        max_points: int = 320,
        method: str = "minmax",
    ) -> Curves:
        """Metrics of runs for charts, each reduced to `max_points` of its own points with its peaks kept.

        `x`: `step`, `time` or `relative_time`. `method`: `minmax`, or `lttb` for the shape of the line.
        """
        body = {"runs": list(runs), "keys": list(keys), "x": x, "max_points": max_points, "method": method}
        return self._client.send("POST", "/api/series", Curves, json=body)

    def truncate_metrics(
        self, run_id: str, *, from_step: int, keys: Sequence[str] | None = None, reason: str | None = None
    ) -> MetricsTruncated:
        """Remove the points from a step on, of all metrics or of `keys`, before a training goes on from a checkpoint.

        What was recorded on this machine is delivered first: else points of the crashed process would arrive afterwards.
        """
        self._settle()
        body = given(from_step=from_step, keys=None if keys is None else list(keys), reason=reason)
        return self._client.send("POST", f"{_run(run_id)}/metrics/truncate", MetricsTruncated, json=body)

    # Goals

    def goals(self, experiment: str) -> Sequence[ExperimentMetricGoal]:
        """Which values are better, for each metric for which the experiment says so."""
        found = self.experiment(experiment)
        return self._several(ExperimentMetricGoal, f"/api/experiments/{found.id}/metric-goals")

    def set_goal(self, experiment: str, key: str, goal: MetricGoal | str) -> ExperimentMetricGoal:
        """Declare whether small or large values of a metric are better: `minimize` or `maximize`."""
        path = self._goal(experiment, key)
        return self._client.send("PUT", path, ExperimentMetricGoal, json={"goal": str(goal)})

    def clear_goal(self, experiment: str, key: str) -> None:
        """Declare no goal."""
        self._client.request("DELETE", self._goal(experiment, key))

    def _goal(self, experiment: str, key: str) -> str:
        return f"/api/experiments/{(self.experiment(experiment)).id}/metrics/{file_path(key)}/goal"

    def _several(self, answer: type[A], path: str) -> list[A]:
        response = self._client.request("GET", path)
        try:
            return TypeAdapter(list[answer]).validate_json(response.content)  # type: ignore[valid-type]  # the class is known at run time only
        except ValidationError as error:
            raise unexpected_answer(response) from error


def _run(run_id: str) -> str:
    return f"/api/runs/{segment(run_id)}"

# Generated from sdk/_async/ab_testing.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""A/B Testing: tests, routing, outcomes, results."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from mlops_platform.contracts.ab_testing import ABTest, ABTestResults, Allocation, Recorded, Route, SampleSize
from mlops_platform.sdk._sync.client import Pool, ServiceClient
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import given, segment


class ABTesting:
    """A/B tests between model versions."""

    def __init__(self, pool: Pool, settings: ClientSettings) -> None:
        self._client = ServiceClient(Service.AB_TESTING, pool, settings)

    def create(
        self,
        name: str,
        variants: Sequence[Mapping[str, Any]],
        *,
        description: str | None = None,
        unit_type: str | None = None,
        control: str | None = None,
        metrics: Sequence[Mapping[str, Any]] | None = None,
        traffic_share: float | None = None,
        status: str | None = None,
    ) -> ABTest:
        """A new test; each variant has `name`, `weight` and `model_version`. It runs unless `status="draft"`."""
        body = given(
            name=name,
            variants=variants,
            description=description,
            unit_type=unit_type,
            control=control,
            metrics=metrics,
            traffic_share=traffic_share,
            status=status,
        )
        return self._client.send("POST", "/api/experiments", ABTest, json=body)

    def get(self, name: str) -> ABTest:
        return self._client.get(ABTest, _test(name))

    def list(self, *, limit: int | None = None) -> Iterator[ABTest]:
        return self._client.pages(ABTest, "/api/experiments", limit=limit)

    def update(self, name: str, **changes: Any) -> ABTest:
        """Change `description`, `variants` (all of them, with new weights), `traffic_share` or `metrics`."""
        return self._client.send("PATCH", _test(name), ABTest, json=changes)

    def start(self, name: str) -> ABTest:
        """Start a draft, or go on after a pause."""
        return self._client.send("POST", f"{_test(name)}/start", ABTest)

    def pause(self, name: str) -> ABTest:
        return self._client.send("POST", f"{_test(name)}/pause", ABTest)

    def stop(self, name: str, *, winner: str | None = None, note: str | None = None) -> ABTest:
        """End the test; with a winner all units get the winner's model version, else the control's."""
        return self._client.send("POST", f"{_test(name)}/stop", ABTest, json=given(winner=winner, note=note))

    def archive(self, name: str) -> ABTest:
        """Put a stopped test out of sight; its results stay."""
        return self._client.send("POST", f"{_test(name)}/archive", ABTest)

    def delete(self, name: str) -> None:
        """Hide the test; `restore` takes it back."""
        self._client.request("DELETE", _test(name))

    def restore(self, name: str) -> ABTest:
        return self._client.send("POST", f"{_test(name)}/restore", ABTest)

    def route(self, name: str, user_id: str) -> Route:
        """Which model version a unit gets: the same one each time. Notes that the unit met the variant."""
        return self._client.get(Route, "/api/route", params={"user_id": user_id, "experiment": name})

    def outcome(
        self, name: str, user_id: str, *, metric: str, value: float | bool, timestamp: datetime | None = None
    ) -> Recorded:
        """What a unit did, such as `outcome("test", "user_1", metric="converted", value=True)`."""
        return self.outcomes(name, [given(unit_id=user_id, metric=metric, value=value, timestamp=timestamp)])

    def outcomes(self, name: str, items: Sequence[Mapping[str, Any]]) -> Recorded:
        """Many outcomes: `unit_id`, `metric`, `value`, and optionally `timestamp` or `outcome_id`."""
        body = [
            item if {"timestamp", "outcome_id"} & item.keys() else {**item, "outcome_id": uuid4().hex} for item in items
        ]
        return self._client.send("POST", f"{_test(name)}/outcomes", Recorded, json=body)

    def exposures(self, name: str, items: Sequence[Mapping[str, Any]]) -> Recorded:
        """Units that met a variant elsewhere: `unit_id`, `variant`, and optionally `timestamp`."""
        return self._client.send("POST", f"{_test(name)}/exposures", Recorded, json=list(items))

    def results(self, name: str) -> ABTestResults:
        """The evidence so far, with confidence intervals."""
        return self._client.get(ABTestResults, f"{_test(name)}/results")

    def allocation(self, name: str) -> Allocation:
        """All that is needed to assign units without asking."""
        return self._client.get(Allocation, f"{_test(name)}/allocation")

    def sample_size(self, **question: Any) -> SampleSize:
        """How many units a test needs to see an effect."""
        return self._client.get(SampleSize, "/api/sample-size", params=question)


def _test(name: str) -> str:
    return f"/api/experiments/{segment(name)}"

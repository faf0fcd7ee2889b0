"""A project with something in it, so that requests reach further than the first 404."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from tests.conftest import Caller
from tests.factories import ab_testing, features, pipelines, registry, tracking

Place = dict[str, str]
_counter = itertools.count()


async def _registry(caller: Caller) -> Place:
    version = await registry.a_version(caller, name="fraud", version="1")
    await caller.http.put("/api/models/fraud/versions/1/artifacts/model.bin", content=b"weights")
    await caller.http.put("/api/models/fraud/aliases/champion", json={"version": version["version"]})
    return {"name": "fraud", "version": "1", "alias": "champion", "path": "model.bin"}


async def _tracking(caller: Caller) -> Place:
    experiment_id = await tracking.an_experiment(caller)
    run_id = await tracking.a_run(caller, experiment_id, metrics={"loss": 0.5})
    await caller.http.put(f"/api/runs/{run_id}/artifacts/model.bin", content=b"GIF89a weights")
    view = await caller.http.post(f"/api/experiments/{experiment_id}/views", json={"name": "best"})
    comment = await caller.http.post(f"/api/runs/{run_id}/comments", json={"text": "look, @grace"})
    return {
        "experiment_id": experiment_id,
        "run_id": run_id,
        "key": "loss",
        "path": "model.bin",
        "view_id": view.json()["id"],
        "comment_id": comment.json()["id"],
    }


async def _features(caller: Caller) -> Place:
    await features.a_feature_set(caller)
    await features.ingest(caller, features.a_row(age=33, avg_session_duration=1.5))
    made = await features.training_set(caller, [features.a_row(hours=1, label=1)], ["age"])
    return {"name": "user_features", "training_set_id": made["id"]}


async def _pipelines(caller: Caller) -> Place:
    run_id = await pipelines.a_run(caller, pipelines.a_task("first"), name="nightly")
    await caller.http.put("/api/pipelines/nightly/schedule", json={"cron": "30 2 * * *"})
    return {"name": "nightly", "version": "1", "run_id": run_id, "task": "first"}


async def _ab_testing(caller: Caller) -> Place:
    await ab_testing.a_test(caller, metrics=[{"name": "converted"}])
    return {"name": "model_v2_test"}


_MAKERS: dict[str, Callable[[Caller], Awaitable[Place]]] = {
    "model-registry": _registry,
    "experiment-tracking": _tracking,
    "feature-store": _features,
    "pipeline-orchestrator": _pipelines,
    "ab-testing": _ab_testing,
}
PROJECT = "THE-PROJECT"
_URN = f"urn:mlops:{PROJECT}:training-set:11111111111111111111111111111111"
_ROW = features.a_row(hours=2)
_BEAT = {"writer": "trainer-1", "heartbeat_seconds": 60}
_SEARCH = {"experiment_ids": ["0" * 31 + "1"], "filter": "metrics.loss > 0"}
_POINT: dict[str, Any] = {
    "run": [0],
    "key": [0],
    "step": [1],
    "time_us": [1_790_000_000_000_000],
    "value": [0.5],
    "arrived": [False],
}
_POINT |= {"run_ids": ["0" * 31 + "1"], "keys": [{"name": "loss"}]}
# Where the schema alone does not say what makes sense together.
BODIES: dict[tuple[str, str, str], Any] = {
    ("experiment-tracking", "POST", "/api/runs/{run_id}/inputs"): {"inputs": [_URN]},
    ("experiment-tracking", "POST", "/api/experiments/{experiment_id}/runs/{run_id}/inputs"): {"inputs": [_URN]},
    ("experiment-tracking", "POST", "/api/runs/{run_id}/heartbeat"): _BEAT,
    ("experiment-tracking", "POST", "/api/experiments/{experiment_id}/runs/{run_id}/heartbeat"): _BEAT,
    ("experiment-tracking", "POST", "/api/experiments/{experiment_id}/import/points"): _POINT,
    ("experiment-tracking", "POST", "/api/runs/bulk"): {"action": "delete", "search": _SEARCH},
    ("experiment-tracking", "POST", "/api/compare"): {"search": _SEARCH, "summary": "max"},
    ("model-registry", "PUT", "/api/models/{name}/aliases/{alias}"): {"version": "1"},
    ("feature-store", "POST", "/api/feature-sets/{name}/rows"): {"rows": [_ROW]},
    ("feature-store", "POST", "/api/features/serve"): {"entities": ["user_123"], "features": ["age"]},
    ("feature-store", "POST", "/api/training-sets"): {"rows": [_ROW | {"label": 1}], "features": ["age"]},
    ("experiment-tracking", "POST", "/api/runs/search"): {"filter": "metrics.loss > 0"},
    ("ab-testing", "POST", "/api/experiments"): ab_testing.BRIEF,
    ("ab-testing", "PATCH", "/api/experiments/{name}"): {"variants": ab_testing.variants(control=0.4, treatment=0.6)},
    ("ab-testing", "POST", "/api/experiments/{name}/exposures"): {"unit_id": "user_123", "variant": "control"},
    ("ab-testing", "POST", "/api/experiments/{name}/outcomes"): {"unit_id": "user_123", "metric": "converted", "value": 1},
}
QUERIES: dict[tuple[str, str, str], dict[str, str]] = {
    ("ab-testing", "GET", "/api/route"): {"user_id": "user_123", "experiment": "model_v2_test"},
    ("ab-testing", "GET", "/api/sample-size"): {"baseline": "0.1", "minimum_effect": "0.02"},
    ("model-registry", "GET", "/api/lineage"): {"urn": _URN},
    ("experiment-tracking", "GET", "/api/runs/{run_id}/metric-points"): {"key": "loss"},
    ("experiment-tracking", "GET", "/api/experiments/{experiment_id}/runs/{run_id}/metric-points"): {"key": "loss"},
    ("experiment-tracking", "GET", "/api/experiments/{experiment_id}/export/points"): {"run_id": "0" * 31 + "1"},
    ("experiment-tracking", "GET", "/api/experiments/{experiment_id}/export/artifacts"): {"owner_id": "0" * 31 + "1"},
    ("feature-store", "GET", "/api/features/serve"): {"entities": "user_123", "features": "age"},
    ("experiment-tracking", "GET", "/api/runs"): {"filter": "metrics.loss > 0"},
}


async def furnished(caller: Caller, service: str) -> Place:
    """Values of path parameters that exist."""
    return await _MAKERS[service](caller)


# The valid request itself is refused here.
REFUSED = {("model-registry", "POST", "/api/platform/webhooks"): "its URL is looked up, and tests have no network"}
# Their names must be new each time, or everything else would hide behind "taken".
NAMED = {("ab-testing", "POST", "/api/experiments")}


def fresh() -> int:
    """A number that was not used before."""
    return next(_counter)

"""Records of archives, and an experiment that has one of everything."""

from typing import Any

from mlops_platform.core.identity import new_id
from tests.conftest import Caller
from tests.factories.tracking import a_run, an_experiment

NO_POINTS: dict[str, Any] = {
    "run_ids": [], "keys": [], "run": [], "key": [], "step": [], "time_us": [], "value": [], "arrived": []
}  # fmt: skip
AT = "2026-01-31T09:00:00.000001Z"


def a_record(**fields: Any) -> dict[str, Any]:
    """A run as an archive has it."""
    made = {"created_by": "ada", "created_at": AT, "updated_at": AT}
    return {"id": new_id(), "run_name": "r", "status": "FINISHED", **made, **fields}


def a_model(**fields: Any) -> dict[str, Any]:
    """A logged model as an archive has it."""
    made = {"created_by": "ada", "created_at": AT, "updated_at": AT}
    return {"id": new_id(), "name": "m", "status": "READY", **made, **fields}


def an_archived_experiment(**fields: Any) -> dict[str, Any]:
    """An experiment as an archive has it."""
    made = {"created_by": "ada", "created_at": AT, "updated_at": AT}
    return {"id": new_id(), "name": "from elsewhere", **made, **fields}


async def a_full_experiment(caller: Caller, name: str = "vision/cats") -> tuple[str, dict[str, str]]:
    """An experiment in which everything stands that an archive keeps; its id and those of its runs by what they are for."""
    experiment_id = await an_experiment(caller, name, description="What is a cat?", tags={"team": "vision"})
    points: list[dict[str, Any]] = [
        {"loss": 1 / (step + 1), "step": step, "timestamp": 1_790_000_000_000 + step, "context": {"split": "val"}}
        for step in range(100)
    ]
    odd: list[dict[str, Any]] = [{"odd": value, "step": -5, "timestamp": AT} for value in ("NaN", "Infinity", "-Infinity")]
    odd += [{"arrived": 0.1 + 0.2, "step": 2**62}, {"tiny": 5e-324, "timestamp": "2026-01-31T09:00:00.123456Z"}]
    inner = {"lr": 1e-3, "big": 2**53 - 1, "flag": True, "text": "ä", "list": [1, None, {"a": "b"}], "o": {"n": "adam"}}
    parent = await a_run(
        caller, experiment_id, [*points, *odd], run_name="parent", parameters=inner, tags={"t": "x"},
        start_time="2025-01-01T00:00:00Z", user="grace", group="g", notes="*why*",
    )  # fmt: skip
    child = await a_run(caller, experiment_id, {"loss": 2}, parent_run_id=parent, status="RUNNING")
    gone = await a_run(caller, experiment_id, {"loss": 3}, status="FAILED")
    await caller.http.patch(f"/api/runs/{parent}", json={"status": "FINISHED", "end_time": "2025-01-02T00:00:00.5Z"})
    for run_id, path, content in (
        (parent, "a/model.bin", b"weights"),
        (child, "same.bin", b"weights"),
        (gone, "ü.txt", b""),
    ):
        headers = {"Content-Type": "text/plain"}
        stored = await caller.http.put(f"/api/runs/{run_id}/artifacts/{path}", content=content, headers=headers)
        assert stored.status_code == 200, stored.text
    await caller.http.delete(f"/api/runs/{gone}")
    comment = await caller.http.post(f"/api/runs/{parent}/comments", json={"text": "Look, @grace"})
    assert comment.status_code == 201
    await caller.http.put(f"/api/experiments/{experiment_id}/metrics/loss/goal", json={"goal": "minimize"})
    view = {"name": "best", "filter": "metrics.loss < 1", "columns": ["run_name"], "charts": [{"kind": "line"}]}
    assert (await caller.http.post(f"/api/experiments/{experiment_id}/views", json=view)).status_code == 201
    await caller.http.put(f"/api/experiments/{experiment_id}/baseline", json={"run_id": parent})
    await _with_mlflow(caller, experiment_id, parent)
    return experiment_id, {"parent": parent, "child": child, "gone": gone}


async def _with_mlflow(caller: Caller, experiment_id: str, run_id: str) -> None:
    """What only MLflow's clients log: a dataset, and a model with a metric of its own and a file."""
    number = (await caller.http.get(f"/api/experiments/{experiment_id}")).json()["number"]
    dataset = {"name": "points", "digest": "d1", "source_type": "local", "source": "{}", "schema": "[]", "profile": "{}"}
    inputs = [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}]
    wire = "/api/2.0/mlflow"
    await _ok(caller, "POST", f"{wire}/runs/log-inputs", {"run_id": run_id, "datasets": inputs})
    made = await _ok(
        caller, "POST", f"{wire}/logged-models",
        {"experiment_id": str(number), "name": "cats", "source_run_id": run_id, "tags": [{"key": "k", "value": "v"}]},
    )  # fmt: skip
    model_id = made["model"]["info"]["model_id"]
    await _ok(caller, "POST", f"{wire}/runs/outputs", {"run_id": run_id, "models": [{"model_id": model_id, "step": 3}]})
    metric = {"run_id": run_id, "key": "acc", "value": 0.5, "timestamp": 1_790_000_000_000, "step": 1, "model_id": model_id}
    await _ok(caller, "POST", f"{wire}/runs/log-metric", {**metric, "dataset_name": "points", "dataset_digest": "d1"})
    path = f"/api/2.0/mlflow-artifacts/artifacts/{number}/models/{model_id}/artifacts/MLmodel"
    assert (await caller.http.put(path, content=b"flavors: {}")).status_code == 200
    await _ok(caller, "PATCH", f"{wire}/logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"})


async def _ok(caller: Caller, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await caller.http.request(method, path, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found

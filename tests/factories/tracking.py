"""Experiments and runs, made through the API."""

from typing import Any

from tests.conftest import Caller

EXPERIMENT = {"name": "model-optimization-2024", "description": "Hyperparameter tuning for classifier performance"}
RUN = {"run_name": "lstm_dropout_0.3", "parameters": {"learning_rate": 0.001, "batch_size": 32}}
METRICS = {"accuracy": 0.95, "precision": 0.92, "recall": 0.98, "step": 100}


async def an_experiment(caller: Caller, name: str = "study", **fields: Any) -> str:
    """The id of a new experiment."""
    response = await caller.http.post("/api/experiments", json={"name": name, **fields})
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def a_run(caller: Caller, experiment_id: str | None = None, metrics: Any = None, **fields: Any) -> str:
    """The id of a new run, in a new experiment unless one is given."""
    experiment_id = experiment_id or await an_experiment(caller)
    response = await caller.http.post(f"/api/experiments/{experiment_id}/runs", json=fields)
    assert response.status_code == 201, response.text
    run_id = response.json()["id"]
    if metrics is not None:
        await log(caller, run_id, metrics)
    return run_id


async def log(caller: Caller, run_id: str, body: Any) -> dict[str, Any]:
    """Points of a run; what became of them."""
    response = await caller.http.post(f"/api/runs/{run_id}/metrics", json=body)
    assert response.status_code == 200, response.text
    return response.json()

"""Sweeps, made and searched through the API."""

from collections.abc import Mapping
from typing import Any

from tests.conftest import Caller
from tests.factories.tracking import an_experiment

LOSS = [{"metric": "loss"}]
GRID = {"a": {"values": [1, 2, 3]}, "b": {"values": ["x", "y"]}}
LINE = {"x": {"min": -5.0, "max": 5.0}}


async def a_sweep(caller: Caller, experiment_id: str | None = None, **fields: Any) -> str:
    """The id of a new sweep: by default over a grid of six cells."""
    experiment_id = experiment_id or await an_experiment(caller)
    body = {"experiment_id": experiment_id, "method": "grid", "parameters": GRID, "objectives": LOSS} | fields
    response = await caller.http.post("/api/sweeps", json=body)
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def ask(caller: Caller, sweep_id: str, **fields: Any) -> dict[str, Any]:
    """What a worker is answered."""
    response = await caller.http.post(f"/api/sweeps/{sweep_id}/ask", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def a_trial(caller: Caller, sweep_id: str, **fields: Any) -> dict[str, Any]:
    """A trial, where there must be one."""
    trial = (await ask(caller, sweep_id, **fields))["trial"]
    assert trial is not None
    return trial


async def tell(caller: Caller, sweep_id: str, run_id: str, *values: Any, **fields: Any) -> dict[str, Any]:
    """How a trial ended; the answer."""
    body = {"run_id": run_id, **({"values": list(values)} if values else {}), **fields}
    response = await caller.http.post(f"/api/sweeps/{sweep_id}/tell", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def worked(caller: Caller, sweep_id: str, loss: Any, *, most: int = 1000) -> list[dict[str, Any]]:
    """Work on the sweep until there is nothing left, or so many trials are done; the trials."""
    done: list[dict[str, Any]] = []
    while len(done) < most and (trial := (await ask(caller, sweep_id))["trial"]) is not None:
        value = loss(trial["parameters"])
        done.append((await tell(caller, sweep_id, trial["run_id"], value))["trial"])
    return done


async def get(caller: Caller, sweep_id: str, part: str = "", **query: Any) -> dict[str, Any]:
    """A sweep, or a part of what it says."""
    response = await caller.http.get(f"/api/sweeps/{sweep_id}{part}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def quadratic(parameters: Mapping[str, Any]) -> float:
    """Least at 2 in every direction."""
    return sum((value - 2.0) ** 2 for value in parameters.values())

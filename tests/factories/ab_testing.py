"""Bodies and rows of A/B Testing."""

import json
from typing import Any

from tests.conftest import Caller

BRIEF = {
    "name": "model_v2_test",
    "variants": [
        {"name": "control", "weight": 0.5, "model_version": "v1.0"},
        {"name": "treatment", "weight": 0.5, "model_version": "v2.0"},
    ],
}


def variants(**weights: float) -> list[dict[str, Any]]:
    """Variants of these weights, each with a model version of its own."""
    return [{"name": name, "weight": weight, "model_version": f"m-{name}"} for name, weight in weights.items()]


async def a_test(caller: Caller, name: str = "model_v2_test", **fields: Any) -> dict[str, Any]:
    """A test, made through the API."""
    response = await caller.http.post("/api/experiments", json={**BRIEF, "name": name, **fields})
    assert response.status_code == 201, response.text
    return response.json()


async def route(caller: Caller, unit: str, experiment: str = "model_v2_test") -> dict[str, Any]:
    """Where a unit goes."""
    response = await caller.http.get("/api/route", params={"user_id": unit, "experiment": experiment})
    assert response.status_code == 200, response.text
    return response.json()


async def expose(caller: Caller, variant_of: dict[str, str], experiment: str = "model_v2_test", **fields: Any) -> None:
    """Units that met their variants."""
    batch = [{"unit_id": unit, "variant": variant, **fields} for unit, variant in variant_of.items()]
    response = await caller.http.post(f"/api/experiments/{experiment}/exposures", json=batch)
    assert response.status_code == 201, response.text


async def outcomes(caller: Caller, batch: Any, experiment: str = "model_v2_test") -> dict[str, int]:
    """What units did."""
    response = await caller.http.post(f"/api/experiments/{experiment}/outcomes", json=batch)
    assert response.status_code == 201, response.text
    return response.json()


async def results(caller: Caller, experiment: str = "model_v2_test", **query: Any) -> dict[str, Any]:
    """The results. NaN and infinities in them are an error."""
    response = await caller.http.get(f"/api/experiments/{experiment}/results", params=query)
    assert response.status_code == 200, response.text
    return json.loads(response.text, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"the answer holds {constant}")

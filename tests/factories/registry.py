"""Bodies and rows of the Model Registry."""

from typing import Any

from tests.conftest import Caller

BRIEF = {
    "name": "my-classifier-v1",
    "version": "1.0.0",
    "framework": "scikit-learn",
    "metrics": {"accuracy": 0.95, "f1_score": 0.92},
    "tags": ["production", "healthcare"],
}


async def a_version(caller: Caller, name: str = "fraud", **fields: Any) -> dict[str, Any]:
    """A version, made through the API."""
    response = await caller.http.post("/api/models", json={"name": name, **fields})
    assert response.status_code == 201, response.text
    return response.json()

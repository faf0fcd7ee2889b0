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


FILES = "/api/models/fraud/versions/1/artifacts"


async def a_file(caller: Caller, path: str = "model.bin", content: bytes = b"content", **options: Any) -> dict[str, Any]:
    """A file of version 1 of `fraud`, uploaded through the API."""
    response = await caller.http.put(f"{FILES}/{path}", content=content, **options)
    assert response.status_code in {200, 201}, response.text
    return response.json()


async def a_ready_version(caller: Caller, files: dict[str, bytes], **fields: Any) -> dict[str, Any]:
    """Version 1 of `fraud` with these files, finalised."""
    await a_version(caller, version="1", **fields)
    for path, content in files.items():
        await a_file(caller, path, content)
    response = await caller.http.post("/api/models/fraud/versions/1/finalize")
    assert response.status_code == 200, response.text
    return response.json()

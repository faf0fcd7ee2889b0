"""Bodies and rows of the Feature Store."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc
from tests.conftest import Caller

BRIEF = {
    "name": "user_features",
    "description": "...",
    "features": [{"name": "age", "type": "int"}, {"name": "avg_session_duration", "type": "float"}],
}
START = datetime(2026, 1, 1, tzinfo=UTC)
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"


def at(hours: float = 0) -> str:
    """A moment, so many hours after the start."""
    return (START + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


def a_row(entity: str = "user_123", hours: float = 0, **values: Any) -> dict[str, Any]:
    """A row for ingest."""
    return {"entity_id": entity, "event_timestamp": at(hours), **values}


async def a_feature_set(caller: Caller, name: str = "user_features", **fields: Any) -> dict[str, Any]:
    """A feature set, made through the API; as the brief's unless told otherwise."""
    response = await caller.http.post("/api/feature-sets", json={**BRIEF, "name": name, **fields})
    assert response.status_code == 201, response.text
    return response.json()


async def ingest(caller: Caller, *rows: dict[str, Any], name: str = "user_features") -> dict[str, Any]:
    """Rows, brought in through the API."""
    response = await caller.http.post(f"/api/feature-sets/{name}/rows", json={"rows": rows})
    assert response.status_code == 201, response.text
    return response.json()


async def serve(caller: Caller, entities: str, features: str) -> list[dict[str, Any]]:
    """The vectors of an online read."""
    response = await caller.http.get("/api/features/serve", params={"entities": entities, "features": features})
    assert response.status_code == 200, response.text
    return response.json()["vectors"]


async def training_set(caller: Caller, rows: list[dict[str, Any]], features: list[str], **fields: Any) -> dict[str, Any]:
    """A training set, made through the API."""
    response = await caller.http.post("/api/training-sets", json={"rows": rows, "features": features, **fields})
    assert response.status_code == 201, response.text
    return response.json()


async def data_of(caller: Caller, training_set_id: str) -> list[dict[str, Any]]:
    """The rows of a training set, downloaded."""
    response = await caller.http.get(f"/api/training-sets/{training_set_id}/data")
    assert response.status_code == 200, response.text
    return pq.read_table(pa.BufferReader(response.content)).to_pylist()


def parquet(table: pa.Table) -> bytes:
    """A table as a Parquet body."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def arrow(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()

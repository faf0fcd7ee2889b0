"""Feature Store: feature sets, ingest, online serving, training sets."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mlops_platform.contracts.features import (
    FeatureSet,
    FeatureSetVersion,
    FeatureVector,
    IngestResult,
    MaterializeResult,
    ServeResult,
    TrainingSet,
)
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.artifacts import AsyncArtifacts, RemoteFile
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient
from mlops_platform.sdk.files import BlobCache
from mlops_platform.sdk.frames import Rows, is_table, to_arrow_ipc, to_rows, typed_features
from mlops_platform.sdk.progress import transfer
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import given, segment

ARROW_STREAM = "application/vnd.apache.arrow.stream"


class AsyncFeatures:
    """Feature sets and their values, in the past and now."""

    def __init__(self, pool: AsyncPool, settings: ClientSettings) -> None:
        self._client = AsyncServiceClient(Service.FEATURES, pool, settings)
        self._artifacts = AsyncArtifacts(self._client, BlobCache(settings.cache))

    # Feature sets

    async def create_set(
        self,
        name: str,
        features: Mapping[str, str] | Sequence[Mapping[str, Any]],
        *,
        entity: str | None = None,
        description: str | None = None,
        ttl_seconds: int | None = None,
        online: bool | None = None,
        tags: Sequence[str] | None = None,
        owner: str | None = None,
    ) -> FeatureSet:
        """A new feature set; `features` maps names to types, such as `{"age": "int"}`."""
        body = given(
            name=name,
            features=typed_features(features),
            entity=entity,
            description=description,
            ttl_seconds=ttl_seconds,
            online=online,
            tags=tags,
            owner=owner,
        )
        return await self._client.send("POST", "/api/feature-sets", FeatureSet, json=body)

    async def get_set(self, name: str) -> FeatureSet:
        return await self._client.get(FeatureSet, _set(name))

    def sets(self, *, limit: int | None = None) -> AsyncIterator[FeatureSet]:
        return self._client.pages(FeatureSet, "/api/feature-sets", limit=limit)

    async def update_set(self, name: str, **changes: Any) -> FeatureSet:
        """Change `description`, `features`, `ttl_seconds`, `online`, `tags` or `owner`."""
        if "features" in changes:
            changes["features"] = typed_features(changes["features"])
        return await self._client.send("PATCH", _set(name), FeatureSet, json=changes)

    def versions(self, name: str) -> AsyncIterator[FeatureSetVersion]:
        return self._client.pages(FeatureSetVersion, f"{_set(name)}/versions")

    async def delete_set(self, name: str) -> None:
        await self._client.request("DELETE", _set(name))

    async def restore_set(self, name: str) -> FeatureSet:
        return await self._client.send("POST", f"{_set(name)}/restore", FeatureSet)

    # Values

    async def ingest(self, name: str, rows: Rows) -> IngestResult:
        """Keep rows: dictionaries, or a table of pandas, polars or pyarrow. All of them, or none.

        Each row holds the entity column, `event_timestamp` and features. The same rows again change nothing.
        """
        if is_table(rows):
            content = await backend.in_thread(to_arrow_ipc, rows)
            response = await self._client.request(
                "POST", f"{_set(name)}/rows", content=content, headers={"Content-Type": ARROW_STREAM}
            )
            return self._client.read(IngestResult, response)
        return await self._client.send("POST", f"{_set(name)}/rows", IngestResult, json={"rows": to_rows(rows)})

    async def serve(self, entity: str, features: Sequence[str]) -> FeatureVector:
        """The newest values of one entity."""
        params = {"entities": entity, "features": ",".join(features)}
        return (await self._client.get(ServeResult, "/api/features/serve", params=params)).vectors[0]

    async def serve_many(self, entities: Sequence[str], features: Sequence[str]) -> list[FeatureVector]:
        """The newest values of many entities, in their order."""
        body = {"entities": list(entities), "features": list(features)}
        return (await self._client.send("POST", "/api/features/serve", ServeResult, json=body)).vectors

    async def materialize(
        self, name: str, *, start: datetime | None = None, end: datetime | None = None
    ) -> MaterializeResult:
        """Write the newest rows of a window online."""
        body = given(start=start, end=end)
        return await self._client.send("POST", f"{_set(name)}/materialize", MaterializeResult, json=body)

    # Training sets

    async def training_set(
        self,
        rows: Rows,
        features: Sequence[str],
        *,
        name: str | None = None,
        description: str | None = None,
        as_known: bool | None = None,
        known_until: datetime | None = None,
    ) -> TrainingSet:
        """Join labels with features as they were at each label's `event_timestamp`; kept under a digest."""
        body = given(
            rows=to_rows(rows),
            features=list(features),
            name=name,
            description=description,
            as_known=as_known,
            known_until=known_until,
        )
        return await self._client.send("POST", "/api/training-sets", TrainingSet, json=body)

    async def get_training_set(self, training_set_id: str) -> TrainingSet:
        return await self._client.get(TrainingSet, _training_set(training_set_id))

    def training_sets(self, *, limit: int | None = None) -> AsyncIterator[TrainingSet]:
        return self._client.pages(TrainingSet, "/api/training-sets", limit=limit)

    async def training_data(self, training_set: TrainingSet | str, *, progress: bool | None = None) -> Path:
        """The Parquet file of a training set, verified, in the local cache: read it with the library of your choice."""
        found = training_set if isinstance(training_set, TrainingSet) else await self.get_training_set(training_set)
        url_path = f"{_training_set(found.id)}/data"
        file = RemoteFile(f"{found.id}.parquet", found.digest, found.size_bytes, url_path)
        with transfer(f"Downloading {found.name or found.id}", found.size_bytes, show=progress) as advance:
            return await self._artifacts.blob(file, advance)


def _set(name: str) -> str:
    return f"/api/feature-sets/{segment(name)}"


def _training_set(training_set_id: str) -> str:
    return f"/api/training-sets/{segment(training_set_id)}"

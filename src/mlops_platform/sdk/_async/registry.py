"""Model Registry: models, versions and their files, aliases, lineage."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from mlops_platform.contracts.registry import Alias, ModelVersion, RegisteredModel
from mlops_platform.sdk._async.artifacts import AsyncArtifacts
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient
from mlops_platform.sdk.files import BlobCache
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import given, segment


class Origin(TypedDict, total=False):
    """What a model version comes from."""

    run_id: str
    training_set_id: str
    pipeline_run_id: str


class AsyncRegistry:
    """Models and their versions."""

    def __init__(self, pool: AsyncPool, settings: ClientSettings) -> None:
        self._client = AsyncServiceClient(Service.REGISTRY, pool, settings)
        self._artifacts = AsyncArtifacts(self._client, BlobCache(settings.cache))

    # Models

    async def get_model(self, name: str) -> RegisteredModel:
        return await self._client.get(RegisteredModel, _model(name))

    def models(self, *, tags: Sequence[str] = (), limit: int | None = None) -> AsyncIterator[RegisteredModel]:
        """The models of the project, by name; with `tags`, those with a version that carries them all."""
        params = given(tags=",".join(tags) or None)
        return self._client.pages(RegisteredModel, "/api/models", params=params, limit=limit)

    async def update_model(self, name: str, *, description: str) -> RegisteredModel:
        return await self._client.send("PATCH", _model(name), RegisteredModel, json={"description": description})

    async def delete_model(self, name: str) -> None:
        """Hide a model with all its versions; `restore_model` takes it back."""
        await self._client.request("DELETE", _model(name))

    async def restore_model(self, name: str) -> RegisteredModel:
        return await self._client.send("POST", f"{_model(name)}/restore", RegisteredModel)

    # Versions

    async def create_version(
        self,
        name: str,
        version: str | None = None,
        *,
        framework: str | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Sequence[str] | None = None,
        description: str | None = None,
        params: Mapping[str, Any] | None = None,
        **origin: Unpack[Origin],
    ) -> ModelVersion:
        """Add a version; its model is made when absent. It is pending until `finalize`, so that files can be added.

        `run_id`, `training_set_id` and `pipeline_run_id` say where it comes from, as edges of the lineage graph.
        """
        body = given(
            name=name,
            version=version,
            framework=framework,
            metrics=metrics,
            tags=tags,
            description=description,
            params=params,
            **origin,
        )
        return await self._client.send("POST", "/api/models", ModelVersion, json=body)

    async def get_version(self, name: str, version: str) -> ModelVersion:
        """One version, by its label, or by `@alias`."""
        if version.startswith("@"):
            return await self._client.get(ModelVersion, f"{_model(name)}/aliases/{segment(version[1:])}")
        return await self._client.get(ModelVersion, _version(name, version))

    def versions(self, name: str, *, limit: int | None = None) -> AsyncIterator[ModelVersion]:
        """The versions of a model, newest first."""
        return self._client.pages(ModelVersion, f"{_model(name)}/versions", limit=limit)

    async def update_version(self, name: str, version: str, **changes: Any) -> ModelVersion:
        """Change `description` or `tags`."""
        return await self._client.send("PATCH", _version(name, version), ModelVersion, json=changes)

    async def delete_version(self, name: str, version: str) -> None:
        """Hide a version; its label stays taken, and `restore_version` takes it back."""
        await self._client.request("DELETE", _version(name, version))

    async def restore_version(self, name: str, version: str) -> ModelVersion:
        return await self._client.send("POST", f"{_version(name, version)}/restore", ModelVersion)

    # Aliases

    async def set_alias(self, name: str, alias: str, version: str) -> Alias:
        """Point an alias such as `champion` at a version, atomically."""
        return await self._client.send("PUT", f"{_model(name)}/aliases/{segment(alias)}", Alias, json={"version": version})

    async def remove_alias(self, name: str, alias: str) -> None:
        await self._client.request("DELETE", f"{_model(name)}/aliases/{segment(alias)}")


def _model(name: str) -> str:
    return f"/api/models/{segment(name)}"


def _version(name: str, version: str) -> str:
    return f"{_model(name)}/versions/{segment(version)}"

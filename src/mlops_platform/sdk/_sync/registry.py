# Generated from sdk/_async/registry.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""Model Registry: models, versions and their files, aliases, lineage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from mlops_platform.contracts.registry import Alias, ModelVersion, RegisteredModel
from mlops_platform.sdk._sync.artifacts import Artifacts
from mlops_platform.sdk._sync.client import Pool, ServiceClient
from mlops_platform.sdk.files import BlobCache
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import given, segment


class Origin(TypedDict, total=False):
    """What a model version comes from."""

    run_id: str
    training_set_id: str
    pipeline_run_id: str


class Registry:
    """Models and their versions."""

    def __init__(self, pool: Pool, settings: ClientSettings) -> None:
        self._client = ServiceClient(Service.REGISTRY, pool, settings)
        self._artifacts = Artifacts(self._client, BlobCache(settings.cache))

    # Models

    def get_model(self, name: str) -> RegisteredModel:
        return self._client.get(RegisteredModel, _model(name))

    def models(self, *, tags: Sequence[str] = (), limit: int | None = None) -> Iterator[RegisteredModel]:
        """The models of the project, by name; with `tags`, those with a version that carries them all."""
        params = given(tags=",".join(tags) or None)
        return self._client.pages(RegisteredModel, "/api/models", params=params, limit=limit)

    def update_model(self, name: str, *, description: str) -> RegisteredModel:
        return self._client.send("PATCH", _model(name), RegisteredModel, json={"description": description})

    def delete_model(self, name: str) -> None:
        """Hide a model with all its versions; `restore_model` takes it back."""
        self._client.request("DELETE", _model(name))

    def restore_model(self, name: str) -> RegisteredModel:
        return self._client.send("POST", f"{_model(name)}/restore", RegisteredModel)

    # Versions

    def create_version(
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
        return self._client.send("POST", "/api/models", ModelVersion, json=body)

    def get_version(self, name: str, version: str) -> ModelVersion:
        """One version, by its label, or by `@alias`."""
        if version.startswith("@"):
            return self._client.get(ModelVersion, f"{_model(name)}/aliases/{segment(version[1:])}")
        return self._client.get(ModelVersion, _version(name, version))

    def versions(self, name: str, *, limit: int | None = None) -> Iterator[ModelVersion]:
        """The versions of a model, newest first."""
        return self._client.pages(ModelVersion, f"{_model(name)}/versions", limit=limit)

    def update_version(self, name: str, version: str, **changes: Any) -> ModelVersion:
        """Change `description` or `tags`."""
        return self._client.send("PATCH", _version(name, version), ModelVersion, json=changes)

    def delete_version(self, name: str, version: str) -> None:
        """Hide a version; its label stays taken, and `restore_version` takes it back."""
        self._client.request("DELETE", _version(name, version))

    def restore_version(self, name: str, version: str) -> ModelVersion:
        return self._client.send("POST", f"{_version(name, version)}/restore", ModelVersion)

    # Aliases

    def set_alias(self, name: str, alias: str, version: str) -> Alias:
        """Point an alias such as `champion` at a version, atomically."""
        return self._client.send("PUT", f"{_model(name)}/aliases/{segment(alias)}", Alias, json={"version": version})

    def remove_alias(self, name: str, alias: str) -> None:
        self._client.request("DELETE", f"{_model(name)}/aliases/{segment(alias)}")


def _model(name: str) -> str:
    return f"/api/models/{segment(name)}"


def _version(name: str, version: str) -> str:
    return f"{_model(name)}/versions/{segment(version)}"

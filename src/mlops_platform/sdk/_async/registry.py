"""Model Registry: models, versions and their files, aliases, lineage."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict, Unpack

from mlops_platform.contracts.common import LineageEdge
from mlops_platform.contracts.registry import (
    Alias,
    Artifact,
    ArtifactFormat,
    LineageDirection,
    LineageGraph,
    ModelVersion,
    RegisteredModel,
)
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.artifacts import AsyncArtifacts, RemoteFile
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient
from mlops_platform.sdk.errors import missing
from mlops_platform.sdk.files import BlobCache, place
from mlops_platform.sdk.loaders import load_file
from mlops_platform.sdk.progress import transfer
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import file_path, given, segment


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

    # Files

    async def upload(
        self, name: str, version: str, source: Path | str, *, path: str | None = None, progress: bool | None = None
    ) -> Sequence[Artifact]:
        """Stream a file, or all files below a directory, into a pending version, under `path`; each is verified."""
        url_path = f"{_version(name, version)}/artifacts"
        return await self._artifacts.upload(url_path, Path(source), path, answer=Artifact, progress=progress)

    def files(self, name: str, version: str) -> AsyncIterator[Artifact]:
        """The files of a version, by path."""
        return self._client.pages(Artifact, f"{_version(name, version)}/artifacts")

    async def remove_file(self, name: str, version: str, path: str) -> None:
        """Take a file out of a pending version."""
        await self._client.request("DELETE", f"{_version(name, version)}/artifacts/{file_path(path)}")

    async def finalize(self, name: str, version: str) -> ModelVersion:
        """Verify the files and make the version ready: from then on they never change."""
        return await self._client.send("POST", f"{_version(name, version)}/finalize", ModelVersion)

    async def download(self, name: str, version: str, *, to: Path | str = ".", progress: bool | None = None) -> Path:
        """Bring the files of a version (or `@alias`) into a directory; each is verified, and kept in the local cache."""
        files = await self._remote_files(name, version)
        remote = [file for file, _ in files]
        await self._artifacts.download(remote, Path(to), label=f"{name} {version}", progress=progress)
        return Path(to)

    async def load(self, name: str, version: str = "@champion", *, path: str | None = None, trust: bool = False) -> Any:
        """The model itself, as its framework knows it. Pickles need `trust=True`: loading one runs its author's code.

        `path` says which file, when the version has several.
        """
        files = [(file, kind) for file, kind in await self._remote_files(name, version) if path in {None, file.logical}]
        if len(files) != 1:
            found = ", ".join(file.logical for file, _ in files) or "none"
            raise missing(
                f"{name} {version}: one file was expected and the files are: {found}.", hint="Say which: path=..."
            )
        ((file, kind),) = files
        with transfer(f"Downloading {name}", file.size_bytes) as advance:
            blob = await self._artifacts.blob(file, advance)
        return await backend.in_thread(_load_named, blob, file.logical, kind, trust=trust)

    async def _remote_files(self, name: str, version: str) -> Sequence[tuple[RemoteFile, ArtifactFormat]]:
        found = await self.get_version(name, version)
        base = f"{_version(name, found.version)}/artifacts"
        return [
            (RemoteFile(file.path, file.sha256, file.size, f"{base}/{file_path(file.path)}"), file.format)
            async for file in self.files(name, found.version)
        ]

    # Lineage

    async def lineage(self, subject: str, *, downstream: bool = False, depth: int | None = None) -> LineageGraph:
        """Where something comes from, or what came of it: `model/version`, `model@alias`, a URN, or `kind:name`."""
        direction = LineageDirection.DOWNSTREAM if downstream else LineageDirection.UPSTREAM
        params = given(urn=_lineage_root(subject), direction=direction.value, depth=depth)
        return await self._client.get(LineageGraph, "/api/lineage", params=params)

    async def state_lineage(self, subject: str, relation: str, object_: str) -> LineageEdge:
        """State an edge that no service states by itself."""
        body = {"subject": subject, "relation": relation, "object": object_}
        return await self._client.send("POST", "/api/lineage", LineageEdge, json=body)

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


def _lineage_root(subject: str) -> str:
    """What people write for a model, as the registry's short form of a URN."""
    if ":" in subject:
        return subject
    name, at, alias = subject.partition("@")
    return f"alias:{name}/{alias}" if at else f"model-version:{subject}"


def _load_named(blob: Path, logical: str, kind: ArtifactFormat, *, trust: bool) -> Any:
    # Some frameworks go by the ending of the name, and a cached blob is named by its digest.
    with TemporaryDirectory(prefix="mlops-") as folder:
        named = Path(folder) / Path(logical).name
        place(blob, named)
        return load_file(named, kind, trust=trust)

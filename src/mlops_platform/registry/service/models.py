"""Models, their versions, their aliases: what changes them."""

from collections.abc import Sequence
from typing import Any

from mlops_platform.contracts.common import write_float
from mlops_platform.contracts.registry import (
    ModelVersionCreate,
    ModelVersionUpdate,
    RegisteredModelUpdate,
    Relation,
    VersionStatus,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.domain import versions
from mlops_platform.registry.errors import (
    AliasNotFound,
    ModelNotFound,
    ModelVersionAliased,
    ModelVersionNotFound,
    ModelVersionTaken,
)
from mlops_platform.registry.repository.artifacts import ArtifactRepository
from mlops_platform.registry.repository.models import ModelReader, ModelRepository
from mlops_platform.registry.service.lineage import ALIAS_REMOVED, Lineage

_RELEASED_AT_ONCE = 1000


class ModelRegistry:
    """The use cases that write."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._models = ModelRepository(work.session, work.principal)
        self._lineage = Lineage(work)

    async def create_version(self, new: ModelVersionCreate) -> Record:
        """Add a version to a model, which is made when absent."""
        now = self._work.clock.now()
        model = {"id": new_id(), "name": new.name, "created_at": now, "updated_at": now}
        model_id, known = await self._models.ensure_model(model)
        version = new.version or versions.next_version(await self._models.version_labels(model_id))
        added = await self._models.add_version(
            {
                "id": new_id(),
                "model_id": model_id,
                "version": version,
                "status": VersionStatus.PENDING,
                "framework": new.framework,
                "metrics": {key: write_float(value) for key, value in new.metrics.items()},
                "tags": versions.unique_tags(new.tags),
                "description": new.description,
                "params": new.params,
                "run_id": new.run_id,
                "training_set_id": new.training_set_id,
                "pipeline_run_id": new.pipeline_run_id,
                "created_by": self._work.principal.name,
                "created_at": now,
                "updated_at": now,
            }
        )
        if not added:
            raise ModelVersionTaken(
                f"Version {version!r} of {new.name!r} exists, or existed: a version is given once.",
                hint="Choose another version, or leave it out and the next whole number is given.",
            )
        # A new version brings a deleted model back: its name was never free for anything else.
        await self._models.update_model(model_id, {"updated_at": now, "deleted_at": None})
        if known is None or known.deleted_at is not None:
            action = "model.created" if known is None else "model.restored"
            await self._record(action, self._urn("model", new.name), after={"name": new.name})
        await self._record("model_version.created", self._version_urn(new.name, version), after=new.model_dump(mode="json"))
        await self._state_lineage(new, version)
        return await self._found(new.name, version)

    async def update_version(self, name: str, version: str, change: ModelVersionUpdate) -> Record:
        """Change the words about a version."""
        row = await self._found(name, version)
        values: dict[str, Any] = change.model_dump(exclude_none=True)
        if "tags" in values:
            values["tags"] = versions.unique_tags(values["tags"])
        before = {field: getattr(row, field) for field in values}
        await self._models.update_version(row.id, {**values, "updated_at": self._work.clock.now()})
        await self._record("model_version.updated", self._version_urn(name, version), before=before, after=values)
        return await self._found(name, version)

    async def delete_version(self, name: str, version: str) -> None:
        """Hide a version; its label stays taken, and it can be restored."""
        row = _unaliased(await locked_version(self._models, name, version))
        await self._models.update_version(row.id, {"deleted_at": self._work.clock.now()})
        await self._record("model_version.deleted", self._version_urn(name, version), before={"version": version})

    async def purge_version(self, name: str, version: str, blobs: BlobLedger) -> None:
        """Remove a version for good, hidden or not, with its files. Its label is free again; the audit record stays."""
        row = _unaliased(await locked_version(self._models, name, version, with_deleted=True))
        files = await ArtifactRepository(self._work.session, self._work.principal).remove_all([row.id])
        await self._release(blobs, files)
        await self._models.purge_version(row.id)
        gone = {"version": version, "manifest_digest": row.manifest_digest, "file_count": len(files)}
        await self._record("model_version.purged", self._version_urn(name, version), before=gone)

    async def restore_version(self, name: str, version: str) -> Record:
        """Bring a deleted version back; a no-op for one that is there."""
        row = await self._models.version(name, version, with_deleted=True)
        if row is None:
            raise version_not_found(name, version)
        if row.deleted_at is not None:
            await self._models.update_version(row.id, {"deleted_at": None})
            await self._record("model_version.restored", self._version_urn(name, version), after={"version": version})
        return await self._found(name, version)

    async def update_model(self, name: str, change: RegisteredModelUpdate) -> Record:
        """Change the words about a model."""
        row = await self._model(name)
        values = change.model_dump(exclude_none=True)
        await self._models.update_model(row.id, {**values, "updated_at": self._work.clock.now()})
        before = {field: getattr(row, field) for field in values}
        await self._record("model.updated", self._urn("model", name), before=before, after=values)
        return await self._model(name)

    async def delete_model(self, name: str) -> None:
        """Hide a model with all its versions; it can be restored."""
        row = await self._model(name)
        await self._models.update_model(row.id, {"deleted_at": self._work.clock.now()})
        await self._record("model.deleted", self._urn("model", name), before={"name": name})

    async def purge_model(self, name: str, blobs: BlobLedger) -> None:
        """Remove a model for good, hidden or not, with its versions, aliases and files."""
        row = await self._models.model(name, with_deleted=True)
        if row is None:
            raise model_not_found(name)
        version_ids = await self._models.lock_model(row.id)
        # Asked again under the lock, without which no alias moves.
        pointing = await self._models.model(name, with_deleted=True)
        for alias in sorted((pointing.aliases or {}) if pointing else {}):
            await self._record_removed_alias(name, alias)
        files = await ArtifactRepository(self._work.session, self._work.principal).remove_all(version_ids)
        await self._release(blobs, files)
        await self._models.purge_model(row.id)
        gone = {"name": name, "version_count": len(version_ids), "file_count": len(files)}
        await self._record("model.purged", self._urn("model", name), before=gone)

    async def restore_model(self, name: str) -> Record:
        """Bring a deleted model back; a no-op for one that is there."""
        row = await self._models.model(name, with_deleted=True)
        if row is None:
            raise model_not_found(name)
        if row.deleted_at is not None:
            await self._models.update_model(row.id, {"deleted_at": None})
            await self._record("model.restored", self._urn("model", name), after={"name": name})
        return await self._model(name)

    async def set_alias(self, name: str, alias: str, version: str) -> Record:
        """Point an alias at a version, from wherever it pointed."""
        row = await locked_version(self._models, name, version)
        before = await self._models.aliased(name, alias)
        now = self._work.clock.now()
        await self._models.set_alias({"model_id": row.model_id, "alias": alias, "version_id": row.id, "updated_at": now})
        resource = self._urn("alias", f"{name}/{alias}")
        old = {"version": before.version} if before else None
        await self._record("alias.moved", resource, before=old, after={"version": version})
        await self._lineage.state(resource, Relation.POINTS_TO, self._version_urn(name, version))
        return row

    async def remove_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        model = await self._model(name)
        if not await self._models.remove_alias(model.id, alias):
            raise AliasNotFound(f"{name!r} has no alias {alias!r}.")
        await self._record_removed_alias(name, alias)

    async def _record_removed_alias(self, name: str, alias: str) -> None:
        resource = self._urn("alias", f"{name}/{alias}")
        await self._record(ALIAS_REMOVED, resource, before={"alias": alias})
        await self._lineage.forget_alias(resource, self._work.clock.now())

    async def _state_lineage(self, new: ModelVersionCreate, version: str) -> None:
        sources = {"run": new.run_id, "training-set": new.training_set_id, "pipeline-run": new.pipeline_run_id}
        for kind, source_id in sources.items():
            if source_id is not None:
                target = self._urn(kind, source_id)
                await self._lineage.state(self._version_urn(new.name, version), Relation.DERIVED_FROM, target)

    async def _release(self, blobs: BlobLedger, holders: Sequence[str]) -> None:
        for first in range(0, len(holders), _RELEASED_AT_ONCE):
            some = holders[first : first + _RELEASED_AT_ONCE]
            await blobs.release(self._work.session, self._work.principal.project, some)

    async def _record(self, action: str, resource: str, *, before: Any = None, after: Any = None) -> None:
        await self._work.audit(action, resource, before=before, after=after)
        await self._work.emit(action, resource, {"before": before, "after": after})

    async def _model(self, name: str) -> Record:
        row = await self._models.model(name)
        if row is None:
            raise model_not_found(name)
        return row

    async def _found(self, name: str, version: str) -> Record:
        return await found_version(self._models, name, version)

    def _urn(self, kind: str, name: str) -> str:
        return self._work.urn(kind, name)

    def _version_urn(self, name: str, version: str) -> str:
        return self._work.urn("model-version", f"{name}/{version}")


async def found_version(models: ModelReader, name: str, version: str, *, with_deleted: bool = False) -> Record:
    """A version, or the error that says that there is none."""
    row = await models.version(name, version, with_deleted=with_deleted)
    if row is None:
        raise version_not_found(name, version)
    return row


async def found_alias(models: ModelReader, name: str, alias: str) -> Record:
    """The version to which an alias points, or the error that says that there is none."""
    row = await models.aliased(name, alias)
    if row is None:
        raise AliasNotFound(f"{name!r} has no alias {alias!r}.", hint=f"They stand in: GET /api/models/{name}.")
    return row


async def locked_version(models: ModelRepository, name: str, version: str, *, with_deleted: bool = False) -> Record:
    """A version as it is now and stays until the commit."""
    row = await found_version(models, name, version, with_deleted=with_deleted)
    await models.lock_version(row.id)
    # Asked again under the lock: it may have changed, or gone, while we waited for it.
    return await found_version(models, name, version, with_deleted=with_deleted)


def _unaliased(row: Record) -> Record:
    if row.aliases:
        raise ModelVersionAliased(
            f"The alias {row.aliases[0]!r} points to version {row.version!r} of {row.name!r}.",
            hint="Move or remove its aliases first.",
        )
    return row


def model_not_found(name: str) -> ModelNotFound:
    """The one sentence for it."""
    return ModelNotFound(f"There is no model {name!r} in this project.", hint="List them with: GET /api/models.")


def version_not_found(name: str, version: str) -> ModelVersionNotFound:
    """The one sentence for it."""
    return ModelVersionNotFound(
        f"There is no version {version!r} of model {name!r} in this project.",
        hint=f"List them with: GET /api/models/{name}/versions.",
    )

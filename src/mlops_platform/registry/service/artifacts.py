"""The files of a version: stored while it is pending, sealed by finalising, handed out from then on."""

import asyncio
from collections.abc import Mapping
from typing import Any

from mlops_platform.contracts.registry import ArtifactFormat, VersionStatus
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.domain import formats, versions
from mlops_platform.registry.domain.manifest import MAX_FILES, ManifestEntry, manifest_digest
from mlops_platform.registry.errors import (
    ArtifactNotFound,
    ArtifactPathTaken,
    ManifestIncomplete,
    ModelVersionPending,
    TooManyArtifacts,
)
from mlops_platform.registry.repository.artifacts import ArtifactReader, ArtifactRepository, holder_of
from mlops_platform.registry.repository.models import ModelReader, ModelRepository
from mlops_platform.registry.service.models import found_version, version_not_found


class VersionFiles:
    """The use cases that write."""

    def __init__(self, work: UnitOfWork, blobs: BlobLedger) -> None:
        self._work = work
        self._blobs = blobs
        self._models = ModelRepository(work.session, work.principal)
        self._artifacts = ArtifactRepository(work.session, work.principal)

    async def store(
        self, name: str, version: str, path: str, blob: StoredBlob, content_format: ArtifactFormat
    ) -> tuple[Record, bool]:
        """Make stored content a file of a pending version, in place of the one of that path; whether there was none."""
        row = await self._open_version(name, version)
        before = await self._artifacts.in_the_way(row.id, path)
        if before is None or before.path != path:
            _check_room(row, path, before)
            before = None
        artifact_id = before.id if before else new_id()
        held = await self._blobs.hold(self._work.session, blob, holder_of(artifact_id))
        now = self._work.clock.now()
        stored = await self._artifacts.put(
            {
                "id": artifact_id,
                "version_id": row.id,
                "path": path,
                "blob_id": held.blob_id,
                "sha256": held.sha256,
                "size": held.size,
                "is_encrypted": held.is_encrypted,
                "format": content_format,
                "stored_at": now,
            }
        )
        await self._models.count_files(
            row.id, files=0 if before else 1, size=held.size - (before.size if before else 0), now=now
        )
        old = _facts(before) if before else None
        after = {"path": path, "sha256": held.sha256, "size": held.size, "format": content_format}
        await self._record("model_artifact.stored", name, version, before=old, after=after)
        return stored, before is None

    async def remove(self, name: str, version: str, path: str) -> None:
        """Take a file out of a pending version."""
        row = await self._open_version(name, version)
        file = await found_artifact(self._artifacts, row, path)
        await self._artifacts.remove(file.id)
        await self._blobs.release(self._work.session, self._work.principal.project, [holder_of(file.id)])
        await self._models.count_files(row.id, files=-1, size=-file.size, now=self._work.clock.now())
        await self._record("model_artifact.removed", name, version, before=_facts(file))

    async def finalize(self, name: str, version: str) -> Record:
        """Verify the manifest and make the version `ready`: nothing of it changes any more. Again is the same answer."""
        row = await self._held_version(name, version)
        if row.status == VersionStatus.READY:
            return row
        versions.check_transition(name, version, VersionStatus(row.status), VersionStatus.READY)
        files = await self._artifacts.manifest(row.id)
        if (lost := await self._artifacts.unheld(row.id)) is not None:
            raise ManifestIncomplete(
                f"The content of {lost!r} in version {version!r} of {name!r} is not stored as its manifest says.",
                hint="Upload this file again, then finalise.",
            )
        entries = [ManifestEntry(file.path, file.sha256, file.size) for file in files]
        now = self._work.clock.now()
        sealed = {
            "status": VersionStatus.READY,
            "manifest_digest": await asyncio.to_thread(manifest_digest, entries),
            "file_count": len(entries),
            "size": sum(entry.size for entry in entries),
            "formats": formats.summary([(file.path, ArtifactFormat(file.format)) for file in files]),
        }
        await self._models.update_version(row.id, {**sealed, "finalized_at": now, "updated_at": now})
        await self._record("model_version.finalized", name, version, after=sealed)
        return await found_version(self._models, name, version)

    async def record_download(self, row: Record, what: str, *, size: int) -> None:
        """State who took what away."""
        resource = self._work.urn("model-version", f"{row.name}/{row.version}")
        await self._work.audit("model_version.downloaded", resource, detail={"what": what, "size": size})

    async def _open_version(self, name: str, version: str) -> Record:
        row = await self._held_version(name, version)
        versions.check_mutable(name, version, VersionStatus(row.status))
        return row

    async def _held_version(self, name: str, version: str) -> Record:
        row = await self._models.hold_version(name, version)
        if row is None:
            raise version_not_found(name, version)
        return row

    async def _record(self, action: str, name: str, version: str, *, before: Any = None, after: Any = None) -> None:
        resource = self._work.urn("model-version", f"{name}/{version}")
        await self._work.audit(action, resource, before=before, after=after)
        await self._work.emit(action, resource, {"before": before, "after": after})


async def check_open(models: ModelReader, name: str, version: str) -> None:
    """Refuse an upload before its first byte is read, when it is clear that it would be refused after the last."""
    row = await found_version(models, name, version)
    versions.check_mutable(name, version, VersionStatus(row.status))


async def found_artifact(files: ArtifactReader, row: Record, path: str) -> Record:
    """A file of a version, or the error that says that there is none."""
    file = await files.artifact(row.id, path)
    if file is None:
        raise ArtifactNotFound(
            f"Version {row.version!r} of {row.name!r} has no file {path!r}.",
            hint=f"List them with: GET /api/models/{row.name}/versions/{row.version}/artifacts.",
        )
    return file


async def downloadable(files: ArtifactReader, row: Record) -> list[Record]:
    """All files of a version that is ready and has some."""
    if row.status != VersionStatus.READY:
        raise ModelVersionPending(
            f"Version {row.version!r} of {row.name!r} is {row.status}: it is not complete.",
            hint=f"Finalise it with: POST /api/models/{row.name}/versions/{row.version}/finalize.",
        )
    manifest = await files.manifest(row.id)
    if not manifest:
        raise ArtifactNotFound(f"Version {row.version!r} of {row.name!r} has no files: it is metadata alone.")
    return list(manifest)


def _check_room(row: Record, path: str, other: Record | None) -> None:
    if other is not None:
        raise ArtifactPathTaken(
            f"{path!r} and {other.path!r} cannot both be files: one would be a folder.", hint="Choose another path."
        )
    if row.file_count >= MAX_FILES:
        raise TooManyArtifacts(f"Version {row.version!r} of {row.name!r} has {MAX_FILES} files, the most that it may.")


def _facts(file: Record) -> Mapping[str, Any]:
    return {"path": file.path, "sha256": file.sha256, "size": file.size, "format": file.format}

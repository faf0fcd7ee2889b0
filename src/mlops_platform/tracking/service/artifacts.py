"""Use cases on the artifacts of runs and logged models. Bytes are stored before; here they get their name."""

from abc import ABC, abstractmethod
from typing import ClassVar

from mlops_platform.core.db.session import Record
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.errors import (
    ArtifactNotFound,
    ArtifactPathTaken,
    LoggedModelNotFound,
    RunDeleted,
    RunNotFound,
)
from mlops_platform.tracking.repository.artifacts import MODELS, RUNS, ArtifactRepository, Shelf
from mlops_platform.tracking.repository.models import LoggedModelRepository
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE


class _Artifacts(ABC):
    """The use cases that write artifacts of one owner."""

    kind: ClassVar[str]
    event: ClassVar[str]
    shelf: ClassVar[Shelf]

    def __init__(self, work: UnitOfWork, ledger: BlobLedger, owner_id: str) -> None:
        self._work = work
        self._ledger = ledger
        self._id = owner_id
        self._artifacts = ArtifactRepository(work.session, work.principal, owner_id, shelf=self.shelf)

    @abstractmethod
    async def held(self) -> Record:
        """The owner, held until the commit, or why nothing can be written to it."""

    @abstractmethod
    def not_found(self, path: str) -> ArtifactNotFound:
        """Nothing is at the path."""

    async def put(self, path: str, blob: StoredBlob, content_type: str) -> Record:
        """Give stored bytes their name; what had the name before is let go."""
        owner = await self.held()
        other = await self._artifacts.in_the_way(path)
        if other is not None:
            raise ArtifactPathTaken(
                f"{path!r} cannot be stored beside {other!r}: one would be both a file and a folder.",
                hint="Choose another path, or delete the other one.",
            )
        before = await self._artifacts.artifact(path)
        kept = await self._ledger.hold(self._work.session, blob, self.shelf.holder(self._id, path))
        values = {
            "path": path,
            "size": kept.size,
            "sha256": kept.sha256,
            "content_type": content_type,
            "created_at": self._work.clock.now(),
        }
        await self._artifacts.put(values)
        resource = self._work.urn(self.kind, self._id)
        old = {"path": path, "sha256": before.sha256} if before else None
        new = {"path": path, "sha256": kept.sha256, "size": kept.size}
        await self._work.audit(f"{self.event}.artifact_stored", resource, before=old, after=new)
        await self._work.emit(f"{self.event}.artifact_stored", resource, {**self._named(owner), **new})
        return await self._found(path)

    async def remove(self, path: str) -> None:
        """Remove a file or a folder; bytes that nothing else holds are swept later."""
        owner = await self.held()
        gone = await self._artifacts.remove(path)
        if not gone:
            raise self.not_found(path)
        holders = [self.shelf.holder(self._id, each) for each in gone]
        await self._ledger.release(self._work.session, self._work.principal.project, holders)
        resource = self._work.urn(self.kind, self._id)
        await self._work.audit(f"{self.event}.artifacts_removed", resource, before={"paths": gone})
        data = {**self._named(owner), "path": path, "files": len(gone)}
        await self._work.emit(f"{self.event}.artifacts_removed", resource, data)

    def _named(self, owner: Record) -> dict[str, str]:
        return {self.shelf.owner: self._id, "experiment_id": owner.experiment_id}

    async def record_download(self, path: str, blob: StoredBlob) -> None:
        """State who took what away."""
        detail = {"path": path, "sha256": blob.sha256, "size": blob.size}
        resource = self._work.urn(self.kind, self._id)
        await self._work.audit(f"{self.event}.artifact_downloaded", resource, detail=detail)

    async def record_preview(self, path: str, blob: StoredBlob) -> None:
        """State who looked at the beginning of what."""
        detail = {"path": path, "sha256": blob.sha256}
        await self._work.audit(f"{self.event}.artifact_previewed", self._work.urn(self.kind, self._id), detail=detail)

    async def _found(self, path: str) -> Record:
        row = await self._artifacts.artifact(path)
        if row is None:
            raise self.not_found(path)
        return row


class RunArtifacts(_Artifacts):
    """The artifacts of a run."""

    kind = "run"
    event = "run"
    shelf = RUNS

    def __init__(self, work: UnitOfWork, ledger: BlobLedger, run_id: str, *, experiment_id: str | None = None) -> None:
        super().__init__(work, ledger, run_id)
        self._experiment_id = experiment_id
        self._runs = RunRepository(work.session, work.principal)

    async def held(self) -> Record:
        run = await self._runs.hold(self._id, experiment_id=self._experiment_id)
        if run is None:
            raise RunNotFound.of(self._id, experiment_id=self._experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, run.experiment_name)
        if run.deleted_at is not None or run.experiment_deleted_at is not None:
            raise RunDeleted.of(self._id)
        return run

    def not_found(self, path: str) -> ArtifactNotFound:
        return artifact_not_found(self._id, path)


class LoggedModelArtifacts(_Artifacts):
    """The files of a logged model."""

    kind = "logged-model"
    event = "logged_model"
    shelf = MODELS

    async def held(self) -> Record:
        model = await LoggedModelRepository(self._work.session, self._work.principal).hold(self._id)
        if model is None or model.deleted_at is not None:
            raise LoggedModelNotFound.of(f"m-{self._id}")
        self._work.principal.require(EXPERIMENTS_WRITE, model.experiment_name)
        return model

    def not_found(self, path: str) -> ArtifactNotFound:
        return ArtifactNotFound(f"The logged model 'm-{self._id}' has no artifact at {path!r}.")


def artifact_not_found(run_id: str, path: str) -> ArtifactNotFound:
    """The one sentence for it."""
    return ArtifactNotFound(
        f"The run {run_id!r} has no artifact at {path!r}.", hint=f"GET /api/runs/{run_id}/artifacts lists them."
    )

"""Use cases on the artifacts of runs. Bytes are stored before; here they get their name."""

from mlops_platform.core.db.session import Record
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.errors import ArtifactNotFound, ArtifactPathTaken, RunDeleted, RunNotFound
from mlops_platform.tracking.repository.artifacts import ArtifactRepository, holder
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE


class RunArtifacts:
    """The use cases that write artifacts of one run."""

    def __init__(self, work: UnitOfWork, ledger: BlobLedger, run_id: str, *, experiment_id: str | None = None) -> None:
        self._work = work
        self._ledger = ledger
        self._run_id = run_id
        self._experiment_id = experiment_id
        self._runs = RunRepository(work.session, work.principal)
        self._artifacts = ArtifactRepository(work.session, work.principal, run_id)

    async def put(self, path: str, blob: StoredBlob, content_type: str) -> Record:
        """Give stored bytes their name in the run; what had the name before is let go."""
        run = await self._held()
        other = await self._artifacts.in_the_way(path)
        if other is not None:
            raise ArtifactPathTaken(
                f"{path!r} cannot be stored beside {other!r}: one would be both a file and a folder.",
                hint="Choose another path, or delete the other one.",
            )
        before = await self._artifacts.artifact(path)
        kept = await self._ledger.hold(self._work.session, blob, holder(self._run_id, path))
        values = {
            "path": path,
            "size": kept.size,
            "sha256": kept.sha256,
            "content_type": content_type,
            "created_at": self._work.clock.now(),
        }
        await self._artifacts.put(values)
        resource = self._work.urn("run", self._run_id)
        old = {"path": path, "sha256": before.sha256} if before else None
        new = {"path": path, "sha256": kept.sha256, "size": kept.size}
        await self._work.audit("run.artifact_stored", resource, before=old, after=new)
        await self._work.emit(
            "run.artifact_stored", resource, {"run_id": self._run_id, "experiment_id": run.experiment_id, **new}
        )
        return await self._found(path)

    async def remove(self, path: str) -> None:
        """Remove a file or a folder; bytes that nothing else holds are swept later."""
        run = await self._held()
        gone = await self._artifacts.remove(path)
        if not gone:
            raise artifact_not_found(self._run_id, path)
        holders = [holder(self._run_id, each) for each in gone]
        await self._ledger.release(self._work.session, self._work.principal.project, holders)
        resource = self._work.urn("run", self._run_id)
        await self._work.audit("run.artifacts_removed", resource, before={"paths": gone})
        await self._work.emit(
            "run.artifacts_removed",
            resource,
            {"run_id": self._run_id, "experiment_id": run.experiment_id, "path": path, "files": len(gone)},
        )

    async def record_download(self, path: str, blob: StoredBlob) -> None:
        """State who took what away."""
        detail = {"path": path, "sha256": blob.sha256, "size": blob.size}
        await self._work.audit("run.artifact_downloaded", self._work.urn("run", self._run_id), detail=detail)

    async def _found(self, path: str) -> Record:
        row = await self._artifacts.artifact(path)
        if row is None:
            raise artifact_not_found(self._run_id, path)
        return row

    async def _held(self) -> Record:
        run = await self._runs.hold(self._run_id, experiment_id=self._experiment_id)
        if run is None:
            raise RunNotFound.of(self._run_id, experiment_id=self._experiment_id)
        self._work.principal.require(EXPERIMENTS_WRITE, run.experiment_name)
        if run.deleted_at is not None or run.experiment_deleted_at is not None:
            raise RunDeleted.of(self._run_id)
        return run


def artifact_not_found(run_id: str, path: str) -> ArtifactNotFound:
    """The one sentence for it."""
    return ArtifactNotFound(
        f"The run {run_id!r} has no artifact at {path!r}.", hint=f"GET /api/runs/{run_id}/artifacts lists them."
    )

"""Use cases on uploads in parts: what `core.storage.uploads` does, on artifacts and with an audit entry."""

from collections.abc import Sequence

from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import Principal
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.errors import UploadNotFound
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.storage.uploads import MAX_PARTS, PartLedger, Upload, UploadPlan
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.repository.artifacts import RUNS, readable_holder
from mlops_platform.tracking.repository.uploads import forget_begun_before


class Uploads:
    """The use cases of one transaction."""

    def __init__(self, work: UnitOfWork, ledger: BlobLedger) -> None:
        self._work = work
        self._parts = PartLedger(ledger, work.clock)

    async def begin(self, plan: UploadPlan) -> tuple[Upload, bool]:
        """The upload that is to go on, or a new one; whether it is new."""
        if not 1 <= plan.parts <= MAX_PARTS:
            raise InvalidInput.of("num_parts", f"must be 1 to {MAX_PARTS}", plan.parts)
        upload, is_new = await self._parts.begin(self._work.session, self._work.principal, plan)
        if is_new:
            after = {"target": plan.target, "parts": plan.parts, "sha256": plan.sha256}
            await self._audit("upload.begun", upload, after=after)
        return upload, is_new

    async def received(self, upload: Upload) -> dict[int, StoredBlob]:
        """The parts that are here."""
        return await self._parts.received(self._work.session, upload)

    async def found(self, upload_id: str, *, target: str | None = None) -> Upload:
        """The caller's upload, held until the commit, if its target is this one."""
        upload = await self._parts.hold(self._work.session, self._work.principal, upload_id)
        if target is not None and upload.plan.target != target:
            raise UploadNotFound.of(upload_id)
        return upload

    async def keep(self, upload_id: str, number: int, blob: StoredBlob) -> StoredBlob:
        """Keep a part, in place of the same part that came before."""
        upload = await self.found(upload_id)
        kept = await self._parts.keep(self._work.session, upload, number, blob)
        await self._audit("upload.part_stored", upload, after={"part": number, "sha256": kept.sha256})
        return kept

    async def named(self, upload: Upload, parts: Sequence[tuple[int, str]]) -> list[StoredBlob]:
        """The parts that the client names, in their order; each must be the one that it means."""
        numbers = [number for number, _ in parts]
        if numbers != list(range(1, upload.plan.parts + 1)):
            raise InvalidInput.of("parts", f"must be the parts 1 to {upload.plan.parts}, in their order", numbers[:20])
        here = await self.received(upload)
        for number, etag in parts:
            if number not in here or here[number].sha256 != etag.strip('"'):
                raise InvalidInput.of("parts", f"part {number} is missing or is not the one with this ETag", etag[:80])
        return [here[number] for number in numbers]

    async def drop(self, upload: Upload, numbers: Sequence[int]) -> None:
        """Forget parts that can no longer be read."""
        await self._parts.drop(self._work.session, upload, numbers)
        await self._audit("upload.parts_dropped", upload, before={"parts": list(numbers)})

    async def finish(self, upload: Upload) -> None:
        """Let go of the parts: they have become an artifact."""
        await self._parts.finish(self._work.session, upload)
        await self._audit("upload.finished", upload, before={"target": upload.plan.target})

    async def end(self, upload: Upload) -> None:
        """Give the upload up."""
        await self._parts.end(self._work.session, upload)
        await self._audit("upload.ended", upload, before={"target": upload.plan.target})

    async def _audit(self, action: str, upload: Upload, **states: dict[str, object]) -> None:
        await self._work.audit(action, self._work.urn("upload", upload.id), **states)


class UploadReader:
    """What is asked outside of a change: before bytes come, and while they are read."""

    def __init__(self, session: ReadSession, principal: Principal, runtime: Runtime) -> None:
        self._session = session
        self._principal = principal
        self._ledger = runtime.blobs
        self._parts = PartLedger(runtime.blobs, runtime.clock)

    async def of_run(self, run_id: str, upload_id: str) -> tuple[Upload, str]:
        """The caller's upload to this run, and the path that it is for."""
        upload = await self._parts.find(self._session, self._principal, upload_id)
        beginning = RUNS.holder(run_id, "")
        if not upload.plan.target.startswith(beginning):
            raise UploadNotFound.of(upload_id)
        return upload, upload.plan.target.removeprefix(beginning)

    async def found(self, upload_id: str) -> Upload:
        """The caller's upload, whatever it is for."""
        return await self._parts.find(self._session, self._principal, upload_id)

    async def received(self, upload: Upload) -> dict[int, StoredBlob]:
        """The parts that are here."""
        return await self._parts.received(self._session, upload)

    async def known(self, plan: UploadPlan) -> StoredBlob | None:
        """This content, if it lies where the caller may read it.

        Only there: who merely knows a digest must learn neither the content nor that anybody has it.
        """
        holder = await readable_holder(self._session, self._principal, plan.sha256 or "", plan.size or 0)
        blob = await self._ledger.held(self._session, self._principal.project, holder) if holder else None
        return blob if blob is not None and (blob.sha256, blob.size) == (plan.sha256, plan.size) else None


async def forget_old(runtime: Runtime) -> None:
    """End uploads that nobody goes on with, also those that an older version of this service had begun."""
    await PartLedger(runtime.blobs, runtime.clock).forget(runtime.database)
    await forget_begun_before(runtime.database, runtime.blobs, runtime.clock)

"""Use cases on uploads in parts: the parts come in any order and at once, and become one file at the end."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import timedelta

from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.errors import UploadNotFound
from mlops_platform.tracking.repository.uploads import UploadRepository, forget_begun_before, part_holder

MAX_PARTS = 10_000
FORGOTTEN_AFTER = timedelta(hours=48)
_SWEPT_AT_ONCE = 100


class Uploads:
    """The use cases of one transaction."""

    def __init__(self, work: UnitOfWork, ledger: BlobLedger) -> None:
        self._work = work
        self._ledger = ledger
        self._uploads = UploadRepository(work.session, work.principal)

    async def begin(self, target: str, parts: int) -> str:
        """The id of a new upload."""
        if not 1 <= parts <= MAX_PARTS:
            raise InvalidInput.of("num_parts", f"must be 1 to {MAX_PARTS}", parts)
        upload_id = new_id()
        now = self._work.clock.now()
        await self._uploads.add({"id": upload_id, "target": target, "parts": parts, "created_at": now})
        await self._work.audit(
            "upload.begun", self._work.urn("upload", upload_id), after={"target": target, "parts": parts}
        )
        return upload_id

    async def found(self, upload_id: str, target: str | None = None) -> Record:
        """The upload, if it is under way and its target is this one."""
        row = await self._uploads.upload(upload_id)
        if row is None or (target is not None and row.target != target):
            raise UploadNotFound(f"No upload {upload_id!r} is under way.")
        return row

    async def keep(self, upload_id: str, number: int, blob: StoredBlob) -> StoredBlob:
        """Keep a part, in place of the same part that came before."""
        row = await self.found(upload_id)
        if not 1 <= number <= row.parts:
            raise InvalidInput.of("part_number", f"must be 1 to {row.parts}", number)
        kept = await self._ledger.hold(self._work.session, blob, part_holder(upload_id, number))
        await self._work.audit(
            "upload.part_stored", self._work.urn("upload", upload_id), after={"part": number, "sha256": kept.sha256}
        )
        return kept

    async def parts(self, row: Record, named: Sequence[tuple[int, str]]) -> list[StoredBlob]:
        """The parts that the client names, in their order; each must be the one that it means."""
        numbers = [number for number, _ in named]
        if numbers != list(range(1, row.parts + 1)):
            raise InvalidInput.of("parts", f"must be the parts 1 to {row.parts}, in their order", numbers[:20])
        found = []
        for number, etag in named:
            blob = await self._ledger.held(self._work.session, self._work.principal.project, part_holder(row.id, number))
            if blob is None or blob.sha256 != etag.strip('"'):
                raise InvalidInput.of("parts", f"part {number} is missing or is not the one with this ETag", etag[:80])
            found.append(blob)
        return found

    async def end(self, row: Record) -> None:
        """Let go of the parts."""
        holders = [part_holder(row.id, number) for number in range(1, row.parts + 1)]
        await self._ledger.release(self._work.session, self._work.principal.project, holders)
        await self._uploads.remove(row.id)
        await self._work.audit("upload.ended", self._work.urn("upload", row.id), before={"target": row.target})


async def joined(ledger: BlobLedger, blobs: Sequence[StoredBlob]) -> AsyncIterator[bytes]:
    """The content of the parts, one after the other."""
    for blob in blobs:
        async with aclosing(await ledger.store.read(blob)) as content:
            async for chunk in content:
                yield chunk


async def forget_old(runtime: Runtime) -> None:
    """End uploads that nobody goes on with."""
    count = _SWEPT_AT_ONCE
    while count == _SWEPT_AT_ONCE:
        async with runtime.database.write() as session:
            rows = await forget_begun_before(session, runtime.clock.now() - FORGOTTEN_AFTER, limit=_SWEPT_AT_ONCE)
            for row in rows:
                holders = [part_holder(row.id, number) for number in range(1, row.parts + 1)]
                await runtime.blobs.release(session, row.project_id, holders)
        count = len(rows)

"""Uploads in parts: they come in any order, at once and again, and become one blob at the end.

Every part is a blob by itself, held in the upload's name: what was acknowledged outlives both sides. The rows are the
only state; an upload is found again by what it promises to be, so that a client needs to remember nothing.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update

from mlops_platform.core.clock import Clock
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.errors import ContentTooLarge, InvalidInput
from mlops_platform.core.identity import Principal, ProjectId, new_id
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.errors import UploadFinished, UploadIncomplete, UploadNotFound
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.storage.tables import uploads

MAX_PARTS = 10_000
LEAST_PART_BYTES = 1024 * 1024
MOST_PART_BYTES = 1024 * 1024 * 1024
USUAL_PART_BYTES = 16 * 1024 * 1024
FORGOTTEN_AFTER = timedelta(hours=48)
_SWEPT_AT_ONCE = 100
_NAMED_MISSING = 20


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """What is to come. Without `sha256`, `size` and `part_bytes` only the number of parts is promised."""

    target: str
    parts: int
    sha256: str | None = None
    size: int | None = None
    part_bytes: int | None = None
    content_type: str | None = None

    @classmethod
    def of_content(
        cls, target: str, *, sha256: str, size: int, part_bytes: int | None, content_type: str, max_bytes: int
    ) -> "UploadPlan":
        """The plan for content that is known beforehand; parts are made larger where there would be too many."""
        if size > max_bytes:
            raise ContentTooLarge(
                f"The content is larger than {max_bytes} bytes.", hint="The limit is MLOPS_MAX_UPLOAD_BYTES."
            )
        each = part_bytes or max(USUAL_PART_BYTES, -(-size // MAX_PARTS))
        parts = max(1, -(-size // each))
        if parts > MAX_PARTS:
            raise InvalidInput.of("part_bytes", f"makes {parts} parts, and {MAX_PARTS} are the most", each)
        return cls(target, parts, sha256, size, each, content_type)

    def part_size(self, number: int) -> int | None:
        """How long a part is, when that is known."""
        if self.size is None or self.part_bytes is None:
            return None
        return self.part_bytes if number < self.parts else self.size - self.part_bytes * (self.parts - 1)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun."""

    id: str
    project_id: ProjectId
    plan: UploadPlan
    created_at: datetime
    touched_at: datetime
    finished_at: datetime | None

    def holder(self, number: int) -> str:
        """The name by which a part holds its blob."""
        return f"upload/{self.id}/{number}"

    @property
    def holders(self) -> list[str]:
        """Those of all parts."""
        return [self.holder(number) for number in range(1, self.plan.parts + 1)]


class PartLedger:
    """The account of uploads in parts. Everything but `join` and `forget` happens in the caller's transaction."""

    def __init__(self, ledger: BlobLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def begin(self, session: WriteSession, principal: Principal, plan: UploadPlan) -> tuple[Upload, bool]:
        """The caller's open upload of this content to this target, else a new one; whether it is new.

        A new one begins with the parts that the caller has sent of the same content to another target: a training that
        is started again has another run.
        """
        older = await self._of_content(session, principal, plan)
        for upload in older:
            if upload.plan.target == plan.target:
                await self._touch(session, upload)
                return upload, False
        begun = await self._add(session, principal, plan)
        for upload in older[:1]:
            sent = await self.received(session, upload)
            shared = {upload.holder(number): begun.holder(number) for number in sent}
            await self._ledger.share(session, principal.project, shared)
        return begun, True

    async def find(self, session: ReadSession, principal: Principal, upload_id: str) -> Upload:
        """An upload of the caller's, finished or not, or `UploadNotFound`."""
        return _found(await session.first(_mine(principal).where(uploads.c.id == upload_id)), upload_id)

    async def hold(self, session: WriteSession, principal: Principal, upload_id: str) -> Upload:
        """The same; whoever else changes it waits for the end of this transaction."""
        mine = _mine(principal).where(uploads.c.id == upload_id)
        return _found(await session.first(mine.with_for_update(key_share=True)), upload_id)

    async def received(self, session: ReadSession, upload: Upload) -> dict[int, StoredBlob]:
        """The parts that are here, by number."""
        held = await self._ledger.held_by(session, upload.project_id, upload.holders)
        return {number: held[name] for number, name in enumerate(upload.holders, 1) if name in held}

    async def keep(self, session: WriteSession, upload: Upload, number: int, blob: StoredBlob) -> StoredBlob:
        """Keep a part, in place of the same part that came before."""
        check_part(upload, number)
        kept = await self._ledger.hold(session, blob, upload.holder(number))
        await self._touch(session, upload)
        return kept

    async def join(self, upload: Upload, parts: Sequence[StoredBlob], *, max_bytes: int) -> StoredBlob:
        """One blob of all parts, which is what was promised; it takes as long as reading and writing all of it."""
        sha256 = upload.plan.sha256
        if len(parts) == 1 and sha256 in {None, parts[0].sha256}:
            return parts[0]
        return await self._ledger.write(upload.project_id, self._joined(parts), max_bytes=max_bytes, sha256=sha256)

    async def damaged(self, received: Mapping[int, StoredBlob]) -> list[int]:
        """The parts that can no longer be read; all of them are read for it."""
        return [number for number, part in received.items() if not await self._ledger.is_whole(part)]

    async def drop(self, session: WriteSession, upload: Upload, numbers: Sequence[int]) -> None:
        """Let go of some parts, so that they are sent again."""
        await self._ledger.release(session, upload.project_id, [upload.holder(number) for number in numbers])

    async def finish(self, session: WriteSession, upload: Upload) -> None:
        """Let go of the parts, and remember for a while that it was finished: the answer may have been lost."""
        await self._ledger.release(session, upload.project_id, upload.holders)
        now = self._clock.now()
        await session.execute(update(uploads).where(_is(upload)).values(touched_at=now, finished_at=now))

    async def end(self, session: WriteSession, upload: Upload) -> None:
        """Let go of the parts and forget it."""
        await self._ledger.release(session, upload.project_id, upload.holders)
        await session.execute(delete(uploads).where(_is(upload)))

    async def forget(self, database: Database) -> int:
        """End what nobody has gone on with for two days, in every project; how many."""
        forgotten, count = 0, _SWEPT_AT_ONCE
        while count == _SWEPT_AT_ONCE:
            async with database.write() as session:
                old = select(uploads).where(uploads.c.touched_at < self._clock.now() - FORGOTTEN_AFTER)
                rows = await session.all(old.limit(_SWEPT_AT_ONCE).with_for_update(skip_locked=True))
                for row in rows:
                    await self.end(session, _upload(row))
            count = len(rows)
            forgotten += count
        return forgotten

    async def _of_content(self, session: WriteSession, principal: Principal, plan: UploadPlan) -> list[Upload]:
        if plan.sha256 is None:
            return []
        same = _mine(principal).where(
            uploads.c.principal_id == principal.id,
            uploads.c.sha256 == plan.sha256,
            uploads.c.size == plan.size,
            uploads.c.part_bytes == plan.part_bytes,
            uploads.c.finished_at.is_(None),
        )
        # Locked in the order of their ids, so that two who begin at once wait for each other and not both for ever.
        rows = await session.all(same.order_by(uploads.c.id.desc()).limit(20).with_for_update(key_share=True))
        return sorted(map(_upload, rows), key=lambda upload: upload.touched_at, reverse=True)

    async def _add(self, session: WriteSession, principal: Principal, plan: UploadPlan) -> Upload:
        now = self._clock.now()
        values: Mapping[str, Any] = {
            "id": new_id(),
            "project_id": principal.project,
            "principal_id": principal.id,
            "target": plan.target,
            "parts": plan.parts,
            "sha256": plan.sha256,
            "size": plan.size,
            "part_bytes": plan.part_bytes,
            "content_type": plan.content_type,
            "created_at": now,
            "touched_at": now,
        }
        await session.execute(insert(uploads).values(values))
        return Upload(values["id"], principal.project, plan, now, now, None)

    async def _touch(self, session: WriteSession, upload: Upload) -> None:
        await session.execute(update(uploads).where(_is(upload)).values(touched_at=self._clock.now()))

    async def _joined(self, parts: Sequence[StoredBlob]) -> AsyncIterator[bytes]:
        for part in parts:
            async with aclosing(await self._ledger.store.read(part)) as content:
                async for chunk in content:
                    yield chunk


def check_open(upload: Upload) -> None:
    """Raise `UploadFinished` when it has ended well already."""
    if upload.finished_at is not None:
        raise UploadFinished(f"The upload {upload.id!r} is finished.", hint="Begin another to store it again.")


def check_part(upload: Upload, number: int) -> None:
    """Raise unless an open upload has a part of this number."""
    check_open(upload)
    if not 1 <= number <= upload.plan.parts:
        raise InvalidInput.of("part_number", f"must be 1 to {upload.plan.parts}", number)


def all_of(upload: Upload, received: Mapping[int, StoredBlob]) -> list[StoredBlob]:
    """The parts in their order, or `UploadIncomplete` with those that are missing."""
    missing = [number for number in range(1, upload.plan.parts + 1) if number not in received]
    if missing:
        named = ", ".join(map(str, missing[:_NAMED_MISSING])) + (", …" if missing[_NAMED_MISSING:] else "")
        raise UploadIncomplete(
            f"Of {upload.plan.parts} parts, {len(missing)} are missing: {named}.",
            hint="Send them, then finish again.",
        )
    return [received[number] for number in sorted(received)]


async def exactly(chunks: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The stream, refused as soon as it is known to be longer or shorter."""
    left = size
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise InvalidInput.of("body", f"this part has {size} bytes, and more were sent")
        yield chunk
    if left:
        raise InvalidInput.of("body", f"this part has {size} bytes, and {size - left} were sent")


def _mine(principal: Principal) -> Select[Any]:
    is_mine = (uploads.c.principal_id == principal.id) | uploads.c.principal_id.is_(None)
    return select(uploads).where(uploads.c.project_id == principal.project, is_mine)


def _is(upload: Upload) -> Any:
    return (uploads.c.project_id == upload.project_id) & (uploads.c.id == upload.id)


def _found(row: Row[Any] | None, upload_id: str) -> Upload:
    if row is None:
        raise UploadNotFound.of(upload_id)
    return _upload(row)


def _upload(row: Row[Any]) -> Upload:
    plan = UploadPlan(row.target, row.parts, row.sha256, row.size, row.part_bytes, row.content_type)
    return Upload(row.id, ProjectId(row.project_id), plan, row.created_at, row.touched_at, row.finished_at)

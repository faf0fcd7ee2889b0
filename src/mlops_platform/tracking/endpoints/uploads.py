"""HTTP of uploads in parts: parallel, repeatable, and found again by the digest of the whole after either side died."""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Path, Request, Response

from mlops_platform.contracts.common import ID_PATTERN
from mlops_platform.contracts.tracking import Artifact
from mlops_platform.contracts.tracking_artifacts import ArtifactUpload, ArtifactUploadCreate, UploadedPart
from mlops_platform.core.crypto.errors import BlobCorrupt
from mlops_platform.core.errors import ContentTooLarge, InvalidInput, StorageFull
from mlops_platform.core.http import content
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work, unit_of_work
from mlops_platform.core.http.routing import platform_router, takes_its_time
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.errors import (
    BlobMissing,
    ChecksumMismatch,
    UploadFinished,
    UploadIncomplete,
    UploadNotFound,
)
from mlops_platform.core.storage.uploads import (
    FORGOTTEN_AFTER,
    MAX_PARTS,
    PartLedger,
    Upload,
    UploadPlan,
    all_of,
    check_part,
    exactly,
)
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.artifacts import checked_path, media_type
from mlops_platform.tracking.endpoints.artifacts import artifact_of, check_run, check_writable
from mlops_platform.tracking.endpoints.places import Place, on_run
from mlops_platform.tracking.errors import ArtifactPathTaken, RunDeleted
from mlops_platform.tracking.repository.artifacts import RUNS
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.service.artifacts import RunArtifacts
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.uploads import UploadReader, Uploads

router = platform_router(tags=["artifacts"])

UploadId = Annotated[str, Path(pattern=ID_PATTERN, description="The upload's id.")]
PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS, description="The part, counted from 1.")]
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_work = asynccontextmanager(unit_of_work)


@on_run(
    router,
    "POST",
    "/artifact-uploads",
    permission=EXPERIMENTS_WRITE,
    errors=(RunDeleted, ContentTooLarge, InvalidInput),
    status_code=201,
)
async def begin_upload(
    place: Place, body: ArtifactUploadCreate, work: Work, runtime: RuntimeOf, response: Response
) -> ArtifactUpload:
    """Begin an upload in parts, or go on with the one of the same content and path (200): it says what is here already.

    Parts that the caller sent of the same content for another run or path count too.
    """
    path = checked_path(body.path)
    await check_writable(place, work.principal, work.session)
    plan = UploadPlan.of_content(
        RUNS.holder(place.run_id, path),
        sha256=body.sha256,
        size=body.size,
        part_bytes=body.part_bytes,
        content_type=media_type(body.content_type),
        max_bytes=runtime.settings.max_upload_bytes,
    )
    uploads = Uploads(work, runtime.blobs)
    upload, is_new = await uploads.begin(plan)
    known = await UploadReader(work.session, work.principal, runtime).known(plan)
    response.status_code = 201 if is_new else 200
    return _answer(upload, path, await uploads.received(upload), is_known=known is not None)


@on_run(router, "GET", "/artifact-uploads/{upload_id}", permission=EXPERIMENTS_READ, errors=(UploadNotFound,))
async def get_upload(
    place: Place, upload_id: UploadId, caller: Caller, session: Reading, runtime: RuntimeOf
) -> ArtifactUpload:
    """What the server has of an upload. Only who began it sees it."""
    await check_run(place, caller, session)
    reader = UploadReader(session, caller, runtime)
    upload, path = await reader.of_run(place.run_id, upload_id)
    known = await reader.known(upload.plan)
    return _answer(upload, path, await reader.received(upload), is_known=known is not None)


@on_run(
    router,
    "PUT",
    "/artifact-uploads/{upload_id}/parts/{number}",
    permission=EXPERIMENTS_WRITE,
    errors=(UploadNotFound, RunDeleted, UploadFinished, StorageFull, InvalidInput, ChecksumMismatch),
    openapi_extra={"requestBody": {"required": True, **_BYTES}},
)
async def put_part(
    place: Place, upload_id: UploadId, number: PartNumber, request: Request, caller: Caller, runtime: RuntimeOf
) -> UploadedPart:
    """Store a part, in place of the same part that came before. Parts may come in any order, at once, and again.

    `Content-Digest` or `X-Checksum-SHA256` is demanded: what was damaged on the way is refused here, not at the end.
    """
    promised = content.check_upload(request.headers, max_bytes=runtime.settings.max_upload_bytes)
    async with runtime.database.read() as session:
        await check_writable(place, caller, session)
        upload, _ = await UploadReader(session, caller, runtime).of_run(place.run_id, upload_id)
    if promised is None:
        raise InvalidInput.of(content.CHECKSUM, "must be the SHA-256 of this part in 64 hex digits")
    check_part(upload, number)
    size = upload.plan.part_size(number) or 0
    chunks = exactly(content.upload_of(request), size)
    blob = await runtime.blobs.write(caller.project, chunks, max_bytes=size, sha256=promised)
    async with _work(request) as work:
        kept = await Uploads(work, runtime.blobs).keep(upload_id, number, blob)
    return _part(number, kept)


@on_run(
    router,
    "POST",
    "/artifact-uploads/{upload_id}/finish",
    permission=EXPERIMENTS_WRITE,
    errors=(UploadNotFound, RunDeleted, ArtifactPathTaken, UploadIncomplete, StorageFull, ChecksumMismatch),
    also=[takes_its_time()],
)
async def finish_upload(
    place: Place, upload_id: UploadId, request: Request, caller: Caller, runtime: RuntimeOf
) -> Artifact:
    """Make the parts an artifact, all at once, if they are what was promised. Again is the same answer.

    Reads and writes all of the content, and is not bound by `MLOPS_REQUEST_TIMEOUT_SECONDS`.
    """
    async with runtime.database.read() as session:
        await check_writable(place, caller, session)
        reader = UploadReader(session, caller, runtime)
        upload, path = await reader.of_run(place.run_id, upload_id)
        known, received = await reader.known(upload.plan), await reader.received(upload)
    if upload.finished_at is not None:
        return _stored(upload, path)
    try:
        whole = await _whole(upload, known, received, runtime)
    except ChecksumMismatch:
        # Each part is what it promised, so the promise of the whole was wrong: sending parts again mends nothing.
        async with _work(request) as work:
            uploads = Uploads(work, runtime.blobs)
            await uploads.end(await uploads.found(upload_id))
        raise
    except (BlobCorrupt, BlobMissing):
        damaged = await PartLedger(runtime.blobs, runtime.clock).damaged(received)
        async with _work(request) as work:
            uploads = Uploads(work, runtime.blobs)
            await uploads.drop(await uploads.found(upload_id), damaged)
        all_of(upload, {number: part for number, part in received.items() if number not in damaged})
        raise
    async with _work(request) as work:
        uploads = Uploads(work, runtime.blobs)
        upload = await uploads.found(upload_id)
        if upload.finished_at is not None:
            return _stored(upload, path)
        artifacts = RunArtifacts(work, runtime.blobs, place.run_id, experiment_id=place.experiment_id)
        row = await artifacts.put(path, whole, media_type(upload.plan.content_type))
        await uploads.finish(upload)
    return artifact_of(row)


@on_run(
    router,
    "DELETE",
    "/artifact-uploads/{upload_id}",
    permission=EXPERIMENTS_WRITE,
    errors=(UploadNotFound, RunDeleted),
    status_code=204,
)
async def abort_upload(place: Place, upload_id: UploadId, work: Work, runtime: RuntimeOf) -> None:
    """Give an upload up: its parts are forgotten, what was finished stays."""
    await check_writable(place, work.principal, work.session)
    upload, _ = await UploadReader(work.session, work.principal, runtime).of_run(place.run_id, upload_id)
    uploads = Uploads(work, runtime.blobs)
    await uploads.end(await uploads.found(upload.id))


async def _whole(upload: Upload, known: StoredBlob | None, received: dict[int, StoredBlob], runtime: Runtime) -> StoredBlob:
    """The content: the one that is stored already if it is whole, else the parts as one."""
    if known is not None and await runtime.blobs.is_whole(known):
        return known
    limit = runtime.settings.max_upload_bytes
    return await PartLedger(runtime.blobs, runtime.clock).join(upload, all_of(upload, received), max_bytes=limit)


def _answer(upload: Upload, path: str, received: dict[int, StoredBlob], *, is_known: bool) -> ArtifactUpload:
    plan = upload.plan
    return ArtifactUpload(
        id=upload.id,
        path=path,
        sha256=plan.sha256 or "",
        size=plan.size or 0,
        content_type=plan.content_type or "",
        part_bytes=plan.part_bytes or 0,
        parts=plan.parts,
        received=[_part(number, blob) for number, blob in received.items()],
        is_known=is_known,
        is_finished=upload.finished_at is not None,
        created_at=upload.created_at,
        forgotten_at=upload.touched_at + FORGOTTEN_AFTER,
    )


def _part(number: int, blob: StoredBlob) -> UploadedPart:
    return UploadedPart(number=number, size=blob.size, sha256=blob.sha256)


def _stored(upload: Upload, path: str) -> Artifact:
    """What a lost answer said."""
    plan = upload.plan
    return Artifact(
        path=path,
        size=plan.size or 0,
        sha256=plan.sha256 or "",
        content_type=media_type(plan.content_type),
        created_at=upload.finished_at or upload.touched_at,
    )

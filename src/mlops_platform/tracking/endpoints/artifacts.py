"""HTTP of the artifacts of runs: streamed in and out, listed as a tree."""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Path, Query, Request, Response

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Artifact, ArtifactEntry
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.errors import ContentTooLarge, InvalidInput, RangeNotSatisfiable, StorageFull
from mlops_platform.core.http import content
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work, unit_of_work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.core.storage.errors import ChecksumMismatch
from mlops_platform.tracking.domain.artifacts import checked_path, media_type
from mlops_platform.tracking.endpoints.places import Place, RunPlace, on_run
from mlops_platform.tracking.errors import ArtifactNotFound, ArtifactPathTaken, RunDeleted, RunNotFound
from mlops_platform.tracking.repository.artifacts import ArtifactReader, holder
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.service.artifacts import RunArtifacts, artifact_not_found
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE

router = platform_router(tags=["artifacts"])

ArtifactPath = Annotated[
    str, Path(max_length=1024, description="The artifact's logical path, such as `model/weights.bin`.")
]
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_work = asynccontextmanager(unit_of_work)


@on_run(
    router,
    "PUT",
    "/artifacts/{path:path}",
    permission=EXPERIMENTS_WRITE,
    errors=(RunDeleted, ArtifactPathTaken, ContentTooLarge, StorageFull, InvalidInput, ChecksumMismatch),
    openapi_extra={"requestBody": {"required": True, **_BYTES}},
)
async def put_artifact(place: Place, path: ArtifactPath, request: Request, caller: Caller, runtime: RuntimeOf) -> Artifact:
    """Store the body under a path, replacing what was there. Streamed; nothing is seen of it until all of it is stored.

    With `Content-Digest` or `X-Checksum-SHA256` the content is verified: when it differs, nothing is kept.
    """
    checked_path(path)
    limit = runtime.settings.max_upload_bytes
    promised = content.check_upload(request.headers, max_bytes=limit)
    async with runtime.database.read() as session:
        await check_writable(place, caller, session)
    blob = await runtime.blobs.write(caller.project, content.upload_of(request), max_bytes=limit, sha256=promised)
    # The transaction begins here: an upload may take hours, and it waits for no row and holds none.
    async with _work(request) as work:
        artifacts = RunArtifacts(work, runtime.blobs, place.run_id, experiment_id=place.experiment_id)
        row = await artifacts.put(path, blob, media_type(request.headers.get("content-type")))
    return artifact_of(row)


@on_run(router, "GET", "/artifacts", permission=EXPERIMENTS_READ)
async def list_artifacts(
    place: Place,
    caller: Caller,
    session: Reading,
    page: PageOf,
    path: Annotated[str, Query(max_length=1024, description="The folder; empty for the top.")] = "",
) -> Page[ArtifactEntry]:
    """What lies directly in a folder, by name; folders say how much lies below them."""
    folder = checked_path(path) if path else ""
    await check_run(place, caller, session)
    reader = ArtifactReader(session, caller, place.run_id)
    rows = await reader.children(folder, after=page.after[0] if page.after else None, limit=page.size + 1)
    return page.answer(rows, lambda row: _entry(row, folder), lambda row: (row.name,))


@on_run(
    router,
    "GET",
    "/artifacts/{path:path}",
    permission=EXPERIMENTS_READ,
    errors=(ArtifactNotFound, RangeNotSatisfiable, InvalidInput),
    response_class=Response,
)
async def get_artifact(place: Place, path: ArtifactPath, request: Request, runtime: RuntimeOf) -> Response:
    """Download a file, or the `Range` of it that is asked for. Every byte is verified before it is sent."""
    checked_path(path)
    async with _work(request) as work:
        await check_run(place, work.principal, work.session)
        row = await ArtifactReader(work.session, work.principal, place.run_id).artifact(path)
        # The headers speak of this blob and not of the row: an upload may have come between the two.
        blob = await runtime.blobs.held(work.session, work.principal.project, holder(place.run_id, path))
        if row is None or blob is None:
            raise artifact_not_found(place.run_id, path)
        if content.is_unchanged(request.headers, etag := content.entity_tag(blob.sha256)):
            return content.not_modified(etag)
        artifacts = RunArtifacts(work, runtime.blobs, place.run_id, experiment_id=place.experiment_id)
        await artifacts.record_download(path, blob)
    name = path.rpartition("/")[2]
    return await content.blob_response(
        request.headers, runtime.blobs.store, blob, filename=name, media_type=row.content_type
    )


@on_run(
    router,
    "DELETE",
    "/artifacts/{path:path}",
    permission=EXPERIMENTS_WRITE,
    errors=(RunDeleted, ArtifactNotFound, InvalidInput),
    status_code=204,
)
async def delete_artifact(place: Place, path: ArtifactPath, work: Work, runtime: RuntimeOf) -> None:
    """Delete a file, or a folder with all that lies below it."""
    artifacts = RunArtifacts(work, runtime.blobs, place.run_id, experiment_id=place.experiment_id)
    await artifacts.remove(checked_path(path))


async def check_run(place: RunPlace, caller: Principal, session: ReadSession) -> Record:
    """The run of a path, or `RunNotFound`."""
    row = await RunReader(session, caller).run(place.run_id, experiment_id=place.experiment_id)
    if row is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)
    return row


async def check_writable(place: RunPlace, caller: Principal, session: ReadSession) -> None:
    """Asked before the bytes come, so that nobody uploads hours for a refusal; the decision is made again after them."""
    row = await check_run(place, caller, session)
    caller.require(EXPERIMENTS_WRITE, row.experiment_name)
    if row.deleted_at is not None or row.experiment_deleted_at is not None:
        raise RunDeleted.of(place.run_id)


def artifact_of(row: Record) -> Artifact:
    """A row on the wire."""
    return Artifact(
        path=row.path, size=row.size, sha256=row.sha256, content_type=row.content_type, created_at=row.created_at
    )


def _entry(row: Record, folder: str) -> ArtifactEntry:
    path = f"{folder}/{row.name}" if folder else row.name
    size, files = int(row.size), int(row.files)
    if row.is_folder:
        return ArtifactEntry(path=path, is_folder=True, size=size, files=files)
    return ArtifactEntry(
        path=path,
        is_folder=False,
        size=size,
        files=1,
        sha256=row.sha256,
        content_type=row.content_type,
        created_at=row.created_at,
    )

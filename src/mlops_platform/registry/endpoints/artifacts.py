"""The files of a version: up one by one, down one by one or as a whole."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.registry import ArchiveFormat, Artifact, ModelVersion
from mlops_platform.core.crypto.blob_format import BlobId
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import ContentTooLarge, RangeNotSatisfiable
from mlops_platform.core.http import content
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work, unit_of_work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems
from mlops_platform.core.identity import ProjectId
from mlops_platform.core.storage.archives import Member, tar_stream, zip_stream
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.storage.errors import ChecksumMismatch
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.registry.domain.formats import Sampler, recognise
from mlops_platform.registry.domain.paths import file_name
from mlops_platform.registry.endpoints.models import version_of
from mlops_platform.registry.endpoints.parameters import READ, WRITE, AliasName, LogicalPath, ModelName, VersionLabel, after
from mlops_platform.registry.errors import (
    AliasNotFound,
    ArtifactNotFound,
    ArtifactPathTaken,
    ManifestIncomplete,
    ModelVersionImmutable,
    ModelVersionNotFound,
    ModelVersionPending,
    TooManyArtifacts,
)
from mlops_platform.registry.repository.artifacts import ArtifactReader
from mlops_platform.registry.repository.models import ModelReader
from mlops_platform.registry.service.artifacts import VersionFiles, check_open, downloadable, found_artifact
from mlops_platform.registry.service.models import found_alias, found_version

router = platform_router(tags=["artifacts"])

# A transaction of its own, begun after the bytes are stored: none is open while they stream.
_changing = asynccontextmanager(unit_of_work)

_VERSION = "/api/models/{name}/versions/{version}"
_FILES = f"{_VERSION}/artifacts"
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_ARCHIVES = {ArchiveFormat.ZIP: (zip_stream, "application/zip"), ArchiveFormat.TAR: (tar_stream, "application/x-tar")}

Archive = Annotated[
    ArchiveFormat | None, Query(alias="format", description="Absent: one file as itself, several as a zip.")
]


@router.put(
    _FILES + "/{path:path}",
    status_code=201,
    dependencies=[WRITE],
    responses={
        200: {"model": Artifact, "description": "The file replaced the one of this path."},
        **problems(
            ModelVersionNotFound,
            ModelVersionImmutable,
            ArtifactPathTaken,
            TooManyArtifacts,
            ContentTooLarge,
            ChecksumMismatch,
        ),
    },
    openapi_extra={"requestBody": {"required": True, **_BYTES}},
)
async def upload_artifact(
    name: ModelName,
    version: VersionLabel,
    path: LogicalPath,
    request: Request,
    response: Response,
    caller: Caller,
    runtime: RuntimeOf,
) -> Artifact:
    """Store the body as a file of a pending version, whatever its content type, in place of the one of that path.

    With `Content-Digest: sha-256=:<base64>:` or `X-Checksum-SHA256: <hex>` the content is verified: when it differs,
    nothing is kept.
    """
    promised = content.check_upload(request.headers, max_bytes=runtime.settings.max_upload_bytes)
    async with runtime.database.read() as session:
        await check_open(ModelReader(session, caller), name, version)
    sampler = Sampler()
    chunks = sampler.passing(content.upload_of(request))
    limit = runtime.settings.max_upload_bytes
    blob = await runtime.blobs.write(caller.project, chunks, max_bytes=limit, sha256=promised)
    async with _changing(request) as work:
        files = VersionFiles(work, runtime.blobs)
        row, is_new = await files.store(name, version, path, blob, recognise(sampler.sample()))
    response.status_code = 201 if is_new else 200
    response.headers["ETag"] = content.entity_tag(row.sha256)
    return _artifact(row)


@router.get(_FILES, dependencies=[READ], responses=problems(ModelVersionNotFound))
async def list_artifacts(
    name: ModelName, version: VersionLabel, caller: Caller, session: Reading, page: PageOf
) -> Page[Artifact]:
    """The files of a version, by path."""
    row = await found_version(ModelReader(session, caller), name, version)
    rows = await ArtifactReader(session, caller).artifacts(row.id, after=after(page, "artifacts"), limit=page.size + 1)
    return page.answer(rows, _artifact, lambda file: ("artifacts", file.path))


@router.get(
    _FILES + "/{path:path}",
    dependencies=[READ],
    response_class=Response,
    responses={200: _BYTES, **problems(ModelVersionNotFound, ArtifactNotFound, RangeNotSatisfiable)},
)
async def get_artifact(
    name: ModelName, version: VersionLabel, path: LogicalPath, request: Request, runtime: RuntimeOf
) -> Response:
    """One file as it was uploaded; `Range`, `If-Range` and `If-None-Match` are honoured."""
    async with _changing(request) as work:
        row = await found_version(ModelReader(work.session, work.principal), name, version)
        file = await found_artifact(ArtifactReader(work.session, work.principal), row, path)
        if content.is_unchanged(request.headers, etag := content.entity_tag(file.sha256)):
            return content.not_modified(etag)
        await VersionFiles(work, runtime.blobs).record_download(row, path, size=file.size)
    return await _send_file(request, runtime, file)


@router.head(
    _FILES + "/{path:path}",
    dependencies=[READ],
    response_class=Response,
    responses=problems(ModelVersionNotFound, ArtifactNotFound),
)
async def head_artifact(
    name: ModelName, version: VersionLabel, path: LogicalPath, caller: Caller, session: Reading
) -> Response:
    """What is said about one file, without its content."""
    row = await found_version(ModelReader(session, caller), name, version)
    file = await found_artifact(ArtifactReader(session, caller), row, path)
    return content.head_response(file.sha256, file.size, filename=file_name(path))


@router.delete(
    _FILES + "/{path:path}",
    status_code=204,
    dependencies=[WRITE],
    responses=problems(ModelVersionNotFound, ArtifactNotFound, ModelVersionImmutable),
)
async def delete_artifact(
    name: ModelName, version: VersionLabel, path: LogicalPath, work: Work, runtime: RuntimeOf
) -> None:
    """Take a file out of a pending version."""
    await VersionFiles(work, runtime.blobs).remove(name, version, path)


@router.post(
    _VERSION + "/finalize",
    dependencies=[WRITE],
    responses=problems(ModelVersionNotFound, ManifestIncomplete),
)
async def finalize_version(name: ModelName, version: VersionLabel, work: Work, runtime: RuntimeOf) -> ModelVersion:
    """Verify the manifest and make the version `ready`: from then on its files never change. Again is no error."""
    return version_of(await VersionFiles(work, runtime.blobs).finalize(name, version))


@router.get(
    _VERSION + "/download",
    dependencies=[READ],
    response_class=Response,
    responses={200: _BYTES, **problems(ModelVersionNotFound, ModelVersionPending, ArtifactNotFound)},
)
async def download_version(
    name: ModelName, version: VersionLabel, request: Request, runtime: RuntimeOf, archive: Archive = None
) -> Response:
    """The whole version: its one file as itself, several as an archive that is the same bytes each time."""
    return await _download(request, runtime, lambda models: found_version(models, name, version), archive)


@router.get(
    "/api/models/{name}/aliases/{alias}/download",
    dependencies=[READ],
    response_class=Response,
    responses={200: _BYTES, **problems(AliasNotFound, ModelVersionPending, ArtifactNotFound)},
)
async def download_alias(
    name: ModelName, alias: AliasName, request: Request, runtime: RuntimeOf, archive: Archive = None
) -> Response:
    """The version to which an alias points, as a whole. The header `Content-Location` says which it is."""
    return await _download(request, runtime, lambda models: found_alias(models, name, alias), archive)


async def _download(
    request: Request,
    runtime: Runtime,
    find: Callable[[ModelReader], Awaitable[Record]],
    archive: ArchiveFormat | None,
) -> Response:
    async with _changing(request) as work:
        row = await find(ModelReader(work.session, work.principal))
        files = await downloadable(ArtifactReader(work.session, work.principal), row)
        single = archive is None and len(files) == 1
        kind = archive or ArchiveFormat.ZIP
        etag = content.entity_tag(files[0].sha256 if single else f"{row.manifest_digest}.{kind}")
        if content.is_unchanged(request.headers, etag):
            return content.not_modified(etag)
        await VersionFiles(work, runtime.blobs).record_download(row, "all files", size=row.size)
    if single:
        response = await _send_file(request, runtime, files[0])
    else:
        stream, media_type = _ARCHIVES[kind]
        members = [Member(file.path, file.size, partial(runtime.blobs.store.read, _blob(file))) for file in files]
        filename = f"{row.name}-{row.version}.{kind}"
        response = await content.archive_response(stream(members), etag, filename=filename, media_type=media_type)
    response.headers["Content-Location"] = f"/api/models/{row.name}/versions/{row.version}/download"
    return response


async def _send_file(request: Request, runtime: Runtime, file: Record) -> Response:
    return await content.blob_response(request.headers, runtime.blobs.store, _blob(file), filename=file_name(file.path))


def _blob(file: Record) -> StoredBlob:
    return StoredBlob(ProjectId(file.project_id), BlobId(file.blob_id), file.sha256, file.size, file.is_encrypted)


def _artifact(file: Record) -> Artifact:
    return Artifact(path=file.path, sha256=file.sha256, size=file.size, format=file.format, stored_at=file.stored_at)

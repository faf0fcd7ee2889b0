"""Uploads in parts on MLflow's wire. The parts come to this server too, at addresses that it gives out."""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Path, Request
from starlette.responses import Response

from mlops_platform.core.http.content import check_upload, upload_of
from mlops_platform.core.http.dependencies import Caller, RuntimeOf, Work, unit_of_work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.tracking.domain.artifacts import media_type
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.endpoints.mlflow.artifacts import check_owner, file_path, shelf_of, target_of
from mlops_platform.tracking.endpoints.mlflow.wire import ARTIFACTS, Fields, FieldsOf, answer, done, on_wire
from mlops_platform.tracking.errors import UploadNotFound
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.uploads import Uploads, joined

router = platform_router(tags=["mlflow"])

# The client sends a part with these headers and no others, so it is told what it said by itself.
_ECHOED = ("authorization", "x-api-key", "x-mlops-project", "x-mlflow-workspace")
_work = asynccontextmanager(unit_of_work)
_Number = Annotated[int, Path(ge=1, le=100_000)]


def _file_of(folder: str, fields: Fields) -> str:
    """The path of the file: MLflow's client names it with its place on its own disk."""
    name = fields.needed("path").replace("\\", "/").rpartition("/")[2]
    return f"{folder.rstrip('/')}/{name}"


def _upload_id(fields: Fields) -> str:
    given = fields.needed("upload_id")
    if not is_id(given):
        raise UploadNotFound(f"No upload {given[:60]!r} is under way.")
    return given


@on_wire(router, "POST", "/mpu/create/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def create_upload(path: str, fields: FieldsOf, request: Request, work: Work, runtime: RuntimeOf) -> Response:
    """Begin an upload; where each part goes, and with which headers."""
    file = _file_of(path, fields)
    target = target_of(file)
    file_path(target)
    await check_owner(target, work.session, work.principal, writes=True)
    parts = fields.integer("num_parts") or 1
    upload_id = await Uploads(work, runtime.blobs).begin(file, parts)
    headers = {name: request.headers[name] for name in _ECHOED if name in request.headers}
    base = f"{str(request.base_url).rstrip('/')}{ARTIFACTS[0]}/mpu/part/{upload_id}"
    credentials = [{"url": f"{base}/{number}", "part_number": number, "headers": headers} for number in range(1, parts + 1)]
    return answer({"upload_id": upload_id, "credentials": credentials})


@on_wire(router, "PUT", "/mpu/part/{upload_id}/{number}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def upload_part(upload_id: str, number: _Number, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    """Store a part; its ETag names its content."""
    if not is_id(upload_id):
        raise UploadNotFound(f"No upload {upload_id[:60]!r} is under way.")
    check_upload(request.headers, max_bytes=runtime.settings.max_upload_bytes)
    async with _work(request) as work:
        row = await Uploads(work, runtime.blobs).found(upload_id)
        await check_owner(target_of(row.target), work.session, caller, writes=True)
    blob = await runtime.blobs.write(caller.project, upload_of(request), max_bytes=runtime.settings.max_upload_bytes)
    async with _work(request) as work:
        kept = await Uploads(work, runtime.blobs).keep(upload_id, number, blob)
    return Response(status_code=200, headers={"ETag": f'"{kept.sha256}"'})


@on_wire(router, "POST", "/mpu/complete/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def complete_upload(path: str, fields: FieldsOf, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    """Make one file of the parts. Nothing is seen of it before all of it is there."""
    file, upload_id = _file_of(path, fields), _upload_id(fields)
    target = target_of(file)
    name = file_path(target)
    named = [(part.integer("part_number") or 0, part.text("etag")) for part in fields.items("parts")]
    async with _work(request) as work:
        await check_owner(target, work.session, caller, writes=True)
        uploads = Uploads(work, runtime.blobs)
        parts = await uploads.parts(await uploads.found(upload_id, file), named)
    limit = runtime.settings.max_upload_bytes
    whole = (
        parts[0]
        if len(parts) == 1
        else await runtime.blobs.write(caller.project, joined(runtime.blobs, parts), max_bytes=limit)
    )
    async with _work(request) as work:
        uploads = Uploads(work, runtime.blobs)
        row = await uploads.found(upload_id, file)
        await shelf_of(target, work, runtime).put(name, whole, media_type(None))
        await uploads.end(row)
    return done()


@on_wire(router, "POST", "/mpu/abort/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def abort_upload(path: str, fields: FieldsOf, work: Work, runtime: RuntimeOf) -> Response:
    """Forget the parts; an upload that has ended is forgotten already."""
    file = _file_of(path, fields)
    await check_owner(target_of(file), work.session, work.principal, writes=True)
    uploads = Uploads(work, runtime.blobs)
    try:
        await uploads.end(await uploads.found(_upload_id(fields), file))
    except UploadNotFound:
        return done()
    return done()

"""Uploads in parts on MLflow's wire. The parts come to this server too, at addresses that it gives out."""

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from fastapi import Path, Request
from starlette.responses import Response

from mlops_platform.core.auth.tokens import PARTS_WRITE, UploadClaims, sign_upload_token
from mlops_platform.core.http.content import check_upload, upload_of
from mlops_platform.core.http.dependencies import Caller, RuntimeOf, Work, unit_of_work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.core.storage.errors import UploadNotFound
from mlops_platform.core.storage.uploads import PartLedger, Upload, UploadPlan, check_part
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.artifacts import media_type
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.endpoints.mlflow.artifacts import check_owner, file_path, shelf_of, target_of
from mlops_platform.tracking.endpoints.mlflow.wire import ARTIFACTS, Fields, FieldsOf, answer, done, on_wire
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.uploads import UploadReader, Uploads

router = platform_router(tags=["mlflow"])

# Long enough for a slow line, and no longer: a token cannot be renewed, and its client sends every part at once.
_TOKEN_LIVES = timedelta(minutes=10)
_TOKEN_LIVES_PER_PART = timedelta(minutes=1)
_TOKEN_LIVES_AT_MOST = timedelta(hours=12)
_work = asynccontextmanager(unit_of_work)
_Number = Annotated[int, Path(ge=1, le=100_000)]


def _file_of(folder: str, fields: Fields) -> str:
    """The path of the file: MLflow's client names it with its place on its own disk."""
    name = fields.needed("path").replace("\\", "/").rpartition("/")[2]
    return f"{folder.rstrip('/')}/{name}"


def _upload_id(fields: Fields) -> str:
    given = fields.needed("upload_id")
    if not is_id(given):
        raise UploadNotFound.of(given)
    return given


def _part_headers(upload: Upload, caller: Principal, runtime: Runtime) -> dict[str, str]:
    """What the client sends with each part, and with nothing else: a credential for these parts alone.

    It lies in the memory and logs of more programs than a key should. It names the credential that it was made for, and
    ends with it.
    """
    lives = min(_TOKEN_LIVES + upload.plan.parts * _TOKEN_LIVES_PER_PART, _TOKEN_LIVES_AT_MOST)
    claims = UploadClaims(upload.id, caller.project, caller.credential_id or "", runtime.clock.now() + lives)
    return {"Authorization": f"Bearer {sign_upload_token(runtime.auth_keys.upload, claims)}"}


@on_wire(router, "POST", "/mpu/create/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def create_upload(path: str, fields: FieldsOf, request: Request, work: Work, runtime: RuntimeOf) -> Response:
    """Begin an upload; where each part goes, and with which headers."""
    file = _file_of(path, fields)
    target = target_of(file)
    file_path(target)
    await check_owner(target, work.session, work.principal, writes=EXPERIMENTS_WRITE)
    parts = fields.integer("num_parts") or 1
    upload, _ = await Uploads(work, runtime.blobs).begin(UploadPlan(file, parts))
    headers = _part_headers(upload, work.principal, runtime)
    base = f"{str(request.base_url).rstrip('/')}{ARTIFACTS[0]}/mpu/part/{upload.id}"
    credentials = [{"url": f"{base}/{number}", "part_number": number, "headers": headers} for number in range(1, parts + 1)]
    return answer({"upload_id": upload.id, "credentials": credentials})


@on_wire(router, "PUT", "/mpu/part/{upload_id}/{number}", permission=PARTS_WRITE, prefixes=ARTIFACTS)
async def upload_part(upload_id: str, number: _Number, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    """Store a part; its ETag names its content."""
    if not is_id(upload_id) or caller.upload_id not in {None, upload_id}:
        raise UploadNotFound.of(upload_id)
    limit = runtime.settings.max_upload_bytes
    promised = check_upload(request.headers, max_bytes=limit)
    async with runtime.database.read() as session:
        upload = await UploadReader(session, caller, runtime).found(upload_id)
        await check_owner(target_of(upload.plan.target), session, caller, writes=PARTS_WRITE)
    check_part(upload, number)
    blob = await runtime.blobs.write(caller.project, upload_of(request), max_bytes=limit, sha256=promised)
    async with _work(request) as work:
        kept = await Uploads(work, runtime.blobs).keep(upload_id, number, blob)
    return Response(status_code=200, headers={"ETag": f'"{kept.sha256}"'})


@on_wire(router, "POST", "/mpu/complete/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def complete_upload(path: str, fields: FieldsOf, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    """Make one file of the parts, all at once. Again, after an answer that was lost, is no error."""
    file, upload_id = _file_of(path, fields), _upload_id(fields)
    target = target_of(file)
    name = file_path(target)
    named = [(part.integer("part_number") or 0, part.text("etag")) for part in fields.items("parts")]
    async with _work(request) as work:
        await check_owner(target, work.session, caller, writes=EXPERIMENTS_WRITE)
        uploads = Uploads(work, runtime.blobs)
        upload = await uploads.found(upload_id, target=file)
        if upload.finished_at is not None:
            return done()
        parts = await uploads.named(upload, named)
    limit = runtime.settings.max_upload_bytes
    whole = await PartLedger(runtime.blobs, runtime.clock).join(upload, parts, max_bytes=limit)
    async with _work(request) as work:
        uploads = Uploads(work, runtime.blobs)
        upload = await uploads.found(upload_id, target=file)
        if upload.finished_at is None:
            await shelf_of(target, work, runtime).put(name, whole, media_type(None))
            await uploads.finish(upload)
    return done()


@on_wire(router, "POST", "/mpu/abort/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def abort_upload(path: str, fields: FieldsOf, work: Work, runtime: RuntimeOf) -> Response:
    """Forget the parts; an upload that has ended is forgotten already."""
    file = _file_of(path, fields)
    await check_owner(target_of(file), work.session, work.principal, writes=EXPERIMENTS_WRITE)
    uploads = Uploads(work, runtime.blobs)
    try:
        await uploads.end(await uploads.found(_upload_id(fields), target=file))
    except UploadNotFound:
        return done()
    return done()

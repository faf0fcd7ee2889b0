"""Artifacts on MLflow's wire: behind this server, under names that say nothing of where the bytes lie."""

import posixpath
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from fastapi import Request
from starlette.responses import Response

from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http import content
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, unit_of_work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain import mlflow_rules as rules
from mlops_platform.tracking.domain.artifacts import checked_path, media_type
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.endpoints.mlflow.answers import location_of
from mlops_platform.tracking.endpoints.mlflow.logging import known_model
from mlops_platform.tracking.endpoints.mlflow.runs import found_run
from mlops_platform.tracking.endpoints.mlflow.wire import ARTIFACTS, FieldsOf, answer, done, on_wire
from mlops_platform.tracking.errors import ArtifactNotFound, LoggedModelNotFound, MlflowInvalid, RunDeleted
from mlops_platform.tracking.repository.artifacts import MODELS, RUNS, ArtifactReader, Shelf
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.models import LoggedModelReader
from mlops_platform.tracking.service.artifacts import LoggedModelArtifacts, RunArtifacts
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE

router = platform_router(tags=["mlflow"])

MOST_LISTED = 10_000
_work = asynccontextmanager(unit_of_work)


@dataclass(frozen=True, slots=True)
class Target:
    """What a path of the proxy names: the files of a run or a logged model, and one of them or a folder."""

    shelf: Shelf
    owner_id: str
    path: str
    number: int


def target_of(raw: str) -> Target:
    """`<experiment>/<run>/artifacts/<path>` or `<experiment>/models/<model>/artifacts/<path>`."""
    path = safe_path(raw)
    match path.split("/"):
        case [number, "models", model, "artifacts", *rest] if (model_id := rules.model_id_of(model)) is not None:
            return Target(MODELS, model_id, "/".join(rest), rules.experiment_number(number))
        case [number, run_id, "artifacts", *rest] if is_id(run_id):
            return Target(RUNS, run_id, "/".join(rest), rules.experiment_number(number))
        case _:
            raise ArtifactNotFound(f"Nothing is stored at {path[:200]!r}: it is no path of a run or of a logged model.")


def safe_path(raw: str) -> str:
    """A path that stays where it begins, however it was encoded; MLflow's sentence for every other."""
    decoded = unquote(unquote(raw))
    is_odd = "\\" in decoded or decoded.startswith("/") or ":" in decoded.partition("/")[0] or ".." in decoded.split("/")
    if is_odd or any(ord(char) < 32 for char in decoded):
        raise MlflowInvalid("Invalid path")
    path = posixpath.normpath(raw) if raw else ""
    return "" if path == "." else path


def file_path(target: Target) -> str:
    """The path of a file, which must be one."""
    try:
        return checked_path(target.path)
    except InvalidInput as error:
        raise MlflowInvalid(f"Invalid path: {error.detail}") from error


async def check_owner(
    target: Target, session: ReadSession, caller: Principal, *, writes: Permission | None = None
) -> Record:
    """The run or model, in the experiment that the path names; with `writes`, one that the caller may change."""
    if target.shelf is RUNS:
        row = await found_run(session, caller, target.owner_id)
        is_deleted = row.deleted_at is not None or row.experiment_deleted_at is not None
    else:
        found = await LoggedModelReader(session, caller).model(target.owner_id)
        if found is None:
            raise LoggedModelNotFound.of(f"m-{target.owner_id}")
        row, is_deleted = found, found.deleted_at is not None
    if row.experiment_number != target.number:
        raise ArtifactNotFound(f"Experiment {target.number} has no such run or logged model.")
    if writes is not None:
        caller.require(writes, row.experiment_name)
        if is_deleted:
            raise RunDeleted.of(target.owner_id) if target.shelf is RUNS else LoggedModelNotFound.of(f"m-{target.owner_id}")
    return row


def shelf_of(target: Target, work: UnitOfWork, runtime: Runtime) -> RunArtifacts | LoggedModelArtifacts:
    """The use cases on what a path names."""
    kind = RunArtifacts if target.shelf is RUNS else LoggedModelArtifacts
    return kind(work, runtime.blobs, target.owner_id)


@on_wire(router, "PUT", "/artifacts/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def upload_artifact(path: str, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    """Store the body under a path. Nothing is seen of it until all of it is stored."""
    target = target_of(path)
    name = file_path(target)
    promised = content.check_upload(request.headers, max_bytes=runtime.settings.max_upload_bytes)
    async with runtime.database.read() as session:
        await check_owner(target, session, caller, writes=EXPERIMENTS_WRITE)
    chunks = content.upload_of(request)
    limit = runtime.settings.max_upload_bytes
    blob = await runtime.blobs.write(caller.project, chunks, max_bytes=limit, sha256=promised)
    async with _work(request) as work:
        kind = media_type(request.headers.get("content-type"))
        await shelf_of(target, work, runtime).put(name, blob, kind)
    return done()


@on_wire(router, "GET", "/artifacts/{path:path}", permission=EXPERIMENTS_READ, prefixes=ARTIFACTS)
async def download_artifact(path: str, request: Request, runtime: RuntimeOf) -> Response:
    """Stream a file, or the range of it that is asked for; every byte is verified before it is sent."""
    target = target_of(path)
    name = file_path(target)
    async with _work(request) as work:
        caller = work.principal
        await check_owner(target, work.session, caller)
        row = await ArtifactReader(work.session, caller, target.owner_id, shelf=target.shelf).artifact(name)
        blob = await runtime.blobs.held(work.session, caller.project, target.shelf.holder(target.owner_id, name))
        if row is None or blob is None:
            raise ArtifactNotFound(f"No such artifact: '{name}'")
        if content.is_unchanged(request.headers, etag := content.entity_tag(blob.sha256)):
            return content.not_modified(etag)
        await shelf_of(target, work, runtime).record_download(name, blob)
    store, filename = runtime.blobs.store, name.rpartition("/")[2]
    return await content.blob_response(request.headers, store, blob, filename=filename, media_type=row.content_type)


@on_wire(router, "DELETE", "/artifacts/{path:path}", permission=EXPERIMENTS_WRITE, prefixes=ARTIFACTS)
async def delete_artifact(path: str, request: Request, caller: Caller, runtime: RuntimeOf) -> Response:
    """Delete a file or a folder; what is absent is deleted already."""
    target = target_of(path)
    async with runtime.database.read() as session:
        await check_owner(target, session, caller, writes=EXPERIMENTS_WRITE)
        names = [target.path] if target.path else [row.name for row in await _children(target, session, caller)]
    async with _work(request) as work:
        for name in names:
            try:
                await shelf_of(target, work, runtime).remove(checked_path(name))
            except ArtifactNotFound:
                continue
    return done()


@on_wire(router, "GET", "/artifacts", permission=EXPERIMENTS_READ, prefixes=ARTIFACTS)
async def list_proxied_artifacts(fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    """What lies directly in a folder, by its own name. Nothing is at a path that names nothing."""
    given = safe_path(fields.text("path"))
    try:
        target = target_of(given)
    except ArtifactNotFound:
        return done()
    await check_owner(target, session, caller)
    files = [_file(row, "") for row in await _children(target, session, caller)]
    return answer({"files": files} if files else {})


@on_wire(router, "GET", "/artifacts/list", permission=EXPERIMENTS_READ)
async def list_run_artifacts(fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    run_id = fields.run_id()
    row = await found_run(session, caller, run_id)
    folder = safe_path(fields.text("path"))
    target = Target(RUNS, run_id, folder, row.experiment_number)
    root = f"{location_of(row.experiment_number, row.artifact_location)}/{run_id}/artifacts"
    return answer(_listing(root, folder, await _children(target, session, caller)))


@on_wire(router, "GET", "/logged-models/{model_id}/artifacts/directories", permission=EXPERIMENTS_READ)
async def list_logged_model_artifacts(model_id: str, fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    row = await LoggedModelReader(session, caller).model(known_model(model_id))
    if row is None or row.deleted_at is not None:
        raise LoggedModelNotFound.of(model_id)
    folder = safe_path(fields.text("artifact_directory_path"))
    target = Target(MODELS, row.id, folder, row.experiment_number)
    root = f"{location_of(row.experiment_number, row.artifact_location)}/models/{model_id}/artifacts"
    return answer(_listing(root, folder, await _children(target, session, caller)))


async def _children(target: Target, session: ReadSession, caller: Principal) -> Sequence[Record]:
    reader = ArtifactReader(session, caller, target.owner_id, shelf=target.shelf)
    return await reader.children(target.path, after=None, limit=MOST_LISTED)


def _listing(root: str, folder: str, rows: Sequence[Record]) -> dict[str, Any]:
    files = [_file(row, folder) for row in rows]
    return {"root_uri": root, **({"files": files} if files else {})}


def _file(row: Record, folder: str) -> dict[str, Any]:
    path = f"{folder}/{row.name}" if folder else row.name
    return {"path": path, "is_dir": row.is_folder, **({} if row.is_folder else {"file_size": int(row.size)})}

"""HTTP of looking at an artifact without opening it."""

from contextlib import asynccontextmanager

from fastapi import Request, Response

from mlops_platform.contracts.tracking_artifacts import ArtifactPreview
from mlops_platform.core.errors import InvalidInput, RangeNotSatisfiable, TooManyRequests
from mlops_platform.core.http import content
from mlops_platform.core.http.dependencies import RuntimeOf, unit_of_work
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.artifacts import checked_path
from mlops_platform.tracking.endpoints.artifacts import ArtifactPath, check_run
from mlops_platform.tracking.endpoints.places import Place, RunPlace, on_run
from mlops_platform.tracking.errors import ArtifactNotFound, NotAnImage
from mlops_platform.tracking.repository.artifacts import holder
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.service import previews
from mlops_platform.tracking.service.artifacts import RunArtifacts, artifact_not_found

router = platform_router(tags=["artifacts"])
_work = asynccontextmanager(unit_of_work)


@on_run(
    router,
    "GET",
    "/artifact-previews/{path:path}",
    permission=EXPERIMENTS_READ,
    errors=(ArtifactNotFound, InvalidInput, TooManyRequests),
)
async def preview_artifact(place: Place, path: ArtifactPath, request: Request, runtime: RuntimeOf) -> ArtifactPreview:
    """The beginning of a file as text, JSON or table, by its content; of an image that it is one.

    Parquet is read by a process of its own, within limits of memory and time.
    """
    blob = await _looked_at(place, path, request, runtime)
    return await previews.preview(runtime.blobs.store, blob, path)


@on_run(
    router,
    "GET",
    "/artifact-images/{path:path}",
    permission=EXPERIMENTS_READ,
    errors=(ArtifactNotFound, NotAnImage, RangeNotSatisfiable, InvalidInput),
    response_class=Response,
)
async def show_image(place: Place, path: ArtifactPath, request: Request, runtime: RuntimeOf) -> Response:
    """A PNG, JPEG, GIF or WebP under the type that its content has, to be shown by a page; nothing else, SVG included."""
    blob = await _looked_at(place, path, request, runtime)
    kind = await previews.image_type(runtime.blobs.store, blob, path)
    if content.is_unchanged(request.headers, etag := content.entity_tag(blob.sha256)):
        return content.not_modified(etag)
    name = path.rpartition("/")[2]
    return await content.blob_response(request.headers, runtime.blobs.store, blob, filename=name, media_type=kind)


async def _looked_at(place: RunPlace, path: str, request: Request, runtime: Runtime) -> StoredBlob:
    """The content of a file, after stating that somebody looks at it."""
    checked_path(path)
    async with _work(request) as work:
        await check_run(place, work.principal, work.session)
        blob = await runtime.blobs.held(work.session, work.principal.project, holder(place.run_id, path))
        if blob is None:
            raise artifact_not_found(place.run_id, path)
        artifacts = RunArtifacts(work, runtime.blobs, place.run_id, experiment_id=place.experiment_id)
        await artifacts.record_preview(path, blob)
    return blob

"""The routes that every service answers without a credential: health, readiness, version, metrics, documentation."""

import asyncio
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.datastructures import State
from starlette.responses import FileResponse, HTMLResponse, Response

from mlops_platform.contracts.platform import Health, Readiness, Version
from mlops_platform.core.errors import NotFound, PlatformError
from mlops_platform.core.identity import Permission
from mlops_platform.core.telemetry.metrics import CONTENT_TYPE

VERSION = version("mlops-platform")
ASSETS = Path(__file__).parent / "assets"
_ASSET_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "LICENSE": "text/plain"}
# The exact list. A suffix or prefix match has opened whole APIs elsewhere.
PUBLIC_PATHS = frozenset(
    {
        "/health",
        "/health/",
        "/ready",
        "/version",
        "/docs",
        "/openapi.json",
        "/metrics",
        *(f"/docs/assets/{name}" for name in _ASSET_TYPES),
    }
)
PUBLIC_ROUTES = (PUBLIC_PATHS - {f"/docs/assets/{name}" for name in _ASSET_TYPES}) | {"/docs/assets/{name}"}
METRICS_READ = Permission("metrics:read")
_CHECK_SECONDS = 2.0
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)

router = APIRouter(tags=["system"])


@router.get("/health", summary="Is the process alive?")
@router.get("/health/", include_in_schema=False)
async def health(request: Request) -> Health:
    """Answers as long as the process can answer at all; it asks nobody else."""
    now = request.app.state.runtime.clock.now()
    return Health(status="healthy", service=request.app.state.name, version=VERSION, time=now)


@router.get("/ready", summary="Can it do its work?", responses={503: {"model": Readiness}})
async def ready(request: Request, response: Response) -> Readiness:
    """Asks every dependency and says which one is missing."""
    state = request.app.state
    # One look at a time, however many ask: without a credential nobody gets more of the database than that.
    if state.readiness is None or state.readiness.done():
        state.readiness = asyncio.create_task(_look(state), name="readiness")
    dependencies = await asyncio.shield(state.readiness)
    is_ready = all(result == "ok" for result in dependencies.values())
    if not is_ready:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return Readiness(status="ready" if is_ready else "unavailable", dependencies=dependencies)


@router.get("/version", summary="Which version is this?")
async def show_version(request: Request) -> Version:
    """The version of the platform."""
    return Version(service=request.app.state.name, version=VERSION)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Rate, errors and duration by route, in the Prometheus text format."""
    if principal := request.scope["state"].get("principal"):  # only where MLOPS_METRICS_PUBLIC is off
        principal.require(METRICS_READ)
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The API, to read and to try. Its assets are shipped: it works without a network."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    page.headers["Content-Security-Policy"] = _DOCS_POLICY
    return page


@router.get("/docs/assets/{name}", include_in_schema=False)
async def asset(name: str) -> FileResponse:
    """One of the files behind `/docs`."""
    if name not in _ASSET_TYPES:
        raise NotFound(f"There is no documentation asset named {name[:100]!r}.")
    return FileResponse(ASSETS / name, media_type=_ASSET_TYPES[name], headers={"Cache-Control": "public, max-age=86400"})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    app: FastAPI = request.app
    return Response(app.state.openapi_json(), media_type="application/json")


async def _look(state: State) -> dict[str, str]:
    runtime = state.runtime
    checks = {"database": runtime.database.ping, "object store": runtime.blobs.store.check, **state.checks}
    return dict(zip(checks, await asyncio.gather(*map(_check, checks.values())), strict=True))


async def _check(run: object) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await run()  # type: ignore[operator]
    except PlatformError as error:
        return error.detail
    except TimeoutError:
        return f"no answer within {_CHECK_SECONDS:g} s"
    return "ok"

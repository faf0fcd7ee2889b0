"""HTTP of metrics: the hot path that takes points in, and the reads."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Path, Query, Request, Response

from mlops_platform.contracts.common import Page, wire_time
from mlops_platform.contracts.tracking import Metric, MetricPoint, MetricsAccepted, Point
from mlops_platform.contracts.tracking_metrics import MAX_SPELLED_KEY
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.errors import ContentTooLarge, TooManyRequests, UnsupportedMediaType
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, StateOf
from mlops_platform.core.http.pages import PageRequest, pages_of
from mlops_platform.core.http.routing import is_json, platform_router, read_json
from mlops_platform.core.http.service import HotRequest, HotResponse, HotRoute
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.domain.keys import context_of, key_parts, read_key
from mlops_platform.tracking.domain.points import Points, read_points
from mlops_platform.tracking.domain.series import spelled
from mlops_platform.tracking.endpoints.answers import to_metric
from mlops_platform.tracking.endpoints.places import LONG, SHORT, Place, RunPlace, on_run
from mlops_platform.tracking.errors import MetricNotFound, RunDeleted, RunNotFound
from mlops_platform.tracking.repository import metrics
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.metrics import IngestItem
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.ingest import MetricIngest

router = platform_router(tags=["metrics"])

MetricName = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_SPELLED_KEY,
        description="The metric's key; it may hold slashes, and a context as in `loss{split=val}`.",
    ),
]
MAX_POINTS = 10_000
WRITTEN_AT_ONCE = 1000
PointPage = Annotated[PageRequest, Depends(pages_of(MAX_POINTS))]
_SCHEMA = MetricPoint.model_json_schema()
_EXAMPLE = {"accuracy": 0.95, "precision": 0.92, "recall": 0.98, "step": 100}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"anyOf": [_SCHEMA, {"type": "array", "items": _SCHEMA}]}, "example": _EXAMPLE}
    },
}


@on_run(
    router,
    "POST",
    "/metrics",
    permission=EXPERIMENTS_WRITE,
    errors=(RunDeleted, ContentTooLarge, TooManyRequests),
    openapi_extra={"requestBody": _BODY},
)
async def log_metrics(
    place: Place, request: Request, caller: Caller, runtime: RuntimeOf, state: StateOf
) -> MetricsAccepted:
    """Add points: one flat object, or a list of them. Answered once they are durable.

    Every field but `step`, `timestamp` and an object `context` is a metric. A request may be sent again: a point is
    identified by run, key, step, timestamp and value, or without the timestamp when none was given.
    """
    return await _accept(place, await request.json(), caller, runtime, state)


async def log_metrics_hot(request: HotRequest) -> HotResponse:
    """The same, before FastAPI."""
    parameters = request.path_params
    place = RunPlace(parameters["run_id"], parameters.get("experiment_id"))
    if not is_id(place.run_id) or not (place.experiment_id is None or is_id(place.experiment_id)):
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)
    content_type = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"")
    if not is_json(content_type.decode("latin-1")):
        raise UnsupportedMediaType(
            f"This route reads JSON, and the content type is {content_type.decode('latin-1')!r}.",
            hint="Send the header 'Content-Type: application/json'.",
        )
    settings = request.runtime.settings
    body = read_json(await request.body(settings.max_body_bytes), settings.max_json_depth)
    accepted = await _accept(place, body, request.principal, request.runtime, request.state)
    return HotResponse(msgspec.json.encode(accepted.model_dump()))


HOT_ROUTES = tuple(HotRoute("POST", f"{form}/metrics", EXPERIMENTS_WRITE, log_metrics_hot) for form in (SHORT, LONG))


async def _accept(
    place: RunPlace, body: Any, principal: Principal, runtime: Runtime, ingest: MetricIngest
) -> MetricsAccepted:
    points = read_points(body, now=runtime.clock.now())
    stored = await store_points(place, points, principal, runtime, ingest)
    return MetricsAccepted(accepted=len(points), stored=stored, duplicates=len(points) - stored)


async def store_points(
    place: RunPlace, points: Points, principal: Principal, runtime: Runtime, ingest: MetricIngest
) -> int:
    """Store points, whatever wire they came on; how many were new."""
    if principal.name_patterns(EXPERIMENTS_WRITE) is not None:
        await _check_name(place, principal, runtime)
    return await ingest.add(IngestItem(principal.project, place.run_id, place.experiment_id, points))


async def _check_name(place: RunPlace, principal: Principal, runtime: Runtime) -> None:
    """Only for those whose grants are limited to experiments of certain names."""
    async with runtime.database.read() as session:
        row = await RunReader(session, principal).run(place.run_id, experiment_id=place.experiment_id)
    if row is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)
    principal.require(EXPERIMENTS_WRITE, row.experiment_name)


@on_run(router, "GET", "/metrics", permission=EXPERIMENTS_READ)
async def list_metrics(place: Place, caller: Caller, session: Reading) -> list[Metric]:
    """What is kept of each metric of the run: last, min, max, mean, count."""
    await _check_run(place, caller, session)
    return [to_metric(row) for row in await metrics.of_run(session, caller, place.run_id)]


@on_run(router, "GET", "/metric-points", permission=EXPERIMENTS_READ, response_model=Page[Point])
async def read_points_of_metrics(
    place: Place,
    caller: Caller,
    session: Reading,
    page: PointPage,
    key: Annotated[
        list[str], Query(min_length=1, max_length=100, description="The metrics' keys, as in `loss{split=val}`.")
    ],
) -> Response:
    """The exact points of several metrics, one metric after the other, each by step, timestamp and value."""
    await _check_run(place, caller, session)
    rows, names = await _points(place, {read_key(each) for each in key}, caller, session, page)
    return await _written(rows, names, page)


@on_run(
    router,
    "GET",
    "/metrics/{key:path}",
    permission=EXPERIMENTS_READ,
    errors=(MetricNotFound,),
    response_model=Page[Point],
)
async def read_points_of_metric(
    place: Place, key: MetricName, caller: Caller, session: Reading, page: PointPage
) -> Response:
    """The exact points of one metric, by step, timestamp and value."""
    await _check_run(place, caller, session)
    rows, names = await _points(place, {read_key(key)}, caller, session, page)
    if not rows and page.after is None:
        raise MetricNotFound(
            f"The run {place.run_id!r} has no metric {key!r}.", hint=f"GET /api/runs/{place.run_id}/metrics lists them."
        )
    return await _written(rows, names, page)


async def _points(
    place: RunPlace, keys: set[str], caller: Principal, session: ReadSession, page: PageRequest
) -> tuple[Sequence[Record], dict[int, str]]:
    ids = await metrics.key_ids(session, caller, keys)
    names = {number: name for name, number in ids.items()}
    rows = await metrics.history(session, caller, place.run_id, list(names), limit=page.size + 1, after=page.after)
    return rows, names


async def _written(rows: Sequence[Record], names: Mapping[int, str], page: PageRequest) -> Response:
    """A page of points as `Page[Point]` has it. Checked nowhere again: that would cost more than to find them."""
    shown = rows[: page.size]
    last = shown[-1] if len(rows) > page.size else None
    place = None if last is None else (last.key_id, last.step, last.timestamp, last.value)

    def write() -> bytes:
        parts = {number: key_parts(name) for number, name in names.items()}
        keys = {number: (name, context_of(context)) for number, (name, context) in parts.items()}
        items = [
            {
                "key": keys[row.key_id][0],
                "context": keys[row.key_id][1],
                "step": row.step,
                "timestamp": wire_time(row.timestamp),
                "value": value,
            }
            for row, value in zip(shown, spelled([row.value for row in shown]), strict=True)
        ]
        return msgspec.json.encode({"items": items, "next_page_token": page.token(place)})

    # Others must not wait while ten thousand points are written out.
    content = write() if len(shown) < WRITTEN_AT_ONCE else await asyncio.to_thread(write)
    return Response(content, media_type="application/json")


async def _check_run(place: RunPlace, caller: Principal, session: ReadSession) -> None:
    if await RunReader(session, caller).run(place.run_id, experiment_id=place.experiment_id) is None:
        raise RunNotFound.of(place.run_id, experiment_id=place.experiment_id)

"""HTTP of series for charts."""

from typing import Any

import msgspec
from fastapi import Response

from mlops_platform.contracts.tracking_metrics import SeriesAnswer, SeriesRequest
from mlops_platform.core.http.dependencies import Caller, Reading, StateOf
from mlops_platform.core.http.routing import platform_router, requires
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.service.series import read_series

router = platform_router(tags=["metrics"])


@router.post("/api/series", dependencies=[requires(EXPERIMENTS_READ)], response_model=SeriesAnswer)
async def series(body: SeriesRequest, caller: Caller, session: Reading, state: StateOf) -> Any:
    """Several metrics of several runs for charts, each reduced to at most `max_points` in the database.

    `minmax` keeps the least and the greatest value of each part of a series, so no peak is lost; `lttb` keeps the shape.
    NaN and infinities stay visible. Runs and keys that do not exist are left out.
    """
    found = await read_series(session, caller, body, state.segments)
    # Checked nowhere again: a hundred thousand numbers would cost more to validate than to find.
    return Response(msgspec.json.encode({"items": found}), media_type="application/json")

"""HTTP of comparing runs."""

from fastapi import Response

from mlops_platform.contracts.tracking_compare import Compare, Comparison
from mlops_platform.core.errors import TooManyRequests
from mlops_platform.core.http.dependencies import Caller, RuntimeOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.query.errors import QueryError
from mlops_platform.tracking.backends.forest import Forest
from mlops_platform.tracking.errors import AnalysisFailed, MetricNotFound, PackageMissing, RunNotFound, TooManyRuns
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.service.comparing import compare

router = platform_router(tags=["runs"])


@router.post(
    "/api/compare",
    dependencies=[requires(EXPERIMENTS_READ)],
    response_model=Comparison,
    responses=problems(
        RunNotFound, MetricNotFound, QueryError, TooManyRuns, TooManyRequests, PackageMissing, AnalysisFailed
    ),
)
async def compare_runs(body: Compare, caller: Caller, runtime: RuntimeOf) -> Response:
    """Up to 1,000 runs side by side: the parameters in which they differ, their metrics, axes for a plot.

    With a `target` metric also how each numeric parameter correlates with it, and on request how important each is.
    """
    content = await compare(runtime.database, caller, body, Forest())
    return Response(content, media_type="application/json")

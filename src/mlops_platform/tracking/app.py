"""Experiment Tracking, as `server/` knows it."""

from contextlib import AbstractAsyncContextManager

from mlops_platform.core.http.service import Service
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.endpoints import (
    artifacts,
    collaboration,
    compare,
    experiments,
    folders,
    metric_edits,
    metrics,
    run_life,
    run_transfer,
    runs,
    search,
    series,
)
from mlops_platform.tracking.service.ingest import MetricIngest
from mlops_platform.tracking.tasks import DUTIES


def _state(runtime: Runtime) -> AbstractAsyncContextManager[MetricIngest]:
    return MetricIngest(runtime.database).running()


SERVICE = Service(
    name="experiment-tracking",
    title="Experiment Tracking",
    description="Experiments, runs, parameters, metrics and artifacts: what was tried, with what, and how it went.",
    routers=(
        folders.router,
        experiments.router,
        search.router,
        runs.router,
        run_life.router,
        run_transfer.router,
        collaboration.router,
        compare.router,
        metrics.router,
        metric_edits.router,
        series.router,
        artifacts.router,
    ),
    duties=DUTIES,
    hot_routes=metrics.HOT_ROUTES,
    state=_state,
)

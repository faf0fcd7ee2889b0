"""Experiment Tracking, as `server/` knows it."""

from contextlib import AbstractAsyncContextManager

from mlops_platform.core.http.service import Service
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.endpoints import artifacts, experiments, inputs, metrics, runs, search
from mlops_platform.tracking.endpoints.mlflow import artifacts as mlflow_artifacts
from mlops_platform.tracking.endpoints.mlflow import experiments as mlflow_experiments
from mlops_platform.tracking.endpoints.mlflow import logging as mlflow_logging
from mlops_platform.tracking.endpoints.mlflow import metrics as mlflow_metrics
from mlops_platform.tracking.endpoints.mlflow import models as mlflow_models
from mlops_platform.tracking.endpoints.mlflow import runs as mlflow_runs
from mlops_platform.tracking.endpoints.mlflow import search as mlflow_search
from mlops_platform.tracking.endpoints.mlflow import server as mlflow_server
from mlops_platform.tracking.endpoints.mlflow.errors import mlflow_error
from mlops_platform.tracking.endpoints.mlflow.wire import PREFIXES
from mlops_platform.tracking.service.ingest import MetricIngest


def _state(runtime: Runtime) -> AbstractAsyncContextManager[MetricIngest]:
    return MetricIngest(runtime.database).running()


_MLFLOW = (
    mlflow_experiments.router,
    mlflow_runs.router,
    mlflow_logging.router,
    mlflow_search.router,
    mlflow_metrics.router,
    mlflow_artifacts.router,
    mlflow_models.router,
    mlflow_server.router,
)

SERVICE = Service(
    name="experiment-tracking",
    title="Experiment Tracking",
    description="Experiments, runs, parameters, metrics and artifacts: what was tried, with what, and how it went.",
    routers=(experiments.router, search.router, runs.router, metrics.router, artifacts.router, inputs.router, *_MLFLOW),
    hot_routes=(*metrics.HOT_ROUTES, *mlflow_logging.HOT_ROUTES),
    state=_state,
    error_forms=dict.fromkeys(PREFIXES, mlflow_error),
)

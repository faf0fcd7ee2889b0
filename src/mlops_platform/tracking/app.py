"""Experiment Tracking, as `server/` knows it."""

from mlops_platform.core.http.service import Service
from mlops_platform.tracking.endpoints import (
    archives,
    artifacts,
    collaboration,
    compare,
    experiments,
    folders,
    imports,
    inputs,
    metric_edits,
    metrics,
    previews,
    run_life,
    run_transfer,
    runs,
    search,
    series,
    sweeps,
    uploads,
)
from mlops_platform.tracking.endpoints.mlflow import artifacts as mlflow_artifacts
from mlops_platform.tracking.endpoints.mlflow import experiments as mlflow_experiments
from mlops_platform.tracking.endpoints.mlflow import logging as mlflow_logging
from mlops_platform.tracking.endpoints.mlflow import metrics as mlflow_metrics
from mlops_platform.tracking.endpoints.mlflow import models as mlflow_models
from mlops_platform.tracking.endpoints.mlflow import multipart as mlflow_multipart
from mlops_platform.tracking.endpoints.mlflow import runs as mlflow_runs
from mlops_platform.tracking.endpoints.mlflow import search as mlflow_search
from mlops_platform.tracking.endpoints.mlflow import server as mlflow_server
from mlops_platform.tracking.endpoints.mlflow.errors import mlflow_error
from mlops_platform.tracking.endpoints.mlflow.wire import MLFLOW_AGENT, MLFLOW_VERSION, PREFIXES
from mlops_platform.tracking.service.reset import reset_project
from mlops_platform.tracking.service.state import tracking_state
from mlops_platform.tracking.tasks import DUTIES

_MLFLOW = (
    mlflow_experiments.router,
    mlflow_runs.router,
    mlflow_logging.router,
    mlflow_search.router,
    mlflow_metrics.router,
    mlflow_artifacts.router,
    mlflow_multipart.router,
    mlflow_models.router,
    mlflow_server.router,
)

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
        sweeps.router,
        artifacts.router,
        uploads.router,
        previews.router,
        inputs.router,
        archives.router,
        imports.router,
        *_MLFLOW,
    ),
    duties=DUTIES,
    hot_routes=(*metrics.HOT_ROUTES, *mlflow_logging.HOT_ROUTES),
    state=tracking_state,
    reset=reset_project,
    versions={MLFLOW_AGENT: MLFLOW_VERSION},
    error_forms=dict.fromkeys(PREFIXES, mlflow_error),
)

"""The Pipeline Orchestrator, as `server/` sees it."""

from mlops_platform.core.http.service import Service
from mlops_platform.pipelines.endpoints import definitions, runs
from mlops_platform.pipelines.tasks.duties import DUTIES

SERVICE = Service(
    name="pipeline-orchestrator",
    title="Pipeline Orchestrator",
    description="Graphs of tasks, run durably: leases, retries, schedules.",
    routers=(definitions.router, runs.router),
    duties=DUTIES,
)

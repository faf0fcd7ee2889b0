"""A/B Testing as a service."""

from mlops_platform.ab_testing.endpoints import evidence, experiments, routing
from mlops_platform.ab_testing.tasks import running
from mlops_platform.core.http.service import Service

SERVICE = Service(
    name="ab-testing",
    title="A/B Testing",
    description="Route users to model versions, record what they do, and say which version is better.",
    routers=(experiments.router, routing.router, evidence.router),
    hot_routes=(routing.HOT_ROUTE,),
    state=running,
)

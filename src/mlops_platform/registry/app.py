"""The Model Registry, as `server/` knows it."""

from mlops_platform.core.http.service import Service
from mlops_platform.registry import tasks
from mlops_platform.registry.endpoints import artifacts, lineage, models

SERVICE = Service(
    name="model-registry",
    title="Model Registry",
    description="Versions one can trust: metadata, artifacts, aliases and lineage.",
    routers=(models.router, artifacts.router, lineage.router),
    duties=(tasks.KEEP_LINEAGE,),
)

"""The Model Registry, as `server/` knows it."""

from mlops_platform.core.http.service import Service
from mlops_platform.registry import endpoints, tasks

SERVICE = Service(
    name="model-registry",
    title="Model Registry",
    description="Versions one can trust: metadata, artifacts, aliases and lineage.",
    routers=(endpoints.router,),
    duties=(tasks.KEEP_LINEAGE,),
)

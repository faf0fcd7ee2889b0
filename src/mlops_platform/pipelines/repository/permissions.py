"""What the routes of this service demand."""

from mlops_platform.core.identity import Permission

PIPELINES_READ = Permission("pipelines:read")
PIPELINES_WRITE = Permission("pipelines:write")

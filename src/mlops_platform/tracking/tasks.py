"""Background duties of Experiment Tracking; each is idempotent and may run on any replica."""

from typing import Any

from mlops_platform.core.work.duties import Periodic
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.service.uploads import forget_old


async def forget_uploads(runtime: Runtime, _: Any) -> None:
    """End uploads in parts that nobody goes on with."""
    await forget_old(runtime)


DUTIES = (Periodic("tracking.uploads", 3600.0, forget_uploads),)

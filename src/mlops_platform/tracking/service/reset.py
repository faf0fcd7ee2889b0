"""The use case that leaves a project as new, for test suites that begin so."""

from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.repository.reset import remove_everything

# The first words of what holds blobs for this service.
HOLDERS = ("run/", "logged-model/", "upload/")


async def reset_project(work: UnitOfWork, runtime: Runtime) -> dict[str, int]:
    """Remove experiments, runs and all that hangs on them; the bytes that they held are swept. How many rows, by table."""
    removed = await remove_everything(work.session, work.principal)
    await runtime.blobs.release_all(work.session, work.principal.project, HOLDERS)
    return removed

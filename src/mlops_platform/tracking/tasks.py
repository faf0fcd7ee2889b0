"""Background duties of Experiment Tracking. Each works on claimed rows: any replica may do it, also twice."""

from collections.abc import Awaitable, Callable
from typing import Any

from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.work.duties import Duty, Periodic
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.service.removal import remove_emptied, remove_outlived, settle
from mlops_platform.tracking.service.run_life import fail_silent
from mlops_platform.tracking.service.uploads import forget_old


async def fail_silent_runs(runtime: Runtime, _state: Any) -> None:
    """Mark the runs whose heartbeat is overdue as failed."""
    await _until_done(runtime, lambda session: fail_silent(session, runtime.clock))


async def remove_for_ever(runtime: Runtime, _state: Any) -> None:
    """Remove what was purged and what has been deleted for long enough, and finish what earlier turns left."""
    await _until_done(runtime, lambda session: remove_outlived(session, runtime.blobs, runtime.clock))
    await _until_done(runtime, lambda session: remove_emptied(session, runtime.blobs))
    await _until_done(runtime, lambda session: settle(session, runtime.clock))


async def forget_uploads(runtime: Runtime, _state: Any) -> None:
    """End uploads in parts that nobody goes on with."""
    await forget_old(runtime)


async def _until_done(runtime: Runtime, portion: Callable[[WriteSession], Awaitable[int]]) -> None:
    """One portion a transaction, so that none holds rows for long."""
    while True:
        async with runtime.duties_database.write() as session:
            session.after_commit(lambda: runtime.signals.send("events"))
            if not await portion(session):
                return


DUTIES: tuple[Duty, ...] = (
    Periodic("tracking.heartbeats", 5.0, fail_silent_runs),
    Periodic("tracking.removal", 15.0, remove_for_ever),
    Periodic("tracking.uploads", 3600.0, forget_uploads),
)

"""Background duties of Experiment Tracking. Each works on claimed rows: any replica may do it, also twice."""

from typing import Any

from mlops_platform.core.work.duties import Duty, Periodic
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.service.run_life import fail_silent


async def fail_silent_runs(runtime: Runtime, _state: Any) -> None:
    """Mark the runs whose heartbeat is overdue as failed."""
    while True:
        async with runtime.duties_database.write() as session:
            session.after_commit(lambda: runtime.signals.send("events"))
            if not await fail_silent(session, runtime.clock):
                return


DUTIES: tuple[Duty, ...] = (Periodic("tracking.heartbeats", 5.0, fail_silent_runs),)

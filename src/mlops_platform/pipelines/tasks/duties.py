"""Duties that some replica does from time to time. All are claimed rows: without a leader, and safe to do twice."""

from random import SystemRandom
from typing import Any

from mlops_platform.core.work.duties import Duty, Periodic
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.service.dispatch import Dispatcher
from mlops_platform.pipelines.service.firing import Firing

_LEASE_SECONDS = 30.0


async def fire_schedules(runtime: Runtime, _state: Any) -> None:
    """Make the runs of schedules that are due, and start those whose turn has come."""
    async with runtime.database.write() as session:
        await Firing(session, runtime.clock).fire_due()
    async with runtime.database.write() as session:
        await Firing(session, runtime.clock).start_queued()


async def expire_leases(runtime: Runtime, _state: Any) -> None:
    """End the attempts of workers that fell silent. Workers do this too; here it is done when none is left."""
    await Dispatcher(runtime, _LEASE_SECONDS, SystemRandom()).expire()


DUTIES: tuple[Duty, ...] = (
    Periodic("pipelines.schedules", 5.0, fire_schedules),
    Periodic("pipelines.leases", 10.0, expire_leases),
)

"""HTTP of a run's life beyond its status: heartbeats, resuming, its children, and corrections."""

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Run
from mlops_platform.contracts.tracking_runs import Heartbeat, ParamCorrection, RunLease, RunResume
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.leases import Lease
from mlops_platform.tracking.endpoints.answers import to_run
from mlops_platform.tracking.endpoints.places import Place, on_run
from mlops_platform.tracking.errors import (
    LeaseNotFound,
    ParamNotFound,
    RunDeleted,
    RunFellSilent,
    RunHeld,
    RunNotFound,
    RunNotRunning,
    RunStateConflict,
)
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.leases import LeaseReader
from mlops_platform.tracking.repository.runs import RunReader, data_of
from mlops_platform.tracking.service.corrections import correct_param
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.run_life import RunLife

router = platform_router(tags=["runs"])


@on_run(
    router, "POST", "/heartbeat", permission=EXPERIMENTS_WRITE, errors=(RunDeleted, RunFellSilent, RunHeld, RunNotRunning)
)
async def beat(place: Place, body: Heartbeat, work: Work) -> RunLease:
    """Say that the run's process is alive. A run whose beat is overdue is marked FAILED, and can be resumed."""
    return _lease(place.run_id, await RunLife(work).beat(place.run_id, body, experiment_id=place.experiment_id))


@on_run(router, "GET", "/heartbeat", permission=EXPERIMENTS_READ, errors=(LeaseNotFound,))
async def get_lease(place: Place, caller: Caller, session: Reading) -> RunLease:
    """Who writes the run, and when it was last heard of."""
    await _check_run(place.run_id, place.experiment_id, caller, session)
    lease = await LeaseReader(session, caller).lease(place.run_id)
    if lease is None:
        raise LeaseNotFound(
            f"Nobody has said that it writes the run {place.run_id!r}.",
            hint="Start the run with heartbeat_seconds, or POST .../resume.",
        )
    return _lease(place.run_id, lease)


@on_run(router, "POST", "/resume", permission=EXPERIMENTS_WRITE, errors=(RunDeleted, RunHeld, RunStateConflict))
async def resume_run(place: Place, body: RunResume, work: Work) -> Run:
    """Set a run running again, for one writer. While another one has it this is a conflict that names the other."""
    await RunLife(work).resume(place.run_id, body, experiment_id=place.experiment_id)
    return await read_run(place.run_id, work.principal, work.session)


@on_run(router, "GET", "/children", permission=EXPERIMENTS_READ)
async def list_children(place: Place, caller: Caller, session: Reading, page: PageOf) -> Page[Run]:
    """The runs directly below this one, the oldest first."""
    await _check_run(place.run_id, place.experiment_id, caller, session)
    reader = RunReader(session, caller)
    rows = await reader.children(place.run_id, after=page.after[0] if page.after else None, limit=page.size + 1)
    data = await reader.data([row.id for row in rows[: page.size]])
    return page.answer(rows, lambda row: to_run(row, data[row.id]), lambda row: (row.id,))


@on_run(router, "PATCH", "/params", permission=EXPERIMENTS_WRITE, errors=(RunDeleted, ParamNotFound))
async def correct_parameter(place: Place, body: ParamCorrection, work: Work) -> Run:
    """Correct a parameter that was logged wrong. Parameters do not change otherwise; old, new and reason are audited."""
    await correct_param(work, place.run_id, body, experiment_id=place.experiment_id)
    return await read_run(place.run_id, work.principal, work.session)


async def read_run(run_id: str, principal: Principal, session: ReadSession) -> Run:
    """The run as it goes out."""
    row = await RunReader(session, principal).whole(run_id)
    if row is None:
        raise RunNotFound.of(run_id)
    return to_run(row, data_of(row))


async def _check_run(run_id: str, experiment_id: str | None, caller: Principal, session: ReadSession) -> None:
    if await RunReader(session, caller).run(run_id, experiment_id=experiment_id) is None:
        raise RunNotFound.of(run_id, experiment_id=experiment_id)


def _lease(run_id: str, lease: Lease) -> RunLease:
    return RunLease(
        run_id=run_id,
        writer=lease.writer,
        taken_at=lease.taken_at,
        last_heartbeat_at=lease.beat_at,
        heartbeat_seconds=lease.heartbeat_seconds,
        due_at=lease.due_at,
    )

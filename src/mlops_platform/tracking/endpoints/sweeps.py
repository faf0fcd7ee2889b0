"""HTTP of sweeps."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Response

from mlops_platform.contracts.common import ID_PATTERN, Id, Integer, Page
from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.contracts.tracking_metrics import SpelledKey
from mlops_platform.contracts.tracking_sweeps import (
    BestTrials,
    HistoryPoint,
    PruneDecision,
    Sweep,
    SweepAnswer,
    SweepAsk,
    SweepCreate,
    SweepHistory,
    SweepImportance,
    SweepMethod,
    SweepResume,
    SweepStop,
    SweepTell,
    Trial,
    TrialState,
    TrialTold,
)
from mlops_platform.core.db.schema import read_json
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.errors import TooManyRequests
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, StateOf, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.endpoints.places import RunId
from mlops_platform.tracking.errors import (
    AnalysisFailed,
    ExperimentArchived,
    ExperimentDeleted,
    ExperimentNotFound,
    PackageMissing,
    RunDeleted,
    RunHeld,
    SweepNotFound,
    TrialEnded,
    TrialNotFound,
)
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.repository.sweeps import SweepReader, to_attempt
from mlops_platform.tracking.service import sweep_reads
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.sweeps import Sweeps, objectives_of, pruner_of

router = platform_router(tags=["sweeps"])

SweepId = Annotated[str, Path(pattern=ID_PATTERN, description="The sweep's id, which is that of its run.")]
ObjectiveOf = Annotated[SpelledKey | None, Query(description="Which objective; the first one when left out.")]
_read = requires(EXPERIMENTS_READ)
_write = requires(EXPERIMENTS_WRITE)


async def _in_turn(sweep_id: SweepId, state: StateOf) -> AsyncIterator[None]:
    """One after the other within this process, before a database connection is taken to wait for the sweep's row."""
    async with state.turns.of(sweep_id):
        yield


_turn = Depends(_in_turn, scope="function")


@router.post(
    "/api/sweeps",
    status_code=201,
    dependencies=[_write],
    responses=problems(ExperimentNotFound, ExperimentDeleted, ExperimentArchived, PackageMissing),
)
async def create_sweep(body: SweepCreate, work: Work, state: StateOf, response: Response) -> Sweep:
    """Start a sweep over a search space. It is a run, and each trial will be a run below it."""
    sweep_id = await Sweeps(work, state.sampler).create(body)
    response.headers["Location"] = f"/api/sweeps/{sweep_id}"
    return await _sweep(work.session, work.principal, sweep_id)


@router.get("/api/sweeps", dependencies=[_read])
async def list_sweeps(
    caller: Caller,
    session: Reading,
    page: PageOf,
    experiment_id: Annotated[Id | None, Query(description="Only those of this experiment.")] = None,
    status: Annotated[RunStatus | None, Query(description="Only those whose run stands there.")] = None,
) -> Page[Sweep]:
    """Sweeps, the newest first."""
    reader = SweepReader(session, caller)
    after = page.after[0] if page.after else None
    rows = await reader.listed(
        experiment_id=experiment_id, status=status.value if status else None, after=after, limit=page.size + 1
    )
    counts = await reader.counts([row.id for row in rows])
    return page.answer(rows, lambda row: _to_sweep(row, counts[row.id]), lambda row: (row.id,))


@router.get("/api/sweeps/{sweep_id}", dependencies=[_read], responses=problems(SweepNotFound))
async def get_sweep(sweep_id: SweepId, caller: Caller, session: Reading) -> Sweep:
    """One sweep, with its trials counted by state."""
    return await _sweep(session, caller, sweep_id)


@router.post(
    "/api/sweeps/{sweep_id}/ask",
    dependencies=[_write, _turn],
    responses=problems(SweepNotFound, RunDeleted, ExperimentArchived, PackageMissing, TooManyRequests, AnalysisFailed),
)
async def ask(sweep_id: SweepId, body: SweepAsk, work: Work, state: StateOf) -> SweepAnswer:
    """Take the next trial, as a run that has begun. `trial` is null when there is none: `status` and `reason` say why.

    Two who ask at once never get the same point. A trial whose run falls silent, or is ended without being told, is
    handed out again. Send an `Idempotency-Key` to get the same trial when the request is repeated.
    """
    handed = await Sweeps(work, state.sampler).ask(sweep_id, body)
    trial = await _trial(work.session, work.principal, sweep_id, handed.run_id) if handed.run_id else None
    return SweepAnswer(
        sweep_id=sweep_id,
        status=handed.status,
        trial=trial,
        reason=handed.reason,
        retry_after_seconds=handed.retry_after_seconds,
    )


@router.post(
    "/api/sweeps/{sweep_id}/tell",
    dependencies=[_write, _turn],
    responses=problems(SweepNotFound, TrialNotFound, TrialEnded, RunDeleted, RunHeld),
)
async def tell(sweep_id: SweepId, body: SweepTell, work: Work, state: StateOf) -> TrialTold:
    """Say how a trial ended; its run ends with it. Values that are told are written among the run's metrics."""
    run_id, status = await Sweeps(work, state.sampler).tell(sweep_id, body)
    return TrialTold(trial=await _trial(work.session, work.principal, sweep_id, run_id), status=status)


@router.post("/api/sweeps/{sweep_id}/stop", dependencies=[_write, _turn], responses=problems(SweepNotFound, RunDeleted))
async def stop_sweep(sweep_id: SweepId, body: SweepStop, work: Work, state: StateOf) -> Sweep:
    """Hand out no more trials. Those that are under way go on, and may still be told."""
    await Sweeps(work, state.sampler).stop(sweep_id, body)
    return await _sweep(work.session, work.principal, sweep_id)


@router.post("/api/sweeps/{sweep_id}/resume", dependencies=[_write, _turn], responses=problems(SweepNotFound, RunDeleted))
async def resume_sweep(sweep_id: SweepId, body: SweepResume, work: Work, state: StateOf) -> Sweep:
    """Go on with a sweep that was stopped or is over, with other limits where they are given."""
    await Sweeps(work, state.sampler).resume(sweep_id, body)
    return await _sweep(work.session, work.principal, sweep_id)


@router.get("/api/sweeps/{sweep_id}/trials", dependencies=[_read], responses=problems(SweepNotFound))
async def list_trials(
    sweep_id: SweepId,
    caller: Caller,
    session: Reading,
    page: PageOf,
    state: Annotated[TrialState | None, Query(description="Only those that stand there.")] = None,
) -> Page[Trial]:
    """The trials in the order in which they were asked for."""
    sweep = await sweep_reads.found_sweep(session, caller, sweep_id)
    after = page.after[0] if page.after else None
    rows = await SweepReader(session, caller).trials(
        sweep_id, objectives_of(sweep), state=state.value if state else None, after=after, limit=page.size + 1
    )
    found = {trial.run_id: trial for trial in await _trials(session, caller, sweep, rows[: page.size])}
    return page.answer(rows, lambda row: found[row.run_id], lambda row: (row.number,))


@router.get(
    "/api/sweeps/{sweep_id}/trials/{run_id}/prune",
    dependencies=[_read],
    responses=problems(SweepNotFound, TrialNotFound),
)
async def judge_trial(
    sweep_id: SweepId,
    run_id: RunId,
    caller: Caller,
    session: Reading,
    since: Annotated[Integer | None, Query(description="The last step at which this was asked.")] = None,
) -> PruneDecision:
    """Whether the trial should be given up, by the values of the first objective that it and the others have logged.

    It is judged at its last step. `since` matters to those who do not ask after each step: rungs that were reached
    after it are judged, else those that the last step alone has reached.
    """
    sweep = await sweep_reads.found_sweep(session, caller, sweep_id)
    decision, step = await sweep_reads.judge(session, caller, sweep, run_id, since)
    return PruneDecision(should_prune=decision.should_prune, step=step, reason=decision.reason)


@router.get("/api/sweeps/{sweep_id}/best", dependencies=[_read], responses=problems(SweepNotFound))
async def get_best_trials(sweep_id: SweepId, caller: Caller, session: Reading) -> BestTrials:
    """The best trial; of several objectives the Pareto front, in the order of the first objective."""
    sweep = await sweep_reads.found_sweep(session, caller, sweep_id)
    rows = await sweep_reads.best_trials(session, caller, sweep)
    return BestTrials(items=await _trials(session, caller, sweep, rows))


@router.get("/api/sweeps/{sweep_id}/history", dependencies=[_read], responses=problems(SweepNotFound))
async def get_history(sweep_id: SweepId, caller: Caller, session: Reading, objective: ObjectiveOf = None) -> SweepHistory:
    """Every complete trial with its value, and the best value until then."""
    sweep = await sweep_reads.found_sweep(session, caller, sweep_id)
    number, went = await sweep_reads.history(session, caller, sweep, objective)
    asked = objectives_of(sweep)[number]
    items = [
        HistoryPoint(number=attempt.number, run_id=attempt.run_id, value=value, best=best) for attempt, value, best in went
    ]
    return SweepHistory(metric=asked.metric, goal=asked.goal, items=items)


@router.get(
    "/api/sweeps/{sweep_id}/importance",
    dependencies=[_read],
    responses=problems(SweepNotFound, PackageMissing, TooManyRequests, AnalysisFailed),
)
async def get_importance(
    sweep_id: SweepId, caller: Caller, runtime: RuntimeOf, state: StateOf, objective: ObjectiveOf = None
) -> SweepImportance:
    """What each parameter is worth for an objective, by Optuna's PED-ANOVA over the complete trials."""
    number, trials, found = await sweep_reads.importance(runtime.database, caller, sweep_id, objective, state.importances)
    async with runtime.database.read() as session:
        sweep = await sweep_reads.found_sweep(session, caller, sweep_id)
    return SweepImportance(metric=objectives_of(sweep)[number].metric, trials=trials, importances=found)


async def _sweep(session: ReadSession, principal: Principal, sweep_id: str) -> Sweep:
    row = await sweep_reads.found_sweep(session, principal, sweep_id)
    counts = await SweepReader(session, principal).counts([sweep_id])
    return _to_sweep(row, counts[sweep_id])


def _to_sweep(row: Record, counts: dict[TrialState, int]) -> Sweep:
    return Sweep(
        id=row.id,
        experiment_id=row.experiment_id,
        name=row.name,
        status=RunStatus(row.status),
        status_reason=row.status_reason,
        method=SweepMethod(row.method),
        parameters=read_json(row.parameters),
        objectives=objectives_of(row),
        pruner=pruner_of(row),
        max_trials=row.max_trials,
        timeout_seconds=row.timeout_seconds,
        deadline=row.deadline,
        max_attempts=row.max_attempts,
        seed=row.seed,
        startup_trials=row.startup_trials,
        heartbeat_seconds=row.heartbeat_seconds,
        size=row.size,
        trials=counts,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def _trial(session: ReadSession, principal: Principal, sweep_id: str, run_id: str) -> Trial:
    sweep = await sweep_reads.found_sweep(session, principal, sweep_id)
    rows = await SweepReader(session, principal).those(sweep_id, objectives_of(sweep), [run_id])
    return (await _trials(session, principal, sweep, rows))[0]


async def _trials(session: ReadSession, principal: Principal, sweep: Record, rows: Sequence[Any]) -> list[Trial]:
    data = await RunReader(session, principal).data([row.run_id for row in rows])
    objectives = len(objectives_of(sweep))
    found = []
    for row in rows:
        attempt = to_attempt(row, objectives)
        found.append(
            Trial(
                number=row.number,
                run_id=row.run_id,
                run_name=row.name,
                state=attempt.state,
                slot=row.slot,
                attempt=row.attempt,
                parameters=data[row.run_id].params,
                values=list(attempt.values),
                start_time=row.start_time,
                end_time=row.end_time,
                reason=row.status_reason,
            )
        )
    return found

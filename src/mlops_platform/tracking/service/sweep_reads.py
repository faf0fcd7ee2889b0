"""Reads of a sweep that decide something: what is best, how it went, what mattered, and what should be given up."""

import asyncio

from mlops_platform.contracts.tracking_sweeps import PrunerKind, TrialState
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.backends.sampler import Sampler
from mlops_platform.tracking.domain import pruning
from mlops_platform.tracking.domain import sweeps as rules
from mlops_platform.tracking.domain.keys import read_key
from mlops_platform.tracking.domain.pruning import Decision, Reported
from mlops_platform.tracking.domain.sweeps import Attempt
from mlops_platform.tracking.errors import SweepNotFound, TrialNotFound
from mlops_platform.tracking.repository.metrics import key_ids
from mlops_platform.tracking.repository.pruning import Intermediate
from mlops_platform.tracking.repository.sweeps import SweepReader
from mlops_platform.tracking.service.sweeps import described, objectives_of, pruner_of, space_of

_FEWEST_TRIALS = 4


async def found_sweep(session: ReadSession, principal: Principal, sweep_id: str) -> Record:
    """The sweep, or that there is none."""
    row = await SweepReader(session, principal).sweep(sweep_id)
    if row is None:
        raise SweepNotFound.of(sweep_id)
    return row


async def best_trials(session: ReadSession, principal: Principal, sweep: Record) -> list[Record]:
    """The rows of the best trials."""
    objectives = objectives_of(sweep)
    reader = SweepReader(session, principal)
    attempts = await reader.attempts(sweep.id, objectives)
    best = await asyncio.to_thread(rules.best_of, attempts, objectives)
    return await reader.those(sweep.id, objectives, [attempt.run_id for attempt in best])


async def history(
    session: ReadSession, principal: Principal, sweep: Record, objective: str | None
) -> tuple[int, list[tuple[Attempt, float, float]]]:
    """The number of the objective, and how it went."""
    objectives = objectives_of(sweep)
    number = _number(sweep, objective)
    attempts = await SweepReader(session, principal).attempts(sweep.id, objectives)
    return number, await asyncio.to_thread(rules.history, attempts, objectives, number)


async def importance(
    database: Database, principal: Principal, sweep_id: str, objective: str | None, sampler: Sampler
) -> tuple[int, int, dict[str, float]]:
    """The number of the objective, of how many trials, and what each parameter is worth."""
    sampler.require()
    # The connection is given back before anything is computed.
    async with database.read() as session:
        sweep = await found_sweep(session, principal, sweep_id)
        number, objectives, space = _number(sweep, objective), objectives_of(sweep), await space_of(sweep)
        told = await SweepReader(session, principal).study(sweep_id, objectives, [dimension.name for dimension in space])
    complete = [trial for trial in told if trial[1] == TrialState.COMPLETE]
    if len(complete) < _FEWEST_TRIALS:
        raise InvalidInput.of("sweep_id", f"the sweep has fewer than {_FEWEST_TRIALS} complete trials", len(complete))
    question = {
        "kind": "importance",
        "objective": number,
        "directions": [each.goal.value for each in objectives],
        "space": await asyncio.to_thread(described, space),
        "trials": complete,
    }
    found = await sampler.ask(question)
    return number, len(complete), dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


async def judge(
    session: ReadSession, principal: Principal, sweep: Record, run_id: str, since: int | None
) -> tuple[Decision, int | None]:
    """Whether a trial should be given up, judged at its last reported step."""
    reader = SweepReader(session, principal)
    trial = await reader.trial(sweep.id, run_id)
    if trial is None:
        raise TrialNotFound.of(sweep.id, run_id)
    pruner, objective = pruner_of(sweep), objectives_of(sweep)[0]
    if pruner.kind is PrunerKind.NONE:
        return Decision("The sweep has no pruner."), None
    key = read_key(objective.metric)
    key_id = (await key_ids(session, principal, [key])).get(key)
    if key_id is None:
        return Decision(f"Nothing has reported {objective.metric}."), None
    intermediate = Intermediate(session, principal, key_id)
    reported = await intermediate.reported(run_id, objective.goal)
    if reported is None:
        return Decision(f"It has not reported {objective.metric}."), None
    if pruner.kind in {PrunerKind.MEDIAN, PrunerKind.PERCENTILE}:
        decision = await _against_the_complete(reader, sweep, intermediate, reported)
    else:
        decision = await _against_the_rung(reader, sweep, intermediate, trial, reported, since)
    return decision, reported.step


async def _against_the_complete(
    reader: SweepReader, sweep: Record, intermediate: Intermediate, reported: Reported
) -> Decision:
    pruner, objectives = pruner_of(sweep), objectives_of(sweep)
    if not pruning.is_judged(pruner, reported):
        return Decision(f"Step {reported.step} is not judged.")
    attempts = await reader.attempts(sweep.id, objectives)
    complete = [attempt.run_id for attempt in attempts if attempt.state is TrialState.COMPLETE]
    others = await intermediate.at_step(complete, reported.step)
    return pruning.by_percentile(pruner, objectives[0].goal, reported, others, complete=len(complete))


async def _against_the_rung(
    reader: SweepReader,
    sweep: Record,
    intermediate: Intermediate,
    trial: Record,
    reported: Reported,
    since: int | None,
) -> Decision:
    pruner, objectives = pruner_of(sweep), objectives_of(sweep)
    bracket = pruning.bracket_of(pruner, sweep.id, trial.number)
    rungs = pruning.rung_steps(pruner, bracket, reported.step, reported.previous_step if since is None else since)
    if not rungs:
        return Decision(f"Step {reported.step} reaches no new rung.")
    decision = Decision("")
    attempts = await reader.attempts(sweep.id, objectives)
    rivals = [
        attempt.run_id
        for attempt in attempts
        if attempt.state is not TrialState.LOST
        and pruning.bracket_of(pruner, sweep.id, attempt.number) == bracket
        and attempt.run_id != trial.run_id
    ]
    for step in rungs:
        competing = await intermediate.reaching(rivals, step)
        decision = pruning.by_rung(pruner, objectives[0].goal, reported.value, step, [*competing.values(), reported.value])
        if decision.should_prune:
            return decision
    return decision


def _number(sweep: Record, objective: str | None) -> int:
    names = [each.metric for each in objectives_of(sweep)]
    if objective is None:
        return 0
    if objective not in names:
        raise InvalidInput.of("objective", "is none of the sweep's objectives", objective, hint=f"They are {names}.")
    return names.index(objective)

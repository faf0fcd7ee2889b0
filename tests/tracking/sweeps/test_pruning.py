"""The rules of pruning, held against those of Optuna, and asked through the API."""

import math
import warnings
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.contracts.tracking_metrics import MetricGoal
from mlops_platform.contracts.tracking_sweeps import Pruner, PrunerKind
from mlops_platform.tracking.domain import pruning
from mlops_platform.tracking.domain.pruning import Reported
from tests.conftest import Caller, Platform
from tests.factories.sweeps import LINE, a_sweep, a_trial, get, tell
from tests.factories.tracking import an_experiment, log

values = st.one_of(st.floats(-10, 10), st.sampled_from([math.nan, 0.0, 1.0]))
curves = st.lists(st.tuples(st.booleans(), st.lists(values, min_size=1, max_size=12)), min_size=1, max_size=8)
goals = st.sampled_from(list(MetricGoal))


class Ours:
    """A sweep's trials in memory, judged by our rules at each step."""

    def __init__(self, pruner: Pruner, goal: MetricGoal) -> None:
        self.pruner, self.goal = pruner, goal
        self.complete: list[list[float]] = []
        self.seen: list[tuple[int, list[float]]] = []

    def judge(self, number: int, curve: list[float], bracket: int) -> bool:
        step = len(curve) - 1
        known = [value for value in curve if not math.isnan(value)]
        best = (min(known) if self.goal is MetricGoal.MINIMIZE else max(known)) if known else None
        reported = Reported(step, step - 1 if step else None, curve[-1], best)
        if self.pruner.kind is PrunerKind.PERCENTILE:
            if not pruning.is_judged(self.pruner, reported):
                return False
            others = [other[step] for other in self.complete if step < len(other)]
            return pruning.by_percentile(self.pruner, self.goal, reported, others, complete=len(self.complete)).should_prune
        for rung in pruning.rung_steps(self.pruner, bracket, step, reported.previous_step):
            rivals = [other[rung] for at, other in self.seen if at == bracket and rung < len(other)]
            if pruning.by_rung(self.pruner, self.goal, curve[-1], rung, [*rivals, curve[-1]]).should_prune:
                return True
        return False


def compare(theirs: Any, ours: Ours, told: list[tuple[bool, list[float]]]) -> None:
    """Both judge the same trials, one after the other, at each step until one of them prunes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=ours.goal.value, pruner=theirs, study_name="s")
    for number, (completes, curve) in enumerate(told):
        trial = study.ask()
        bracket = pruning.bracket_of(ours.pruner, "s", number)
        shown: list[float] = []
        pruned = False
        for step, value in enumerate(curve):
            shown.append(value)
            trial.report(value, step)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of nothing but NaN
                pruned = trial.should_prune()
            assert ours.judge(number, shown, bracket) == pruned, (number, step, ours.pruner)
            if pruned:
                break
        ours.seen.append((bracket, shown))
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif completes and not math.isnan(shown[-1]):
            study.tell(trial, shown[-1])
            ours.complete.append(shown)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


@settings(max_examples=60)
@given(curves, goals, st.floats(0, 100), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3))
def test_the_percentile_rule_is_optunas(told, goal, percentile, startup, warmup, interval, least):
    pruner = Pruner(
        kind=PrunerKind.PERCENTILE,
        percentile=percentile,
        startup_trials=startup,
        warmup_steps=warmup,
        interval_steps=interval,
        least_trials=least,
    )
    theirs = optuna.pruners.PercentilePruner(
        percentile, n_startup_trials=startup, n_warmup_steps=warmup, interval_steps=interval, n_min_trials=least
    )
    compare(theirs, Ours(pruner, goal), told)


@settings(max_examples=60)
@given(curves, goals, st.integers(1, 3), st.integers(2, 4), st.integers(0, 1))
def test_successive_halving_is_optunas(told, goal, least, factor, rate):
    pruner = Pruner(kind=PrunerKind.ASHA, min_resource=least, reduction_factor=factor, early_stopping_rate=rate)
    theirs = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=least, reduction_factor=factor, min_early_stopping_rate=rate
    )
    compare(theirs, Ours(pruner, goal), told)


@settings(max_examples=60)
@given(curves, goals, st.integers(1, 2), st.integers(3, 12), st.integers(2, 4))
def test_hyperband_is_optunas(told, goal, least, most, factor):
    pruner = Pruner(kind=PrunerKind.HYPERBAND, min_resource=least, max_resource=most, reduction_factor=factor)
    theirs = optuna.pruners.HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=factor)
    compare(theirs, Ours(pruner, goal), told)


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("experiment-tracking")


async def judged(caller, sweep_id, trial, **query):
    return await get(caller, sweep_id, f"/trials/{trial['run_id']}/prune", **query)


async def trained(caller, sweep_id, curve, *, told=True):
    trial = await a_trial(caller, sweep_id)
    await log(caller, trial["run_id"], [{"loss": value, "step": step} for step, value in enumerate(curve)])
    if told:
        await tell(caller, sweep_id, trial["run_id"])
    return trial


async def swept(caller, **pruner):
    experiment_id = await an_experiment(caller, pruner["kind"])
    return await a_sweep(caller, experiment_id, method="random", parameters=LINE, pruner=pruner)


class TestAsked:
    async def test_a_trial_that_is_worse_than_the_median_at_its_step_should_be_given_up(self, ada):
        sweep_id = await swept(ada, kind="median", startup_trials=3)
        for first in (1.0, 2.0, 3.0):
            await trained(ada, sweep_id, [first, first / 2])
        good = await trained(ada, sweep_id, [1.9], told=False)
        bad = await trained(ada, sweep_id, [2.1], told=False)
        assert (await judged(ada, sweep_id, good))["should_prune"] is False
        decision = await judged(ada, sweep_id, bad)
        assert (decision["should_prune"], decision["step"]) == (True, 0)
        assert "percentile 50 of 3 at step 0" in decision["reason"]

    async def test_only_complete_trials_are_what_a_median_is_made_of(self, ada):
        sweep_id = await swept(ada, kind="median", startup_trials=1)
        await trained(ada, sweep_id, [5.0])
        await trained(ada, sweep_id, [1.0], told=False)
        trial = await trained(ada, sweep_id, [4.0], told=False)
        assert (await judged(ada, sweep_id, trial))["should_prune"] is False

    async def test_of_those_who_reach_a_rung_the_best_share_goes_on(self, ada):
        sweep_id = await swept(ada, kind="asha", reduction_factor=2, min_resource=1)
        decisions = []
        for loss in (3.0, 4.0, 1.0, 2.0):
            trial = await trained(ada, sweep_id, [9.0, loss], told=False)
            decisions.append((await judged(ada, sweep_id, trial))["should_prune"])
        assert decisions == [False, True, False, False]

    async def test_who_asks_seldom_is_judged_at_every_rung_since_the_last_question(self, ada):
        sweep_id = await swept(ada, kind="asha", reduction_factor=3, min_resource=1)
        await trained(ada, sweep_id, [0.0] * 6)
        trial = await trained(ada, sweep_id, [1.0] * 5, told=False)
        assert (await judged(ada, sweep_id, trial))["reason"] == "Step 4 reaches no new rung."
        assert (await judged(ada, sweep_id, trial, since=2))["should_prune"] is True
        assert (await judged(ada, sweep_id, trial, since=3))["should_prune"] is False

    async def test_without_a_pruner_or_a_report_nothing_is_given_up(self, ada):
        without = await swept(ada, kind="none")
        assert (await judged(ada, without, await trained(ada, without, [9.0], told=False)))["should_prune"] is False
        sweep_id = await swept(ada, kind="median")
        assert (await judged(ada, sweep_id, await a_trial(ada, sweep_id)))["should_prune"] is False

    async def test_a_trial_that_was_given_up_is_told_so_and_is_not_tried_again(self, ada):
        sweep_id = await a_sweep(ada, parameters={"a": {"value": 1}}, pruner={"kind": "median"})
        trial = await trained(ada, sweep_id, [9.0, 8.0], told=False)
        told = await tell(ada, sweep_id, trial["run_id"], outcome="PRUNED", reason="worse than the median at step 1")
        assert (told["trial"]["state"], told["status"]) == ("PRUNED", "FINISHED")
        run = (await ada.http.get(f"/api/runs/{trial['run_id']}")).json()
        assert (run["status"], run["status_reason"]) == ("KILLED", "worse than the median at step 1")

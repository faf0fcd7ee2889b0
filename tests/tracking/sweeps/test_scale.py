"""A sweep as large as one may be, and many who ask it at once."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from mlops_platform.contracts.tracking_sweeps import SweepAsk
from mlops_platform.core.identity import ProjectId
from mlops_platform.core.jobs.consumers import platform_principal
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.backends.sampler import Sampler
from mlops_platform.tracking.service.sweeps import Sweeps
from tests.conftest import Caller, Platform
from tests.factories.sweeps import a_sweep, a_trial, ask, get, quadratic, worked
from tests.factories.tracking import an_experiment, log

TRIALS = 9_999
TEN = {f"x{number}": {"min": -5.0, "max": 5.0} for number in range(10)}

# As asking and telling leave them: the run, its parameters, its metric, and which trial it is.
_SEED = """
    WITH made AS (
        INSERT INTO tracking.runs (id, project_id, experiment_id, name, status, parent_run_id, created_by, created_at,
            updated_at, start_time, end_time)
        SELECT gen_random_uuid(), r.project_id, r.experiment_id, 'trial ' || n, 'FINISHED', r.id, 'seed', now(), now(),
            now(), now()
        FROM tracking.runs r, generate_series(0, :trials - 1) n WHERE r.id = :sweep
        RETURNING id, project_id, experiment_id, name
    ), numbered AS (
        SELECT *, (substr(name, 7))::int AS number FROM made
    ), trials AS (
        INSERT INTO tracking.sweep_trials (project_id, sweep_id, number, run_id, slot, attempt, outcome)
        SELECT project_id, :sweep, number, id, number, 1, 'COMPLETE' FROM numbered
    ), params AS (
        INSERT INTO tracking.run_params (project_id, experiment_id, run_id, key, kind, text, number)
        SELECT project_id, experiment_id, id, 'x' || d, 'float', (v)::text, v
        FROM numbered, generate_series(0, 9) d,
            LATERAL (SELECT round(((hashint4(number * 10 + d) & 1023) / 102.4 - 5)::numeric, 6)::float8 AS v) drawn
    )
    INSERT INTO tracking.run_metrics (project_id, experiment_id, run_id, key_id, last_step, last_timestamp, last_value,
        min_value, max_value, total, count, nan_count)
    SELECT project_id, experiment_id, id, (SELECT max(k.id) FROM tracking.metric_keys k WHERE k.project_id = n.project_id
        AND k.name = 'loss'), 0, now(), number, number, number, number, 1, 0 FROM numbered n
"""


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("experiment-tracking")


async def test_a_sweep_of_ten_thousand_trials_is_asked_judged_and_read(ada, platform, database):
    sweep_id = await a_sweep(ada, method="tpe", parameters=TEN, max_trials=10_000, seed=1, pruner={"kind": "median"})
    first = await a_trial(ada, sweep_id)
    await log(ada, first["run_id"], {"loss": 1.0})
    await ada.http.delete(f"/api/runs/{first['run_id']}")
    assert (await ada.http.post(f"/api/runs/{first['run_id']}/purge")).status_code == 200
    async with platform.runtime.database.write() as session:
        await session.execute(text(_SEED), {"sweep": sweep_id, "trials": TRIALS})
    # What autovacuum does while a sweep grows: without statistics the planner takes all of this for a handful of rows.
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("ANALYZE tracking.runs, tracking.run_params, tracking.run_metrics, tracking.sweep_trials")
    await owner.close()
    trial = await a_trial(ada, sweep_id)
    assert (trial["number"], len(trial["parameters"])) == (TRIALS, 10)
    await log(ada, trial["run_id"], {"loss": 0.5, "step": 1})
    judged = await get(ada, sweep_id, f"/trials/{trial['run_id']}/prune")
    assert judged["should_prune"] is False
    assert (await get(ada, sweep_id, "/best"))["items"][0]["number"] == 0
    assert len((await get(ada, sweep_id, "/history"))["items"]) == TRIALS
    assert (await get(ada, sweep_id))["trials"] == {"COMPLETE": TRIALS, "RUNNING": 1}


async def test_replicas_that_ask_at_once_are_kept_apart_by_the_database_alone(ada, platform):
    """Each with a session of its own and nothing in memory that they share."""
    sweep_id = await a_sweep(ada)

    async def asked() -> str | None:
        async with Sampler() as sampler, platform.runtime.database.write() as session:
            work = UnitOfWork(session, principal, platform.runtime.clock)
            return (await Sweeps(work, sampler).ask(sweep_id, SweepAsk())).run_id

    principal = platform_principal(ProjectId(ada.project))
    runs = await asyncio.gather(*(asked() for _ in range(6)))
    assert len(set(runs)) == 6
    trials = (await get(ada, sweep_id, "/trials"))["items"]
    assert sorted((trial["parameters"]["a"], trial["parameters"]["b"]) for trial in trials) == [
        (a, b) for a in (1, 2, 3) for b in ("x", "y")
    ]


async def test_workers_that_wait_for_their_turn_hold_no_connections(ada, platform):
    """Far more of them than the pool has connections: all are served, and nobody else is turned away."""
    sweep_id = await a_sweep(ada, method="random", max_trials=60, parameters={"x": {"min": 0.0, "max": 1.0}})
    answers = await asyncio.gather(*(ask(ada, sweep_id) for _ in range(60)), *(get(ada, sweep_id) for _ in range(10)))
    numbers = [answer["trial"]["number"] for answer in answers[:60]]
    assert sorted(numbers) == list(range(60))


async def test_a_process_that_is_replaced_goes_on_where_the_other_was(ada, platform):
    """Nothing is remembered but the runs: with another process the search is the same."""

    async def searched(name: str, *, interrupted: bool) -> list[dict[str, float]]:
        options = {"parameters": {"x": {"min": -5.0, "max": 5.0}}, "seed": 4, "startup_trials": 3, "max_trials": 7}
        sweep_id = await a_sweep(ada, await an_experiment(ada, name), method="tpe", **options)
        trials = await worked(ada, sweep_id, quadratic, most=4)
        if interrupted:
            await sampler.__aexit__(None, None, None)
        trials += await worked(ada, sweep_id, quadratic)
        return [trial["parameters"] for trial in trials]

    sampler = platform.apps["experiment-tracking"].fastapi.state.service.sampler
    assert await searched("one", interrupted=True) == await searched("two", interrupted=False)

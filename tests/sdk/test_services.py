"""The client against the services that tell stories over several calls: tracking, features, pipelines, A/B tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.errors import Conflict, InvalidRequest, NotFound, WaitTimedOut
from tests.conftest import Platform as RunningPlatform

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
SPLIT = [
    {"name": "control", "weight": 0.5, "model_version": "v1.0"},
    {"name": "treatment", "weight": 0.5, "model_version": "v2.0"},
]


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    """A client with the key of an admin of a fresh project."""
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


class TestTracking:
    async def test_a_run_ends_with_all_that_was_recorded(self, sdk: AsyncPlatform):
        async with sdk.tracking.run(
            "churn", run_name="first", parameters={"model": {"depth": 3}}, tags={"team": "a"}
        ) as run:
            for step in range(1500):
                run.log_metrics({"loss": 1 / (step + 1), "odd": float("nan")}, step=step)
            run.log_params({"late": True})
            run.set_tags({"stage": "done"})
        found = await sdk.tracking.get_run(run.id)
        assert found.status == "FINISHED"
        assert found.run_name == "first"
        assert found.end_time is not None
        assert found.parameters["late"] is True
        assert found.tags["stage"] == "done"
        assert found.metrics["loss"] == pytest.approx(1 / 1500)
        history = [point async for point in sdk.tracking.history(run.id, "loss")]
        assert [point.step for point in history] == list(range(1500))
        kept = {metric.key: metric.count for metric in await sdk.tracking.metrics(run.id)}
        assert kept == {"loss": 1500, "odd": 1500}

    async def test_a_run_whose_block_raises_has_failed(self, sdk: AsyncPlatform):
        started = await sdk.tracking.start_run("churn")
        with pytest.raises(ZeroDivisionError):
            async with started:
                raise ZeroDivisionError
        assert (await sdk.tracking.get_run(started.id)).status == "FAILED"

    async def test_two_runs_of_one_name_share_the_experiment(self, sdk: AsyncPlatform):
        first, second = await sdk.tracking.start_run("churn"), await sdk.tracking.start_run("churn")
        assert first.experiment_id == second.experiment_id
        assert (await sdk.tracking.experiment("churn")).run_count == 2

    async def test_runs_are_found_by_their_metrics(self, sdk: AsyncPlatform):
        for accuracy in (0.7, 0.95, 0.9):
            async with sdk.tracking.run("churn") as run:
                run.log_metric("accuracy", accuracy)
        found = sdk.tracking.search("metrics.accuracy > 0.8", experiments=["churn"], order_by=["metrics.accuracy DESC"])
        assert [run.metrics["accuracy"] async for run in found] == [0.95, 0.9]

    async def test_a_deleted_run_comes_back(self, sdk: AsyncPlatform):
        run = await sdk.tracking.start_run("churn")
        await sdk.tracking.delete_run(run.id)
        assert [found.id async for found in sdk.tracking.search(experiments=["churn"])] == []
        await sdk.tracking.restore_run(run.id)
        assert [found.id async for found in sdk.tracking.search(experiments=["churn"])] == [run.id]

    async def test_an_experiment_that_is_absent_is_not_found(self, sdk: AsyncPlatform):
        with pytest.raises(NotFound, match="absent"):
            await sdk.tracking.experiment("absent")


class TestFeatures:
    async def test_values_are_ingested_and_served(self, sdk: AsyncPlatform):
        await sdk.features.create_set("user", {"age": "int", "score": "float"}, entity="user_id")
        rows = [{"user_id": "ada", "event_timestamp": MONDAY, "age": 36, "score": float("inf")}]
        assert (await sdk.features.ingest("user", rows)).rows == 1
        vector = await sdk.features.serve("ada", ["age", "user:score"])
        assert vector.values["age"] == 36
        many = await sdk.features.serve_many(["nobody", "ada"], ["age"])
        assert [vector.statuses["age"] for vector in many] == ["missing", "present"]

    async def test_a_table_is_ingested_as_it_is(self, sdk: AsyncPlatform):
        await sdk.features.create_set("user", {"age": "int"}, entity="user_id")
        times = pa.array([MONDAY, MONDAY], pa.timestamp("us", tz="UTC"))
        table = pa.table({"user_id": ["ada", "bob"], "event_timestamp": times, "age": [36, 40]})
        assert (await sdk.features.ingest("user", table)).rows == 2
        assert (await sdk.features.serve("bob", ["age"])).values == {"age": 40}

    async def test_a_training_set_knows_only_what_was_known(self, sdk: AsyncPlatform):
        await sdk.features.create_set("user", {"age": "int"}, entity="user_id")
        rows = [{"user_id": "ada", "event_timestamp": MONDAY + timedelta(days=day), "age": day} for day in (0, 2)]
        await sdk.features.ingest("user", rows)
        labels = [{"user_id": "ada", "event_timestamp": MONDAY + timedelta(days=1), "churned": 1}]
        made = await sdk.features.training_set(labels, ["user:age"], name="churn")
        path = await sdk.features.training_data(made)
        (row,) = parquet.read_table(path).to_pylist()
        assert 0 in row.values()
        assert 2 not in row.values()
        assert await sdk.features.training_data(made.id) == path

    async def test_a_type_that_is_none_is_refused_by_its_field(self, sdk: AsyncPlatform):
        with pytest.raises(InvalidRequest) as caught:
            await sdk.features.create_set("user", {"age": "complex"})
        assert "type" in caught.value.errors[0].field


class TestPipelines:
    TASKS: tuple[dict[str, Any], ...] = (
        {"name": "first", "entry_point": "absent.tasks:first"},
        {"name": "second", "entry_point": "absent.tasks:second", "depends_on": ["first"]},
    )

    async def test_the_same_document_is_the_same_version(self, sdk: AsyncPlatform):
        first = await sdk.pipelines.create("nightly", self.TASKS, description="Every night")
        assert await sdk.pipelines.create("nightly", self.TASKS) == first
        changed: list[dict[str, Any]] = [{**self.TASKS[0], "retries": 2}, dict(self.TASKS[1])]
        assert (await sdk.pipelines.create("nightly", changed)).version == 2
        assert [version.version async for version in sdk.pipelines.versions("nightly")] == [2, 1]

    async def test_a_run_is_started_looked_at_and_cancelled(self, sdk: AsyncPlatform):
        await sdk.pipelines.create("nightly", self.TASKS, parameters={"rows": {"type": "integer", "default": 5}})
        run = await sdk.pipelines.run("nightly", {"rows": 7})
        assert run.parameters == {"rows": 7}
        assert {task.task async for task in sdk.pipelines.tasks(run.id)} == {"first", "second"}
        with pytest.raises(WaitTimedOut):
            await sdk.pipelines.wait(run.id, timeout_seconds=0)
        await sdk.pipelines.cancel(run.id)
        assert (await sdk.pipelines.wait(run.id, timeout_seconds=10, check=False)).state == "cancelled"
        assert [found.id async for found in sdk.pipelines.runs("nightly", state="cancelled")] == [run.id]

    async def test_a_schedule_is_set_paused_and_removed(self, sdk: AsyncPlatform):
        await sdk.pipelines.create("nightly", self.TASKS)
        made = await sdk.pipelines.set_schedule("nightly", "30 2 * * *", time_zone="Europe/Paris")
        assert made.next_at is not None
        assert (await sdk.pipelines.pause_schedule("nightly")).is_paused
        assert not (await sdk.pipelines.pause_schedule("nightly", is_paused=False)).is_paused
        await sdk.pipelines.remove_schedule("nightly")
        assert (await sdk.pipelines.get("nightly")).schedule is None

    async def test_a_parameter_of_another_type_is_refused(self, sdk: AsyncPlatform):
        await sdk.pipelines.create("nightly", self.TASKS, parameters={"rows": {"type": "integer"}})
        with pytest.raises(InvalidRequest):
            await sdk.pipelines.run("nightly", {"rows": "many"})


class TestABTests:
    async def test_units_are_routed_and_their_outcomes_judged(self, sdk: AsyncPlatform):
        await sdk.ab.create("v2", SPLIT, metrics=[{"name": "converted"}])
        users = [f"user-{number}" for number in range(60)]
        routes = {user: await sdk.ab.route("v2", user) for user in users}
        assert {route.variant for route in routes.values()} == {"control", "treatment"}
        assert (await sdk.ab.route("v2", users[0])).variant == routes[users[0]].variant
        outcomes = [{"unit_id": user, "metric": "converted", "value": True, "timestamp": MONDAY} for user in users]
        assert (await sdk.ab.outcomes("v2", outcomes)).recorded == 60
        assert (await sdk.ab.outcomes("v2", outcomes)).duplicates == 60
        assert (await sdk.ab.results("v2")).metrics[0].metric == "converted"

    async def test_a_stopped_test_gives_everyone_the_winner(self, sdk: AsyncPlatform):
        await sdk.ab.create("v2", SPLIT, status="draft")
        assert (await sdk.ab.start("v2")).status == "running"
        assert (await sdk.ab.pause("v2")).status == "paused"
        assert (await sdk.ab.stop("v2", winner="treatment", note="Better.")).winner == "treatment"
        assert (await sdk.ab.route("v2", "anyone")).model_version == "v2.0"
        assert (await sdk.ab.archive("v2")).status == "archived"

    async def test_an_outcome_without_a_time_is_not_counted_twice_by_a_retry(self, sdk: AsyncPlatform):
        await sdk.ab.create("v2", SPLIT)
        await sdk.ab.route("v2", "ada")
        assert (await sdk.ab.outcome("v2", "ada", metric="spent", value=12.5)).recorded == 1

    async def test_a_name_that_is_taken_is_a_conflict(self, sdk: AsyncPlatform):
        await sdk.ab.create("v2", SPLIT)
        with pytest.raises(Conflict):
            await sdk.ab.create("v2", SPLIT)

    async def test_a_sample_size_is_planned(self, sdk: AsyncPlatform):
        assert (await sdk.ab.sample_size(kind="proportion", baseline=0.1, minimum_effect=0.02)).units_per_variant > 100

    async def test_the_allocation_is_all_a_client_needs(self, sdk: AsyncPlatform):
        await sdk.ab.create("v2", SPLIT)
        found = await sdk.ab.allocation("v2")
        assert {part.variant for part in found.ranges} == {"control", "treatment"}

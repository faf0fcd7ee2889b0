"""The client and metrics: contexts, exact points, series, goals, truncation."""

import asyncio
import math

import pytest

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.contexts import checked, spelled
from mlops_platform.sdk.errors import InvalidRequest
from mlops_platform.sdk.offline import OfflineRun
from mlops_platform.tracking.domain.keys import context_of, key_parts, make_key, read_key, spell_key
from tests.conftest import Platform as RunningPlatform
from tests.sdk.server import Road
from tests.sdk.test_recorder import tracking_service


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


class TestContexts:
    async def test_a_context_makes_a_series_of_its_own_in_every_answer(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            for step in range(3):
                run.log_metric("acc", step, step=step, context={"split": "train"})
                run.log_metric("acc", step * 10, step=step, context={"split": "val"})
                run.log_metrics({"acc": step * 100, "loss": math.nan}, step=step)
        found = await sdk.tracking.get_run(run.id)
        assert {key: found.metrics[key] for key in ("acc", "acc{split=train}", "acc{split=val}")} == {
            "acc": 200.0,
            "acc{split=train}": 2.0,
            "acc{split=val}": 20.0,
        }
        history = await sdk.tracking.history(run.id, "acc", context={"split": "val"}).all()
        assert [(point.step, point.value, point.context) for point in history] == [
            (step, step * 10.0, {"split": "val"}) for step in range(3)
        ]
        assert len(await sdk.tracking.search("metrics.acc{split=val} > 15").all()) == 1

    def test_values_of_one_context_share_a_body_and_the_order_of_its_entries_means_nothing(self, connected):
        with connected(tracking_service()) as (service, platform):
            with platform.tracking.run("e") as run:
                at = run.info.created_at
                run.log_metric("a", 1, step=1, timestamp=at, context={"x": "1", "y": "2"})
                run.log_metric("b", 2, step=1, timestamp=at, context={"y": "2", "x": "1"})
                run.log_metric("a", 3, step=1, timestamp=at)
                run.log_metric("c", 4, step=1, timestamp=at, context={})
            (first, second) = next(seen for seen in service.seen if seen.path.endswith("/metrics")).json
        assert (first["a"], first["b"], first["context"]) == (1, 2, {"x": "1", "y": "2"})
        assert (second["a"], second["c"], "context" in second) == (3, 4, False)

    @pytest.mark.parametrize(
        "context",
        [
            {"split": 1},
            {"split": ""},
            {"split": "x" * 101},
            {"split": "a\nb"},
            {1: "x"},
            {f"k{number}": "v" for number in range(9)},
            {f"{number}" * 100: "é" * 100 for number in range(8)},
        ],
    )
    def test_what_the_server_would_refuse_is_refused_at_the_call(self, connected, context):
        with connected(tracking_service()) as (_, platform):
            run = platform.tracking.start_run("e")
            with pytest.raises(ValueError, match="cannot be a context"):
                run.log_metric("acc", 1, context=context)

    def test_a_metric_named_context_has_none(self, connected):
        with connected(tracking_service()) as (_, platform):
            run = platform.tracking.start_run("e")
            run.log_metric("context", 1)
            with pytest.raises(ValueError, match="named 'context'"):
                run.log_metrics({"context": 1}, context={"split": "val"})

    @pytest.mark.parametrize("key", ["acc", "train/acc", "a{b}", "a}"])
    @pytest.mark.parametrize("context", [{"split": "val"}, {"b": "x y", "a": 'say "so"'}, {"é": "1", "z": "0.5"}])
    def test_client_and_server_spell_alike(self, key, context):
        text = spelled(key, context)
        assert text == spell_key(*key_parts(make_key(key, context)))
        name, stored = key_parts(read_key(text))
        assert (name, context_of(stored)) == (key, dict(checked(context)))

    async def test_an_offline_run_keeps_and_brings_them_in(self, sdk: AsyncPlatform, settings_for):
        offline = AsyncPlatform(settings=settings_for("http://127.0.0.1:1", offline=True))
        async with offline, offline.tracking.run("e") as run:
            run.log_metric("acc", 0.5, step=1, context={"split": "val"})
            run.log_metric("acc", 0.7, step=1)
            run.log_metric("context", 3)
        kept = OfflineRun(sdk.settings.offline_runs / run.id).summary()["metrics"]
        assert kept == {"acc{split=val}": 0.5, "acc": 0.7, "context": 3.0}
        await sdk.tracking.sync_offline()
        assert (await sdk.tracking.get_run(run.id)).metrics == kept


class TestReading:
    async def test_points_of_several_metrics_come_exactly(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            for step in range(1200):
                run.log_metrics({"a": step / 3, "b": -step}, step=step)
            run.log_metric("c", math.inf, context={"split": "val"})
        found = await sdk.tracking.points(run.id, ["a", "c{split=val}"]).all()
        assert [point.value for point in found if point.key == "a"] == [step / 3 for step in range(1200)]
        assert [point.value for point in found if point.key == "c"] == [math.inf]
        assert len(await sdk.tracking.points(run.id, ["a", "b"], limit=7).all()) == 7
        table = await sdk.tracking.points(run.id, ["b"]).to_arrow()
        assert table.column("value").to_pylist()[-1] == -1199

    async def test_series_are_reduced_and_become_a_table(self, sdk: AsyncPlatform):
        runs = []
        for number in range(2):
            async with sdk.tracking.run("e") as run:
                for step in range(1000):
                    value = 99.0 if step == 500 else math.sin(step / 50) + number
                    run.log_metric("loss", value, step=step, context={"split": "val"})
            runs.append(run.id)
        found = await sdk.tracking.series(runs, ["loss{split=val}", "none"], max_points=50)
        assert [(each.run_id, each.points, each.is_reduced) for each in found.items] == [(run, 1000, True) for run in runs]
        table = found.to_arrow()
        assert set(table.column("key").to_pylist()) == {"loss{split=val}"}
        assert table.num_rows == sum(len(each.x) for each in found.items) <= 100
        assert table.column("y").to_pylist().count(99.0) == 2
        assert found.rows()[0] == {"run_id": runs[0], "key": "loss{split=val}", "x": 0, "y": 0.0}
        assert "1000" in found._repr_html_()

    async def test_a_method_that_is_none_is_refused(self, sdk: AsyncPlatform):
        with pytest.raises(InvalidRequest):
            await sdk.tracking.series(["1" * 32], ["a"], method="average")


class TestEditing:
    async def test_goals_are_declared_listed_and_taken_back(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            for value in (3, 1, 2):
                run.log_metric("val/loss", value, step=value)
        assert (await sdk.tracking.set_goal("e", "val/loss", "minimize")).goal == "minimize"
        assert [each.best for each in await sdk.tracking.metrics(run.id)] == [1.0]
        assert [(each.key, each.goal) for each in await sdk.tracking.goals("e")] == [("val/loss", "minimize")]
        await sdk.tracking.clear_goal("e", "val/loss")
        assert await sdk.tracking.goals("e") == []

    async def test_a_training_goes_on_from_a_checkpoint(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            for step in range(10):
                run.log_metrics({"loss": step, "acc": step}, step=step)
        resumed = await sdk.tracking.resume_run(run.id)
        done = await sdk.tracking.truncate_metrics(run.id, from_step=5, keys=["loss"], reason="from the checkpoint of 5")
        assert [(each.key, each.removed, each.remaining) for each in done.metrics] == [("loss", 5, 5)]
        async with resumed:
            for step in range(5, 8):
                resumed.log_metric("loss", step * 100, step=step)
        values = [point.value async for point in sdk.tracking.history(run.id, "loss")]
        assert values == [0, 1, 2, 3, 4, 500, 600, 700]
        [entry] = [each async for each in sdk.admin.audit(action="run.metrics_truncated")]
        assert entry.detail is not None
        assert entry.detail["reason"] == "from the checkpoint of 5"

    async def test_what_the_crashed_process_had_spooled_does_not_come_back_after_the_cut(self, connect):
        road = Road()
        crashed, next_one = connect(road, heartbeat_seconds=0, retries=1), connect(heartbeat_seconds=0)
        run = await asyncio.to_thread(crashed.tracking.start_run, "e")
        road.is_broken = True
        for step in range(10):
            run.log_metric("loss", step, step=step)
        with pytest.warns(UserWarning, match="wait"):
            await asyncio.to_thread(run.flush)
        await asyncio.to_thread(next_one.tracking.truncate_metrics, run.id, from_step=5)
        road.is_broken = False
        await asyncio.to_thread(run.flush)
        history = await asyncio.to_thread(next_one.tracking.history(run.id, "loss").all)
        assert [point.step for point in history] == [0, 1, 2, 3, 4]

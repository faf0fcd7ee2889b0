"""The client against Experiment Tracking: the life and places of runs, comparing them, talking about them."""

import pytest

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.errors import RunHeld
from tests.conftest import Platform as RunningPlatform


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    """A client with the key of an admin of a fresh project."""
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


async def test_a_run_is_taken_by_one_writer_and_beats(sdk: AsyncPlatform):
    async with sdk.tracking.run("churn", group="night") as run:
        pass
    assert (await sdk.tracking.get_run(run.id)).group == "night"
    await sdk.tracking.take_run(run.id, "w1", heartbeat_seconds=60)
    with pytest.raises(RunHeld, match="'w1'"):
        await sdk.tracking.take_run(run.id, "w2")
    assert (await sdk.tracking.heartbeat(run.id, writer="w1")).heartbeat_seconds == 60
    assert (await sdk.tracking.take_run(run.id, "w2", take_over=True)).status == "RUNNING"


async def test_runs_are_corrected_moved_copied_and_removed(sdk: AsyncPlatform):
    await sdk.tracking.create_experiment("team/new")
    async with sdk.tracking.run("team/old", parameters={"lr": 10}) as run:
        run.log_metric("loss", 0.5)
    child = await sdk.tracking.start_run("team/old", parent_run_id=run.id)
    assert [each.id async for each in sdk.tracking.children(run.id)] == [child.id]
    assert (await sdk.tracking.correct_param(run.id, "lr", 0.1, reason="percent")).parameters == {"lr": 0.1}
    copy = await sdk.tracking.copy_run(run.id, "team/new", run_name="copy")
    assert (copy.run_name, copy.metrics) == ("copy", {"loss": 0.5})
    await sdk.tracking.move_run(child.id, "team/new")
    folders = {each.path: each.runs async for each in sdk.tracking.folder("team")}
    assert folders == {"team/new": 2, "team/old": 1}
    tagged = await sdk.tracking.bulk("tag", experiments=["team/new"], tags={"a": "1"})
    assert tagged.changed == 2
    await sdk.tracking.bulk("delete", run_ids=[copy.id])
    assert (await sdk.tracking.purge_run(copy.id)).runs == 1
    found = await sdk.tracking.experiment("team/new")
    assert (await sdk.tracking.purge_experiment(found.id)).runs == 1
    assert (await sdk.tracking.purge_experiment(found.id, confirm="team/new")).is_preview is False
    assert (await sdk.tracking.archive_experiment("team/old")).archived_at is not None


async def test_runs_are_compared_with_a_baseline(sdk: AsyncPlatform):
    ids = []
    for lr in (1, 2, 3):
        async with sdk.tracking.run("churn", parameters={"lr": lr}) as run:
            run.log_metric("acc", lr * 2)
        ids.append(run.id)
    await sdk.tracking.set_baseline("churn", ids[0])
    found = await sdk.tracking.compare(ids, target="acc")
    assert (found.baseline_run_id, found.params[0].values, found.correlations[0].pearson) == (ids[0], [1, 2, 3], 1.0)
    assert (await sdk.tracking.set_baseline("churn", None)).baseline_run_id is None


async def test_comments_and_views_are_made_changed_and_deleted(sdk: AsyncPlatform):
    run = await sdk.tracking.start_run("churn")
    made = await sdk.tracking.comment(run.id, "see @grace")
    assert (await sdk.tracking.edit_comment(run.id, made.id, "see @alan")).mentions == ["alan"]
    assert [each.id async for each in sdk.tracking.comments(run.id)] == [made.id]
    await sdk.tracking.delete_comment(run.id, made.id)
    view = await sdk.tracking.save_view("churn", "best", filter="metrics.acc > 0.9")
    assert (await sdk.tracking.update_view(view.id, name="good")).name == "good"
    assert [each async for each in sdk.tracking.views(run.experiment_id)] == [await sdk.tracking.view(view.id)]
    await sdk.tracking.delete_view(view.id)

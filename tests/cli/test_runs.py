"""Runs and experiments by the command line: who writes them, what is cut, compared, tagged, removed."""

import asyncio

import pytest

from mlops_platform.sdk import Platform
from mlops_platform.sdk.settings import URL_VARIABLES, ClientSettings


def settings_of(environment, tmp_path):
    urls = {service: environment[variable] for service, variable in URL_VARIABLES.items()}
    return ClientSettings(urls=urls, credential=environment["MLOPS_API_KEY"], home=tmp_path)


@pytest.fixture
async def run_id(mlops, tmp_path):
    """A run that has ended, with ten points of loss."""

    def train():
        platform = Platform(settings=settings_of(mlops.environment, tmp_path))
        with platform, platform.tracking.run("churn") as run:
            for step in range(10):
                run.log_metric("loss", 10 - step, step=step)
                run.log_metric("loss", 20 - step, step=step, context={"split": "val"})
        return run.id

    return await asyncio.to_thread(train)


class TestWhoWrites:
    async def test_one_writer_resumes_and_the_other_is_told_who_has_it(self, mlops, run_id):
        assert (await mlops("run", "resume", run_id, "--writer", "w1", "-q")).out == "w1\n"
        held = await mlops("run", "resume", run_id, "--writer", "w2")
        assert held.code == 1
        assert "'w1'" in held.err
        taken = await mlops("run", "resume", run_id, "--take-over", "--heartbeat-seconds", "60", "-o", "json")
        assert taken.json["heartbeat_seconds"] == 60
        assert (await mlops("run", "writer", run_id, "-q")).out.strip() == taken.json["writer"]
        assert (await mlops("run", "show", run_id, "-o", "json")).json["status"] == "RUNNING"
        assert (await mlops("run", "finish", run_id)).code == 0
        assert (await mlops("run", "writer", run_id)).code == 3

    async def test_a_run_that_a_command_starts_owes_no_heartbeat(self, mlops):
        made = (await mlops("run", "create", "churn", "-o", "json")).json
        assert made["heartbeat_seconds"] is None


class TestMetrics:
    async def test_a_history_is_cut_with_a_reason_and_only_when_it_is_confirmed(self, mlops, run_id):
        cut = ("run", "truncate", run_id, "--from-step", "4", "--key", "loss")
        assert (await mlops(*cut)).code == 2
        done = await mlops(*cut, "--reason", "from a checkpoint", "--yes", "-o", "json")
        assert [(each["key"], each["removed"]) for each in done.json] == [("loss", 6)]
        points = (await mlops("run", "metrics", run_id, "--key", "loss", "-o", "json")).json
        assert [point["step"] for point in points] == [0, 1, 2, 3]

    async def test_series_are_rows_of_points(self, mlops, run_id):
        found = (await mlops("run", "series", run_id, "--key", "loss{split=val}", "--max-points", "4", "-o", "json")).json
        assert {row["key"] for row in found} == {"loss{split=val}"}
        assert (found[0]["x"], found[-1]["x"]) == (0, 9)
        assert len(found) <= 4
        assert (await mlops("run", "series", run_id)).code == 2

    async def test_a_goal_is_declared_listed_and_taken_back(self, mlops, run_id):
        assert (await mlops("experiment", "goal", "churn", "loss", "minimize")).code == 0
        assert [each["goal"] for each in (await mlops("experiment", "goals", "churn", "-o", "json")).json] == ["minimize"]
        assert (await mlops("experiment", "goal", "churn", "loss", "sideways")).code == 1
        assert (await mlops("experiment", "goal", "churn", "loss", "none")).code == 0
        assert (await mlops("experiment", "goals", "churn", "-o", "json")).json == []


class TestTheRest:
    async def test_tags_are_set_and_removed(self, mlops, run_id):
        await mlops("run", "tag", run_id, "a=1", "b=2.0")
        tagged = await mlops("run", "tag", run_id, "c=x", "--remove", "a", "-o", "json")
        assert tagged.json["tags"] == {"b": "2.0", "c": "x"}

    async def test_comments_and_children_are_listed(self, mlops, run_id):
        made = (await mlops("run", "comment", run_id, "Overfits, @grace?", "-q")).out
        assert (await mlops("run", "comments", run_id, "-q")).out == made
        assert (await mlops("run", "children", run_id, "-o", "json")).json == []

    async def test_a_run_is_deleted_restored_and_removed_for_ever(self, mlops, run_id):
        assert (await mlops("run", "delete", run_id)).code == 2
        assert (await mlops("run", "delete", run_id, "--yes")).code == 0
        assert (await mlops("run", "restore", run_id, "-q")).out.strip() == run_id
        await mlops("run", "delete", run_id, "--yes")
        assert (await mlops("run", "purge", run_id, "--yes", "-o", "json")).json["runs"] == 1
        assert (await mlops("run", "show", run_id)).code == 3

    async def test_an_experiment_is_renamed_and_has_a_baseline_and_views(self, mlops, run_id):
        options = ("--name", "growth/churn", "--retention-days", "30", "--tag", "a=b")
        changed = await mlops("experiment", "update", "churn", *options, "-o", "json")
        assert (changed.json["name"], changed.json["retention_days"], changed.json["tags"]) == (
            "growth/churn",
            30,
            {"a": "b"},
        )
        pinned = await mlops("experiment", "baseline", "growth/churn", run_id, "-o", "json")
        assert pinned.json["baseline_run_id"] == run_id
        assert (await mlops("experiment", "baseline", "growth/churn", "-o", "json")).json["baseline_run_id"] is None
        assert (await mlops("experiment", "views", "growth/churn", "-o", "json")).json == []

"""Runs from start to end: real database, real processes."""

import asyncio
import functools
from pathlib import Path

import asyncpg
import pytest

from mlops_platform.core.errors import ConfigurationError, DependencyUnavailable
from mlops_platform.pipelines.tasks.worker import WorkerOptions, run_worker
from tests.conftest import Caller, Platform
from tests.factories.pipelines import a_pipeline, a_run, a_task, finished, the_task, working
from tests.pipelines.eventually import eventually, lines_of

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
)


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("pipeline-orchestrator")


class TestRuns:
    async def test_results_flow_from_task_to_task_and_join(self, ada, runtime):
        tasks = [
            a_task("left", "add", a="${params.x}", b=1),
            a_task("right", "add", a="${params.x}", b=2),
            a_task("join", "total", values=["${tasks.left.result}", "${tasks.right.result}"]),
        ]
        await a_pipeline(ada, *tasks, parameters={"x": {"type": "integer", "default": 10}})
        async with working(runtime):
            run = await finished(ada, await a_run(ada, x=100))
            assert run["state"] == "succeeded"
            assert run["task_counts"] == {"succeeded": 3}
            assert (await the_task(ada, run["id"], "join"))["result"] == 203

    async def test_downstream_of_a_failure_says_so_and_the_rest_runs(self, ada, runtime):
        tasks = [
            a_task("bad", "fail", message="no"),
            a_task("after", depends_on=["bad"], value=1),
            a_task("far", depends_on=["after"], value=1),
            a_task("beside", value=1),
        ]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert run["state"] == "failed"
        assert run["task_counts"] == {"failed": 1, "upstream_failed": 2, "succeeded": 1}
        bad = await the_task(ada, run["id"], "bad")
        assert (bad["error"]["type"], bad["error"]["message"]) == ("ValueError", "no")

    async def test_a_task_is_tried_again_until_it_succeeds(self, ada, runtime, tmp_path):
        task = a_task("a", "fail_until", path=str(tmp_path / "t"), times=2, retries=2, retry_delay_seconds=0.05)
        async with working(runtime):
            run = await finished(ada, await a_run(ada, task))
        found = await the_task(ada, run["id"], "a")
        assert run["state"] == "succeeded"
        assert [attempt["state"] for attempt in found["attempts"]] == ["failed", "failed", "succeeded"]
        assert (found["attempt"], found["result"], found["error"]) == (3, 3, None)

    async def test_a_task_past_its_time_is_stopped(self, ada, runtime, tmp_path):
        task = a_task("a", "wait_for", path=str(tmp_path / "never"), timeout_seconds=0.3)
        async with working(runtime):
            run = await finished(ada, await a_run(ada, task))
        found = await the_task(ada, run["id"], "a")
        assert (run["state"], found["attempts"][0]["state"]) == ("failed", "timed_out")

    async def test_a_reference_that_leads_nowhere_fails_the_task_and_names_it(self, ada, runtime):
        tasks = [a_task("a", value={"k": 1}), a_task("b", value="${tasks.a.result.missing}")]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert "'missing'" in (await the_task(ada, run["id"], "b"))["error"]["message"]

    async def test_a_chain_of_fifty_runs_in_order(self, ada, runtime, tmp_path):
        trace = tmp_path / "trace"
        tasks = [
            a_task(f"t{n}", "mark", path=str(trace), text=str(n), depends_on=[f"t{n - 1}"] if n else []) for n in range(50)
        ]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert run["state"] == "succeeded"
        assert lines_of(trace) == [str(n) for n in range(50)]

    @pytest.mark.timeout(300)
    async def test_a_thousand_tasks_fan_out_and_in_and_each_runs_once(self, ada, runtime, tmp_path):
        trace = tmp_path / "trace"
        tasks = [a_task("root", value=0)]
        tasks += [a_task(f"t{n}", "mark", path=str(trace), text=str(n), depends_on=["root"]) for n in range(998)]
        tasks += [a_task("join", value=1, depends_on=[f"t{n}" for n in range(998)])]
        async with working(runtime, slots=4), working(runtime, slots=4):
            run = await finished(ada, await a_run(ada, *tasks), within=250)
        assert run["task_counts"] == {"succeeded": 1000}
        assert sorted(map(int, lines_of(trace))) == list(range(998))


class TestFanOut:
    async def test_a_task_runs_for_each_item_of_a_result_and_gives_the_list(self, ada, runtime):
        tasks = [
            a_task("items", value=[1, 2, 3]),
            a_task("each", "add", a="${item}", b=10, for_each="${tasks.items.result}"),
            a_task("sum", "total", values="${tasks.each.result}"),
        ]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert run["state"] == "succeeded"
        assert (await the_task(ada, run["id"], "sum"))["result"] == 36
        assert (await the_task(ada, run["id"], "each", item=2))["result"] == 13

    async def test_no_items_is_an_empty_list(self, ada, runtime):
        tasks = [a_task("each", for_each=[], value="${item}"), a_task("sum", "total", values="${tasks.each.result}")]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert (run["state"], (await the_task(ada, run["id"], "sum"))["result"]) == ("succeeded", 0)

    async def test_one_failed_item_fails_the_fan_out_after_all_have_run(self, ada, runtime):
        tasks = [
            a_task("each", "add", for_each=[1, "x", 3], a="${item}", b=1),
            a_task("after", value=1, depends_on=["each"]),
        ]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert run["state"] == "failed"
        assert run["task_counts"] == {"succeeded": 2, "failed": 2, "upstream_failed": 1}

    async def test_what_is_not_a_list_fails_with_a_sentence(self, ada, runtime):
        tasks = [a_task("one", value=1), a_task("each", value="${item}", for_each="${tasks.one.result}")]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
        assert "not a list" in (await the_task(ada, run["id"], "each"))["error"]["message"]


class TestCancel:
    async def test_a_running_task_is_stopped_and_what_waits_never_starts(self, ada, runtime, tmp_path):
        started, cleaned, never = (tmp_path / name for name in ("started", "cleaned", "never"))
        tasks = [
            a_task("a", "tidy", started=str(started), cleaned=str(cleaned)),
            a_task("b", "mark", path=str(never), depends_on=["a"]),
        ]
        async with working(runtime, kill_grace_seconds=10):
            run_id = await a_run(ada, *tasks)
            await eventually(lambda: lines_of(started))
            response = await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
            assert response.json()["state"] == "cancelling"
            run = await finished(ada, run_id)
        assert (run["state"], run["task_counts"]) == ("cancelled", {"cancelled": 2})
        assert lines_of(cleaned) == ["x"]
        assert lines_of(never) == []
        assert (await the_task(ada, run_id, "a"))["attempts"][0]["state"] == "cancelled"

    async def test_a_fan_out_under_way_is_cancelled_with_its_items(self, ada, runtime, tmp_path):
        started = tmp_path / "started"
        task = a_task("each", "wait_for", for_each=list(range(5)), path=str(tmp_path / "never"), started=str(started))
        async with working(runtime):
            run_id = await a_run(ada, task)
            await eventually(lambda: len(lines_of(started)) == 2)
            await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
            run = await finished(ada, run_id)
        assert (run["state"], run["task_counts"]) == ("cancelled", {"cancelled": 6})

    async def test_without_a_worker_a_run_is_cancelled_at_once(self, ada):
        run_id = await a_run(ada, a_task("a", value=1))
        for _ in range(2):
            response = await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
            assert (response.status_code, response.json()["state"]) == (200, "cancelled")

    async def test_what_has_ended_cannot_be_cancelled(self, ada, runtime):
        async with working(runtime):
            run = await finished(ada, await a_run(ada, a_task("a", value=1)))
        response = await ada.http.post(f"/api/pipeline-runs/{run['id']}/cancel")
        assert (response.status_code, response.json()["code"]) == (409, "illegal_transition")


class TestRetryOfRuns:
    async def test_what_succeeded_is_kept_and_the_rest_runs_again(self, ada, runtime, tmp_path):
        once, flaky = tmp_path / "once", tmp_path / "flaky"
        tasks = [
            a_task("kept", "mark", path=str(once)),
            a_task("flaky", "fail_until", path=str(flaky), times=1, depends_on=["kept"]),
            a_task("after", value="${tasks.flaky.result}"),
        ]
        async with working(runtime):
            run = await finished(ada, await a_run(ada, *tasks))
            assert run["state"] == "failed"
            await ada.http.post(f"/api/pipeline-runs/{run['id']}/retry")
            run = await finished(ada, run["id"])
        assert (run["state"], run["task_counts"]) == ("succeeded", {"succeeded": 3})
        assert lines_of(once) == ["x"]
        assert (await the_task(ada, run["id"], "flaky"))["attempt"] == 2

    async def test_only_the_failed_items_of_a_fan_out_run_again(self, ada, runtime, tmp_path):
        task = a_task("each", "fail_until", for_each=["a", "b"], path=str(tmp_path) + "/${item}", times=1)
        (tmp_path / "a").write_text("x\n")
        async with working(runtime):
            run = await finished(ada, await a_run(ada, task, a_task("n", "total", values="${tasks.each.result}")))
            assert run["task_counts"] == {"succeeded": 1, "failed": 2, "upstream_failed": 1}
            await ada.http.post(f"/api/pipeline-runs/{run['id']}/retry")
            run = await finished(ada, run["id"])
        assert run["state"] == "succeeded"
        assert (len(lines_of(tmp_path / "a")), len(lines_of(tmp_path / "b"))) == (2, 2)

    async def test_a_cancelled_run_can_be_taken_up_again(self, ada, runtime):
        run_id = await a_run(ada, a_task("a", value=1), a_task("b", value="${tasks.a.result}"))
        await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
        await ada.http.post(f"/api/pipeline-runs/{run_id}/retry")
        async with working(runtime):
            await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
            await ada.http.post(f"/api/pipeline-runs/{run_id}/retry")
            assert (await finished(ada, run_id))["state"] == "succeeded"

    async def test_a_run_that_succeeded_cannot(self, ada, runtime):
        async with working(runtime):
            run = await finished(ada, await a_run(ada, a_task("a", value=1)))
        assert (await ada.http.post(f"/api/pipeline-runs/{run['id']}/retry")).status_code == 409


class TestLogs:
    async def lines(self, ada, run_id, **query):
        return (await ada.http.get(f"/api/pipeline-runs/{run_id}/tasks/a/logs", params=query)).json()

    async def test_lines_are_complete_when_the_task_has_ended(self, ada, runtime):
        async with working(runtime):
            run = await finished(ada, await a_run(ada, a_task("a", "say", lines=30)))
        logs = await self.lines(ada, run["id"])
        assert [line["text"] for line in logs["lines"] if line["stream"] == "stdout"] == [f"line {n}" for n in range(30)]
        assert [line["line"] for line in logs["lines"]] == list(range(31))
        assert logs["is_complete"]

    async def test_pages_and_tail_meet_each_line_once(self, ada, runtime):
        async with working(runtime):
            run = await finished(ada, await a_run(ada, a_task("a", "say", lines=25)))
        seen, offset, complete = [], 0, False
        while not complete:
            page = await self.lines(ada, run["id"], offset=offset, limit=10)
            seen += [line["line"] for line in page["lines"]]
            offset, complete = page["next_offset"], page["is_complete"]
        assert seen == list(range(26))
        tail = await self.lines(ada, run["id"], tail=3)
        assert [line["line"] for line in tail["lines"]] == [23, 24, 25]

    async def test_lines_can_be_followed_while_the_task_runs(self, ada, runtime, tmp_path):
        task = a_task("a", "say_and_wait", path=str(tmp_path / "go"))
        async with working(runtime):
            run_id = await a_run(ada, task)

            async def first_line():
                logs = await self.lines(ada, run_id)
                return logs if logs.get("lines") else None

            logs = await eventually(first_line)
            assert not logs["is_complete"]
            (tmp_path / "go").touch()
            await finished(ada, run_id)


def has_more_lines(path: Path, count: int) -> bool:
    return len(lines_of(path)) > count


class TestLeases:
    async def test_a_task_longer_than_its_lease_keeps_it(self, ada, runtime, tmp_path):
        started = tmp_path / "started"
        async with working(runtime, lease_seconds=0.4):
            run_id = await a_run(ada, a_task("a", "wait_for", path=str(tmp_path / "go"), started=str(started)))
            await eventually(lambda: lines_of(started))
            await asyncio.sleep(1.5)
            (tmp_path / "go").touch()
            await finished(ada, run_id)
        assert [one["state"] for one in (await the_task(ada, run_id, "a"))["attempts"]] == ["succeeded"]

    @pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
    async def test_a_worker_that_cannot_renew_stops_its_task_before_the_lease_ends(
        self, ada, runtime, tmp_path, monkeypatch, is_silent
    ):
        started, cleaned = tmp_path / "started", tmp_path / "cleaned"
        async with working(runtime, lease_seconds=1.5, kill_grace_seconds=5) as worker:
            run_id = await a_run(ada, a_task("a", "tidy", started=str(started), cleaned=str(cleaned)))
            await eventually(lambda: lines_of(started))

            async def is_away(*_: object) -> None:
                if is_silent:
                    await asyncio.Event().wait()
                raise DependencyUnavailable("database")

            monkeypatch.setattr(worker._dispatcher, "renew", is_away)
            await eventually(lambda: lines_of(cleaned), within=10)
            await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")

    async def test_connections_cut_again_and_again_lose_no_task(self, ada, runtime, database, tmp_path):
        trace = tmp_path / "trace"
        tasks = [a_task(f"t{n}", "mark_slowly", path=str(trace), text=str(n), seconds=0.02) for n in range(60)]
        connection = await asyncpg.connect(database.app_dsn)
        async with working(runtime, lease_seconds=3):
            run_id = await a_run(ada, *tasks)
            for cut in range(5):
                await eventually(functools.partial(has_more_lines, trace, 10 * cut))
                await connection.execute(CUT)
            await connection.close()

            async def has_ended():
                response = await ada.http.get(f"/api/pipeline-runs/{run_id}")
                return response.status_code == 200 and response.json()["state"] != "running" and response.json()

            run = await eventually(has_ended, within=60)
        assert (run["state"], run["task_counts"]) == ("succeeded", {"succeeded": 60})


class TestTheWorkersOwnTrouble:
    async def test_a_task_that_could_not_even_be_begun_is_given_back_and_not_held_for_ever(self, ada, runtime):
        async with working(runtime, run_as="nobody-of-this-name"):
            run_id = await a_run(ada, a_task("a", value=1, retry_on_loss=False))
            assert (await finished(ada, run_id))["state"] == "failed"
        assert (await the_task(ada, run_id, "a"))["attempts"][0]["state"] == "lost"

    async def test_a_worker_whose_tasks_no_user_can_run_does_not_begin(self, runtime):
        options = WorkerOptions(run_as="nobody-of-this-name")
        with pytest.raises(ConfigurationError, match="nobody-of-this-name"):
            await run_worker(runtime, options, asyncio.Event())

    async def test_leases_are_kept_after_a_renewal_that_failed_in_an_unknown_way(self, ada, runtime, tmp_path, monkeypatch):
        started = tmp_path / "started"
        async with working(runtime, lease_seconds=0.6) as worker:
            renew, broken = worker._dispatcher.renew, asyncio.Event()

            async def fail_once(*arguments):
                monkeypatch.setattr(worker._dispatcher, "renew", renew)
                broken.set()
                raise RuntimeError("not foreseen")

            monkeypatch.setattr(worker._dispatcher, "renew", fail_once)
            run_id = await a_run(ada, a_task("a", "wait_for", path=str(tmp_path / "go"), started=str(started)))
            await eventually(lambda: lines_of(started))
            await asyncio.wait_for(broken.wait(), 10)
            await asyncio.sleep(1.5)
            (tmp_path / "go").touch()
            await finished(ada, run_id)
        assert [one["state"] for one in (await the_task(ada, run_id, "a"))["attempts"]] == ["succeeded"]


class TestWhatTasksAreGiven:
    async def test_the_run_its_task_and_a_token_but_no_secret(self, ada, runtime, platform):
        async with working(runtime, environment={"POSTGRES_PASSWORD": "canary", "PATH": "/usr/bin:/bin"}):
            run = await finished(ada, await a_run(ada, a_task("a", "environment")))
        seen = (await the_task(ada, run["id"], "a"))["result"]
        assert (seen["MLOPS_PIPELINE_RUN_ID"], seen["MLOPS_PIPELINE_TASK"]) == (run["id"], "a")
        assert "canary" not in str(seen)

    async def test_the_token_works_for_its_project_while_the_run_does_and_not_after(self, ada, runtime, platform, tmp_path):
        tasks = [a_task("a", "give_token"), a_task("b", "wait_for", path=str(tmp_path / "go"), depends_on=["a"])]
        async with working(runtime):
            run_id = await a_run(ada, *tasks)

            async def token_of_a():
                return (await the_task(ada, run_id, "a"))["result"]

            client = platform.client("pipeline-orchestrator", await eventually(token_of_a))
            assert (await client.get(f"/api/pipeline-runs/{run_id}")).status_code == 200
            assert (await client.get("/api/platform/audit")).status_code == 403
            (tmp_path / "go").touch()
            await finished(ada, run_id)

        async def is_refused():
            return (await client.get(f"/api/pipeline-runs/{run_id}")).status_code == 401

        await eventually(is_refused, within=5)

    async def test_a_worker_with_an_allowlist_leaves_other_modules_alone(self, ada, runtime):
        task = {"name": "a", "entry_point": "os:getpid"}
        async with working(runtime, allow=["user_code*"]):
            refused = await a_run(ada, task, name="refused")
            run = await finished(ada, await a_run(ada, a_task("a", value=1), name="allowed"))
            assert run["state"] == "succeeded"
            assert (await the_task(ada, refused, "a"))["state"] == "ready"

    async def test_a_task_that_no_worker_has_room_for_waits(self, ada, runtime):
        async with working(runtime):
            big = await a_run(ada, a_task("a", value=1, resources={"gpus": 1}), name="big")
            await finished(ada, await a_run(ada, a_task("a", value=1), name="small"))
            assert (await the_task(ada, big, "a"))["state"] == "ready"

    async def test_tasks_run_together_only_as_far_as_they_fit(self, ada, runtime, tmp_path):
        started = tmp_path / "s"
        tasks = [
            a_task(f"t{n}", "wait_for", path=str(tmp_path / "go"), started=str(started), resources={"cpus": 1.5})
            for n in range(2)
        ]
        async with working(runtime, slots=2):
            run_id = await a_run(ada, *tasks)
            await eventually(lambda: lines_of(started))
            await asyncio.sleep(0.5)
            assert len(lines_of(started)) == 1
            (tmp_path / "go").touch()
            assert (await finished(ada, run_id))["state"] == "succeeded"

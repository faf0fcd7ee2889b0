"""Workers and task processes that die or freeze: every task runs at least once, its result is recorded at most once."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import SECRET, Caller, Platform, TestDatabase
from tests.factories.pipelines import USER_CODE, a_run, a_task, finished, set_aside_leftovers, the_task, working
from tests.pipelines.eventually import eventually, is_alive, lines_of

pytestmark = pytest.mark.faults
LEASE_SECONDS = 1.5


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("pipeline-orchestrator")


class Workers:
    """Worker processes of one test."""

    def __init__(self, database: TestDatabase, home: Path) -> None:
        self._database = database
        self._home = home
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, name: str, **options) -> asyncio.subprocess.Process:
        given = {"name": name, "lease_seconds": LEASE_SECONDS, "poll_seconds": 0.2, "slots": 1, "kill_grace_seconds": 0.3}
        arguments = {
            "home": str(self._home),
            "secret": SECRET,
            "dsn": self._database.app_dsn,
            "options": given | options,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(USER_CODE / "worker_process.py"),
            json.dumps(arguments),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self.processes.append(process)
        return process


@pytest.fixture
async def workers(database: TestDatabase, runtime, tmp_path) -> AsyncIterator[Workers]:
    await set_aside_leftovers(runtime)
    started = Workers(database, tmp_path / "home")
    yield started
    for process in started.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def waiting_task(tmp_path: Path, **settings) -> dict:
    return a_task("a", "wait_for", path=str(tmp_path / "go"), started=str(tmp_path / "started"), **settings)


class TestWorkerDies:
    async def test_another_worker_takes_over_and_one_result_is_recorded(self, ada, workers, tmp_path):
        first = await workers.start("first")
        run_id = await a_run(ada, waiting_task(tmp_path))
        (pid,) = await eventually(lambda: lines_of(tmp_path / "started"))
        await workers.start("second")
        first.kill()
        await eventually(lambda: len(lines_of(tmp_path / "started")) == 2)
        assert not is_alive(int(pid)), "the task process of the dead worker still runs"
        (tmp_path / "go").touch()
        run = await finished(ada, run_id)
        attempts = (await the_task(ada, run_id, "a"))["attempts"]
        assert run["state"] == "succeeded"
        assert [(attempt["worker"], attempt["state"]) for attempt in attempts] == [
            ("first", "lost"),
            ("second", "succeeded"),
        ]

    async def test_a_task_that_must_not_run_twice_fails_instead(self, ada, workers, tmp_path):
        first = await workers.start("first")
        run_id = await a_run(ada, waiting_task(tmp_path, retry_on_loss=False))
        await eventually(lambda: lines_of(tmp_path / "started"))
        await workers.start("second")
        first.kill()
        assert (await finished(ada, run_id))["state"] == "failed"
        assert len(lines_of(tmp_path / "started")) == 1

    async def test_a_stopping_worker_gives_its_tasks_back_at_once(self, ada, workers, tmp_path):
        first = await workers.start("first", lease_seconds=600, drain_seconds=0)
        run_id = await a_run(ada, waiting_task(tmp_path))
        await eventually(lambda: lines_of(tmp_path / "started"))
        first.terminate()
        assert await first.wait() == 0
        assert (await the_task(ada, run_id, "a"))["state"] == "retry_wait"

    async def test_cancelling_ends_a_run_whose_worker_is_dead(self, ada, workers, tmp_path):
        first = await workers.start("first")
        run_id = await a_run(ada, waiting_task(tmp_path))
        await eventually(lambda: lines_of(tmp_path / "started"))
        first.kill()
        await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")
        await workers.start("second")
        assert (await finished(ada, run_id))["state"] == "cancelled"


class TestWorkerFreezes:
    async def test_the_late_result_of_a_frozen_worker_is_refused(self, ada, workers, tmp_path):
        first = await workers.start("first")
        run_id = await a_run(ada, a_task("a", "wait_for_own", path=str(tmp_path / "go"), started=str(tmp_path / "started")))
        await eventually(lambda: lines_of(tmp_path / "started"))
        first.send_signal(signal.SIGSTOP)
        second = await workers.start("second")
        await eventually(lambda: len(lines_of(tmp_path / "started")) == 2)
        # The first attempt ends while its worker is frozen and the second runs: its result waits in a pipe.
        (tmp_path / "go-1").touch()
        second.send_signal(signal.SIGSTOP)
        first.send_signal(signal.SIGCONT)
        # It has handed in its ending, or dropped it, when it takes the next task.
        other = await a_run(ada, a_task("a", "process_id"), name="other")
        await finished(ada, other)
        second.send_signal(signal.SIGCONT)
        (tmp_path / "go-2").touch()
        (tmp_path / "go-3").touch()
        run = await finished(ada, run_id)
        task = await the_task(ada, run_id, "a")
        assert run["state"] == "succeeded"
        assert task["result"] in {2, 3}
        assert [attempt["state"] for attempt in task["attempts"]].count("succeeded") == 1
        assert task["attempts"][0]["state"] == "lost"

    async def test_a_frozen_worker_stops_its_task_when_it_thaws(self, ada, workers, tmp_path):
        first = await workers.start("first")
        run_id = await a_run(ada, waiting_task(tmp_path))
        (pid,) = await eventually(lambda: lines_of(tmp_path / "started"))
        first.send_signal(signal.SIGSTOP)
        await workers.start("second")
        await eventually(lambda: len(lines_of(tmp_path / "started")) == 2)
        first.send_signal(signal.SIGCONT)
        await eventually(lambda: not is_alive(int(pid)))
        (tmp_path / "go").touch()
        assert (await finished(ada, run_id))["state"] == "succeeded"


class TestTaskProcessDies:
    async def test_a_killed_task_process_is_a_failure_with_its_reason(self, ada, runtime, tmp_path):
        async with working(runtime):
            run_id = await a_run(ada, waiting_task(tmp_path, retries=1, retry_delay_seconds=0.05))
            (pid,) = await eventually(lambda: lines_of(tmp_path / "started"))
            os.kill(int(pid), signal.SIGKILL)
            await eventually(lambda: len(lines_of(tmp_path / "started")) == 2)
            (tmp_path / "go").touch()
            assert (await finished(ada, run_id))["state"] == "succeeded"
        first, second = (await the_task(ada, run_id, "a"))["attempts"]
        assert (first["state"], first["exit_code"], second["state"]) == ("crashed", -9, "succeeded")
        assert "SIGKILL" in first["error"]["message"]


class TestTwoWorkers:
    async def test_a_worker_killed_again_and_again_loses_no_task_and_records_none_twice(self, ada, workers, tmp_path):
        trace = tmp_path / "trace"
        tasks = [a_task(f"t{n}", "mark_slowly", path=str(trace), text=str(n)) for n in range(60)]
        tasks.append(a_task("join", "total", values=[1], depends_on=[f"t{n}" for n in range(60)]))
        await workers.start("steady", slots=1)
        run_id = await a_run(ada, *tasks)
        for _ in range(2):
            enough = len(lines_of(trace)) + 5
            victim = await workers.start("victim", slots=2)

            def has_gone_on(enough: int = enough) -> bool:
                return len(lines_of(trace)) > enough

            await eventually(has_gone_on)
            victim.kill()
        run = await finished(ada, run_id)
        assert run["task_counts"] == {"succeeded": 61}
        assert {int(line) for line in lines_of(trace)} == set(range(60))
        listed = (await ada.http.get(f"/api/pipeline-runs/{run_id}/tasks")).json()["items"]
        for task in listed[:60]:
            attempts = (await the_task(ada, run_id, task["task"]))["attempts"]
            assert [attempt["state"] for attempt in attempts].count("succeeded") == 1
            assert attempts[-1]["number"] == len(attempts)

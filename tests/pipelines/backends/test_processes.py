"""Task processes: what they see, what they say, how they end."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlops_platform.contracts.pipelines import AttemptState
from mlops_platform.pipelines.backends.environment import child_environment
from mlops_platform.pipelines.backends.output import LineReader
from mlops_platform.pipelines.backends.processes import Assignment, Ended, PoolOptions, ProcessPool, TaskProcess
from tests.pipelines.eventually import eventually, is_alive, lines_of

HERE = Path(__file__).parents[1]
# The interpreter of the tests may stand where only root can reach it.
SYSTEM_PYTHON = Path("/usr/bin/python3")


def error_of(ended: Ended) -> Mapping[str, Any]:
    assert ended.error is not None
    return ended.error


class Harness:
    def __init__(self, pool: ProcessPool) -> None:
        self.pool = pool
        self.lines: list[tuple[str, str]] = []

    async def run(self, function: str, *, run="run", interrupt=None, environment=None, timeout=None, **arguments) -> Ended:
        assignment = Assignment(
            affinity=run,
            entry_point=function if ":" in function else f"user_code:{function}",
            arguments=arguments,
            environment=environment or {},
            timeout_seconds=timeout,
        )
        interrupt = interrupt or asyncio.get_running_loop().create_future()
        return await self.pool.execute(
            assignment, on_line=lambda stream, text: self.lines.append((stream, text)), interrupt=interrupt
        )


@contextlib.asynccontextmanager
async def harness(**options) -> AsyncIterator[Harness]:
    given: dict[str, Any] = {"paths": [HERE], "environment": child_environment(os.environ), "kill_grace_seconds": 0.3}
    pool = ProcessPool(PoolOptions(**(given | options)))
    try:
        yield Harness(pool)
    finally:
        await pool.close()


class TestResults:
    @pytest.mark.parametrize("value", [None, 1, 0.5, "ü\n", [1, {"a": [True]}], {"": "x" * 60_000}])
    async def test_a_json_value_comes_back_as_it_was(self, value):
        async with harness() as h:
            assert await h.run("give", value=value) == Ended(AttemptState.SUCCEEDED, result=value)

    async def test_a_coroutine_function_is_awaited(self):
        async with harness() as h:
            assert (await h.run("later", value=7)).result == 7

    async def test_a_scalar_of_numpy_is_a_number(self):
        async with harness() as h:
            assert (await h.run("numpy:float32")).result == 0.0

    @pytest.mark.parametrize("kind", ["set", "nan", "nul", "huge", "surrogate", "big"])
    async def test_what_cannot_be_stored_fails_the_attempt_and_not_the_worker(self, kind):
        async with harness() as h:
            ended = await h.run("give_odd", kind=kind)
            assert ended.state is AttemptState.FAILED
            assert "result" in error_of(ended)["message"]
            assert (await h.run("add", a=1, b=2)).result == 3

    async def test_an_exception_comes_with_the_users_frames_only(self):
        async with harness() as h:
            ended = await h.run("fail", message="bad\x00 \ud800 news")
            assert ended.state is AttemptState.FAILED
            assert error_of(ended)["type"] == "ValueError"
            assert "user_code.py" in error_of(ended)["traceback"]
            assert "task_process.py" not in error_of(ended)["traceback"]
            json.dumps(error_of(ended)["message"]).encode()
            assert "\x00" not in error_of(ended)["message"]

    @pytest.mark.parametrize("entry", ["user_code:ghost", "ghost:f", "user_code:HERE"])
    async def test_an_entry_point_that_is_not_there_fails(self, entry):
        async with harness() as h:
            assert (await h.run(entry)).state is AttemptState.FAILED

    async def test_a_task_that_leaves_without_an_answer_has_crashed(self):
        async with harness() as h:
            ended = await h.run("leave", code=3)
            assert (ended.state, ended.exit_code) == (AttemptState.CRASHED, 3)
            assert (await h.run("add", a=1, b=2)).result == 3


class TestIsolation:
    async def test_secrets_of_the_worker_do_not_reach_the_task(self):
        base = dict(os.environ) | {
            "POSTGRES_PASSWORD": "canary",
            "API_SECRET_KEY": "canary",
            "MLOPS_DATABASE_URL": "postgresql://canary",
            "MLOPS_STORAGE_KEY_FILE": "canary",
            "AWS_SECRET_ACCESS_KEY": "canary",
            "MLOPS_FEATURE_STORE_URL": "http://feature-store:8002",
        }
        async with harness(environment=child_environment(base)) as h:
            seen = (await h.run("environment", environment={"MLOPS_SERVICE_TOKEN": "t"})).result
        assert "canary" not in json.dumps(seen)
        assert seen["MLOPS_FEATURE_STORE_URL"] == "http://feature-store:8002"
        assert seen["MLOPS_SERVICE_TOKEN"] == "t"

    def test_the_operator_can_pass_a_variable_on_by_name(self):
        assert child_environment({"MY_FLAG": "1", "MY_SECRET": "2"}, passed=["MY_FLAG"]) == {"MY_FLAG": "1"}

    async def test_tasks_of_one_run_share_a_warm_process_and_other_runs_never(self):
        async with harness() as h:
            first, second = [(await h.run("process_id")).result for _ in range(2)]
            other = (await h.run("process_id", run="another")).result
        assert first == second != other

    async def test_the_token_of_the_task_before_is_gone(self):
        async with harness() as h:
            await h.run("process_id", environment={"MLOPS_ONLY_ONCE": "t"})
            assert "MLOPS_ONLY_ONCE" not in (await h.run("environment")).result

    async def test_a_process_ends_after_its_share_of_tasks(self):
        async with harness(tasks_per_process=2) as h:
            pids = [(await h.run("process_id")).result for _ in range(3)]
            assert pids[0] == pids[1] != pids[2]
            await eventually(lambda: not is_alive(pids[0]))

    async def test_an_idle_process_ends_by_itself(self):
        async with harness(idle_seconds=0.05) as h:
            pid = (await h.run("process_id")).result
            await eventually(lambda: not is_alive(pid))

    async def test_an_allowlist_refuses_other_modules_and_what_allowed_ones_borrowed(self):
        async with harness(allow=["user_code"]) as h:
            assert (await h.run("add", a=1, b=2)).result == 3
            for entry in ("os:getpid", "user_code:Path"):
                assert error_of(await h.run(entry))["type"] == "PermissionError"

    @pytest.mark.skipif(os.geteuid() != 0 or not SYSTEM_PYTHON.exists(), reason="needs root and an interpreter for all")
    async def test_tasks_of_another_user_cannot_read_what_the_worker_can(self, tmp_path):
        secret = tmp_path / "secret"
        secret.write_text("canary")
        secret.chmod(0o600)
        async with harness(run_as="nobody", python=str(SYSTEM_PYTHON)) as h:
            assert (await h.run("os:getuid")).result != 0
            assert error_of(await h.run("read", path=str(secret)))["type"] == "PermissionError"

    @pytest.mark.skipif(sys.platform != "linux" or not SYSTEM_PYTHON.exists(), reason="Linux with a system interpreter")
    @pytest.mark.parametrize(("is_protected", "exit_code"), [(True, 1), (False, 0)])
    async def test_a_protected_worker_shows_its_environment_to_no_task_of_its_user(self, is_protected, exit_code):
        look = "import os; open(f'/proc/{os.getppid()}/environ').read()"
        script = (
            "import subprocess, sys\n"
            "from mlops_platform.pipelines.backends.protection import refuse_inspection\n"
            f"assert refuse_inspection() if {is_protected} else True\n"
            f"command = [sys.executable, '-c', {look!r}]\n"
            "sys.exit(subprocess.run(command, stderr=subprocess.DEVNULL).returncode)\n"
        )
        other: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        process = await asyncio.create_subprocess_exec(
            str(SYSTEM_PYTHON), "-c", script, env={"PYTHONPATH": str(HERE.parents[1] / "src")}, cwd="/", **other
        )
        assert await process.wait() == exit_code


class TestOutput:
    async def test_lines_are_told_apart_by_stream_and_by_task(self):
        async with harness() as h:
            await h.run("say", lines=2, text="first")
            first, h.lines = h.lines, []
            await h.run("say", lines=1, text="second")
        assert sorted(first) == [("stderr", "no newline at the end"), ("stdout", "first 0"), ("stdout", "first 1")]
        assert sorted(h.lines) == [("stderr", "no newline at the end"), ("stdout", "second 0")]

    async def test_a_line_without_end_is_cut_into_pieces(self):
        async with harness() as h:
            await h.run("flood", megabytes=1)
        assert max(len(text) for _, text in h.lines) <= 8192
        assert sum(len(text) for _, text in h.lines) == 1024**2

    async def test_output_that_never_ends_a_line_does_not_gather_in_memory(self):
        stream = asyncio.StreamReader()
        reader, longest = LineReader(stream, "stdout"), 0

        def on_line(_stream: str, _text: str) -> None:
            nonlocal longest
            longest = max(longest, len(reader._rest))

        reading = asyncio.create_task(reader.read_until(b"marker", on_line))
        for _ in range(32):
            stream.feed_data(b"x" * 65536)
            await asyncio.sleep(0)
        stream.feed_eof()
        assert await reading is False
        assert longest < 5 * 65536


class TestEnding:
    async def test_a_task_past_its_time_is_stopped_and_may_clean_up(self, tmp_path):
        async with harness(kill_grace_seconds=10) as h:
            ended = await h.run("tidy", timeout=1.0, started=str(tmp_path / "s"), cleaned=str(tmp_path / "c"))
        assert ended.state is AttemptState.TIMED_OUT
        assert lines_of(tmp_path / "c") == ["x"]

    async def test_a_task_that_ignores_the_signal_is_killed_with_its_children(self, tmp_path):
        started = tmp_path / "s"
        async with harness() as h:
            interrupt = asyncio.get_running_loop().create_future()
            work = asyncio.create_task(
                h.run("stubborn", interrupt=interrupt, started=str(started), cleaned=str(tmp_path / "c"))
            )
            pids = json.loads((await eventually(lambda: lines_of(started)))[0])
            interrupt.set_result(AttemptState.CANCELLED)
            assert (await work).state is AttemptState.CANCELLED
            await eventually(lambda: not any(is_alive(pid) for pid in pids))

    async def test_a_killed_process_is_a_crash_that_names_the_signal(self, tmp_path):
        async with harness() as h:
            work = asyncio.create_task(h.run("wait_for", path=str(tmp_path / "never"), started=str(tmp_path / "s")))
            pid = int((await eventually(lambda: lines_of(tmp_path / "s")))[0])
            os.kill(pid, signal.SIGKILL)
            ended = await work
        assert ended.state is AttemptState.CRASHED
        assert "SIGKILL" in error_of(ended)["message"]

    async def test_a_signal_without_a_name_is_a_crash_that_gives_its_number(self):
        async with harness() as h:
            ended = await h.run("kill_own_process", signum=signal.SIGRTMIN + 6)
        assert ended.state is AttemptState.CRASHED
        assert "signal 40" in error_of(ended)["message"]

    async def test_a_process_that_died_while_it_was_idle_fails_no_task(self):
        async with harness() as h:
            pid = (await h.run("process_id")).result
            (idle,) = h.pool._idle["run"]
            os.kill(pid, signal.SIGKILL)
            await idle._process.wait()
            assert (await h.run("add", a=1, b=2)) == Ended(AttemptState.SUCCEEDED, result=3)

    async def test_an_orphan_ends_itself_when_its_worker_is_gone(self, tmp_path):
        options = PoolOptions(paths=[HERE], environment=child_environment(os.environ))
        process = await TaskProcess.start(options)
        assignment = Assignment(
            "r", "user_code:wait_for", {"path": str(tmp_path / "never"), "started": str(tmp_path / "s")}, {}
        )
        work = asyncio.create_task(process.run(assignment, lambda *_: None))
        await eventually(lambda: lines_of(tmp_path / "s"))
        process._control.close()
        assert (await work).state is AttemptState.CRASHED
        assert not is_alive(process.pid)

    async def test_closing_the_pool_leaves_no_process(self):
        async with harness() as h:
            await asyncio.gather(h.run("add", a=1, b=2), h.run("add", run="other", a=1, b=2))
            pids = h.pool.idle_pids
            assert len(pids) == 2
        assert not any(is_alive(pid) for pid in pids)

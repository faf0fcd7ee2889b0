"""The server is away: when a run starts, while it goes on, when its process is killed. Nothing is lost, order is kept."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from mlops_platform.sdk import AsyncPlatform, Platform
from mlops_platform.sdk.errors import ApiError
from mlops_platform.sdk.recorder import RecorderWarning
from mlops_platform.sdk.settings import Service
from tests.sdk.server import Road, fake_service, problem
from tests.sdk.test_heartbeat import silence
from tests.sdk.test_recorder import points_in, tracking_service
from tests.sdk.workers import log_fifty


@pytest.fixture
def nowhere():
    """An address at which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def said_in(recorded):
    return [str(each.message) for each in recorded if each.category is RecorderWarning]


class TestARunThatStartsWithoutTheServer:
    async def test_it_begins_here_with_one_warning_and_arrives_whole_and_in_order(self, connect):
        road = Road()
        road.is_broken = True
        client = connect(road, retries=1)

        def train():
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                run = client.tracking.start_run("early", run_name="first", parameters={"lr": 0.1}, tags={"a": "1"})
                for step in range(500):
                    run.log_metric("loss", 1 / (step + 1), step=step)
                    if step == 250:
                        run.log_params({"late": True})
                        assert run.flush() is False
                run.record_file(b"\x00\x01", "raw.bin")
                with run.child("inner") as inner:
                    inner.log_metric("score", 2)
                run.finish()
            return run, inner, said_in(said)

        run, inner, said = await asyncio.to_thread(train)
        assert len(said) == 1
        assert "begins without the server" in said[0]
        road.is_broken = False
        await asyncio.to_thread(run.flush)
        found = await asyncio.to_thread(client.tracking.get_run, run.id)
        assert (found.run_name, found.status, found.tags) == ("first", "FINISHED", {"a": "1"})
        assert found.parameters == {"lr": 0.1, "late": True}
        history = await asyncio.to_thread(client.tracking.history(run.id, "loss").all)
        assert [(point.step, point.value) for point in history] == [(step, 1 / (step + 1)) for step in range(500)]
        assert await asyncio.to_thread(client.tracking.read_artifact, run.id, "raw.bin") == b"\x00\x01"
        child = await asyncio.to_thread(client.tracking.get_run, inner.id)
        assert (child.parent_run_id, child.status, child.metrics) == (run.id, "FINISHED", {"score": 2.0})

    async def test_a_request_whose_answer_was_lost_makes_no_second_run(self, connect):
        road = Road()
        road.loses = lambda request: request.url.path.endswith("/runs")
        client = connect(road, retries=2)
        with pytest.warns(RecorderWarning, match="begins without the server"):
            run = await asyncio.to_thread(client.tracking.start_run, "once", parameters={"lr": 0.1})
        road.loses = lambda request: False
        run.log_metric("loss", 0.5)
        await asyncio.to_thread(run.finish)
        found = await asyncio.to_thread(client.tracking.search(experiments=["once"]).all)
        assert [(each.id, each.status, each.metrics) for each in found] == [(run.id, "FINISHED", {"loss": 0.5})]

    def test_runs_that_follow_do_not_wait_for_the_server_again(self, settings_for):
        asked = 0

        def overloaded(seen):
            nonlocal asked
            asked += 1
            return problem(503)

        with fake_service(overloaded) as service, Platform(settings=settings_for(service.url, retries=1)) as platform:
            with pytest.warns(RecorderWarning):
                platform.tracking.start_run("e")
            before = asked
            begun = time.monotonic()
            for _ in range(20):
                platform.tracking.start_run("e")
            assert time.monotonic() - begun < 2
            assert asked - before <= 2  # the recorder's own
            service.answer = tracking_service()

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_an_answer_that_may_be_another_later_does_not_hold_up_the_training(self, connected, status):
        is_away = True

        def answer(seen):
            return problem(status) if is_away else tracking_service()(seen)

        with connected(answer, retries=1) as (service, platform):
            with pytest.warns(RecorderWarning, match="begins without the server"):
                run = platform.tracking.start_run("e")
            run.log_metric("loss", 0.5, step=1)
            is_away = False
            service.seen.clear()
            run.finish()
            made, points, ended = [seen for seen in service.seen if seen.method != "GET"]
            assert made.json["id"] == run.id
            assert (points_in(points), ended.json["status"]) == ([("loss", 1, 0.5)], "FINISHED")

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
    def test_what_the_server_refuses_is_raised_where_the_run_is_started(self, connected, status):
        def answer(seen):
            return problem(status) if seen.path.endswith("/runs") else tracking_service()(seen)

        with connected(answer, retries=1) as (_, platform), pytest.raises(ApiError) as refused:
            platform.tracking.start_run("e")
        assert refused.value.status == status

    def test_warnings_that_are_errors_do_not_stop_the_training(self, settings_for, nowhere):
        with Platform(settings=settings_for(nowhere, retries=1)) as platform, warnings.catch_warnings():
            warnings.simplefilter("error")
            run = platform.tracking.start_run("e")
            run.log_metric("loss", 0.5)
            run.finish()

    async def test_the_asynchronous_client_begins_one_too(self, settings_for, nowhere):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            platform = AsyncPlatform(settings=settings_for(nowhere, retries=1))
            async with platform, platform.tracking.run("e") as run:
                run.log_metric("loss", 0.5)
        begins, waits = said_in(said)
        assert "begins without the server" in begins
        assert "3 requests have not reached the server" in waits


SCRIPT = """
import os, signal, warnings
warnings.simplefilter("ignore")
from mlops_platform.sdk import Platform
run = Platform().tracking.start_run("killed", parameters={"lr": 0.1})
print(run.id, flush=True)
for step in range(2500):
    run.log_metric("loss", step, step=step)
run.record_file(b"weights", "model.bin")
run.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


class TestAProcessThatIsKilled:
    async def test_what_it_had_spooled_is_recovered_by_the_next_process_whole_and_once(self, platform, connect, nowhere):
        client = connect(retries=1)
        settings = client.settings
        environment = os.environ | {
            "MLOPS_EXPERIMENT_TRACKING_URL": nowhere,
            "MLOPS_API_KEY": settings.credential,
            "MLOPS_HOME": str(settings.home),
            "MLOPS_CAPTURE": "0",
            "MLOPS_RETRIES": "1",
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        }
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        # The spool is of one address: the next process finds the server at the one that was down.
        road = Redirect(nowhere, settings.urls[Service.TRACKING])
        next_one = connect(road, urls=dict.fromkeys(Service, nowhere))
        delivered, remaining = await asyncio.to_thread(next_one.tracking.sync)
        assert (delivered >= 3, remaining) == (True, 0)
        run_id = done.stdout.strip()
        history = await asyncio.to_thread(client.tracking.history(run_id, "loss").all)
        assert [point.step for point in history] == list(range(2500))
        assert await asyncio.to_thread(client.tracking.read_artifact, run_id, "model.bin") == b"weights"
        # Nobody beats for it: it does not stay RUNNING for ever.
        assert (await asyncio.to_thread(client.tracking.get_run, run_id)).status == "RUNNING"
        await silence(platform, run_id)
        assert (await asyncio.to_thread(client.tracking.get_run, run_id)).status == "FAILED"


class Redirect(Road):
    """The server has come up at an address where nothing was before."""

    def __init__(self, before, now):
        super().__init__()
        self._before = before
        self._now = now

    def handle_request(self, request):
        request.url = type(request.url)(str(request.url).replace(self._before, self._now, 1))
        return super().handle_request(request)


def steps_by_key(service):
    found: dict[str, list[int]] = {}
    for seen in service.seen:
        for key, step, _ in points_in(seen) if seen.path.endswith("/metrics") else ():
            found.setdefault(key, []).append(step)
    return found


def record_in_a_fork(run, key):
    child = os.fork()
    if child == 0:
        log_fifty(run, key)
        os._exit(0 if run.flush(timeout_seconds=20) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forks_while_threads_record_lose_and_repeat_nothing(connected):
    stop = threading.Event()
    counts = [0, 0, 0]

    def record(run, number):
        while not stop.wait(0.0001):
            run.log_metric(f"thread{number}", counts[number], step=counts[number])
            counts[number] += 1

    with connected(tracking_service()) as (service, platform):
        with platform.tracking.run("e") as run:
            threads = [threading.Thread(target=record, args=(run, number)) for number in range(3)]
            for thread in threads:
                thread.start()
            for number in range(5):
                record_in_a_fork(run, f"fork{number}")
            stop.set()
            for thread in threads:
                thread.join()
        expected = {f"thread{number}": list(range(counts[number])) for number in range(3)}
        expected |= {f"fork{number}": list(range(50)) for number in range(5)}
        assert {key: sorted(steps) for key, steps in steps_by_key(service).items()} == expected


def test_a_value_that_was_never_a_time_is_refused_at_the_call(connected):
    with connected(tracking_service()) as (_, platform):
        run = platform.tracking.start_run("e")
        for wrong in (time.time(), time.time_ns(), "2026-01-01"):
            with pytest.raises(ValueError, match="no datetime"):
                run.log_metric("loss", 0.5, timestamp=wrong)
        with pytest.raises(ValueError, match="2000 to 2100"):
            run.log_metric("loss", 0.5, timestamp=run.info.created_at.replace(year=1970))

"""Runs say that their process lives; a process that dies is missed, and one that was only out of reach comes back."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.errors import ConfigurationError, PlatformUnreachable, RunHeld, api_error
from mlops_platform.sdk.heartbeat import Heart, new_writer, promised_seconds
from mlops_platform.sdk.recorder import RecorderWarning
from mlops_platform.sdk.settings import Service, load_client_settings
from mlops_platform.tracking.tables import run_leases
from mlops_platform.tracking.tasks import fail_silent_runs
from tests.sdk.server import Road, fake_service, problem
from tests.sdk.test_recorder import points_in, tracking_service

SECONDS = 30


def conflict(code):
    body = {"type": "about:blank", "title": "t", "status": 409, "code": code, "detail": "It is so."}
    return api_error(409, body, url="u")


class Line:
    """Stands for the way to the server: `answers` are raised one after the other, then all is well."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []
        self.said = []
        self.arrived = threading.Condition()

    def __call__(self, path, body):
        with self.arrived:
            self.sent.append((path.rpartition("/")[2], body["writer"]))
            self.arrived.notify_all()
            answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            answer()

    def warn(self, kind, message):
        self.said.append(message)

    def words(self):
        return [word for word, _ in self.sent]

    def wait_for(self, count):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.sent) >= count, SECONDS), self.sent


def beats(service):
    return [seen for seen in service.seen if seen.path.endswith("/heartbeat")]


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def beating(line, *, seconds=0.1):
    heart = Heart(line, line.warn)
    try:
        yield heart, heart.begin("r1", "w1", seconds)
    finally:
        heart.close()


class TestTheHeart:
    def test_it_beats_five_times_within_the_silence_that_is_allowed(self):
        assert promised_seconds(60) == 300
        line = Line()
        with beating(line):
            line.wait_for(3)
        assert set(line.sent) == {("heartbeat", "w1")}

    def test_one_thread_beats_for_all_runs_and_ends_with_the_last(self):
        line = Line()
        with beating(line) as (heart, first):
            second = heart.begin("r2", "w2", 0.1)
            thread = heart._thread
            line.wait_for(4)
            assert {writer for _, writer in line.sent} == {"w1", "w2"}
            first.stop()
            second.stop()
            thread.join(SECONDS)
            assert not thread.is_alive()
            count = len(line.sent)
            heart.begin("r3", "w3", 0.1)
            line.wait_for(count + 1)
            assert line.sent[-1] == ("heartbeat", "w3")

    def test_a_run_that_beats_often_does_not_wait_for_one_that_beats_seldom(self):
        class Bed(threading.Event):
            asleep = threading.Event()

            def wait(self, timeout=None):
                self.asleep.set()
                return super().wait(timeout)

        line = Line()
        heart = Heart(line, line.warn)
        heart._wake = Bed()
        try:
            heart.begin("r1", "seldom", 1000)
            assert Bed.asleep.wait(SECONDS)
            heart.begin("r2", "often", 0.1)
            line.wait_for(2)
        finally:
            heart.close()
        assert set(line.sent) == {("heartbeat", "often")}

    def test_a_run_that_was_taken_for_dead_is_resumed_and_beats_on(self):
        line = Line(None, conflict("run_fell_silent"))
        with beating(line):
            line.wait_for(4)
        assert line.words()[:4] == ["heartbeat", "heartbeat", "resume", "heartbeat"]
        assert line.said == []

    @pytest.mark.parametrize("answers", [[conflict("run_held")], [conflict("run_fell_silent"), conflict("run_held")]])
    def test_a_run_that_another_process_has_is_given_up_with_one_clear_word(self, answers):
        line = Line(*answers)
        with beating(line) as (heart, pulse):
            wait_until(lambda: heart._thread is None)
            assert pulse.is_lost
            assert len(line.sent) == len(answers)
        (said,) = line.said
        assert "Another process writes the run r1" in said
        assert "stored all the same" in said

    def test_a_run_that_somebody_ended_is_not_resumed(self):
        line = Line(conflict("run_not_running"))
        with beating(line) as (heart, pulse):
            wait_until(lambda: heart._thread is None)
            assert not pulse.is_lost
        assert line.words() == ["heartbeat"]
        assert "ended by somebody else" in line.said[0]

    @pytest.mark.parametrize(
        "answer",
        [
            PlatformUnreachable("away"),
            RuntimeError("not foreseen"),
            *(api_error(status, None, url="u") for status in (401, 403, 404, 429, 500, 503)),
            conflict("run_deleted"),
        ],
    )
    def test_it_goes_on_after_what_may_pass(self, answer):
        line = Line(answer, answer)
        with beating(line):
            line.wait_for(4)
        assert line.said == []

    def test_a_server_that_is_away_is_asked_once_and_not_for_each_run(self):
        line = Line(PlatformUnreachable("away"))
        with beating(line, seconds=1000) as (heart, first):
            pulses = [first, *(heart.begin(f"more{number}", "w", 1000) for number in range(50))]
            for pulse in pulses:
                pulse.next_at = 0
            heart._beat_due()
            assert line.words() == ["heartbeat"]
            assert all(100 / 5 < pulse.next_at - time.monotonic() < 50 for pulse in pulses)

    def test_the_end_waits_for_a_resumption_that_is_under_way(self):
        entered, go_on = threading.Event(), threading.Event()

        def slow():
            entered.set()
            go_on.wait(SECONDS)

        line = Line(conflict("run_fell_silent"), slow)
        with beating(line) as (_, pulse):
            assert entered.wait(SECONDS)
            ender = threading.Thread(target=pulse.stop)
            ender.start()
            ender.join(0.1)
            assert ender.is_alive()
            go_on.set()
            ender.join(SECONDS)
            assert not ender.is_alive()

    def test_no_resumption_follows_the_end(self):
        line = Line()
        with beating(line) as (_, pulse):
            line.answers = [conflict("run_fell_silent")]
            pulse.stop()
            pulse.beat(line)
        assert line.words() == ["heartbeat"]

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_beats_for_its_own_runs_alone(self, tmp_path):
        line = Line()
        with beating(line) as (heart, pulse):
            line.wait_for(1)
            child = os.fork()
            if child == 0:
                line.sent.clear()
                line.arrived = threading.Condition()
                heart.begin("r2", "child", 0.1)
                line.wait_for(3)
                (tmp_path / "sent.json").write_text(json.dumps(line.sent))
                os._exit(0)
            os.waitpid(child, 0)
            assert heart._thread.is_alive()
            assert not pulse.is_over
        assert {writer for _, writer in json.loads((tmp_path / "sent.json").read_text())} == {"child"}

    def test_without_a_thread_to_be_had_the_run_goes_on_and_it_is_said(self, monkeypatch):
        def refuse(self):
            raise RuntimeError("can't start new thread")

        line = Line()
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with beating(line):
            assert "take the run for dead" in line.said[0]

    def test_no_two_writers_have_one_name_and_it_says_where_they_are(self):
        one, other = new_writer(), new_writer()
        assert one != other
        assert one.startswith(f"{socket.gethostname()[:100]}:{os.getpid()}:")


class TestTheSetting:
    @pytest.mark.parametrize(("text", "seconds"), [(None, 60.0), ("0", 0.0), ("5", 5.0), ("0.5", 0.5)])
    def test_it_is_a_minute_unless_said_otherwise(self, tmp_path, text, seconds):
        environ = {"MLOPS_HOME": str(tmp_path)} | ({} if text is None else {"MLOPS_HEARTBEAT_SECONDS": text})
        assert load_client_settings(environ).heartbeat_seconds == seconds

    @pytest.mark.parametrize("text", ["-1", "often", "nan", "inf", "120961"])
    def test_what_the_server_could_not_wait_for_is_refused(self, tmp_path, text):
        with pytest.raises(ConfigurationError, match="MLOPS_HEARTBEAT_SECONDS"):
            load_client_settings({"MLOPS_HOME": str(tmp_path), "MLOPS_HEARTBEAT_SECONDS": text})


class TestARun:
    def test_it_promises_a_heartbeat_and_ends_in_the_name_of_its_writer(self, connected):
        with connected(tracking_service(), heartbeat_seconds=60) as (service, platform):
            with platform.tracking.run("e") as run:
                run.log_metric("loss", 1)
            begun = service.seen[1].json
            assert begun["heartbeat_seconds"] == 300
            assert service.seen[-1].json["writer"] == begun["writer"]

    def test_without_heartbeats_it_promises_none(self, connected):
        with connected(tracking_service(), heartbeat_seconds=0) as (service, platform):
            platform.tracking.start_run("e").finish()
            assert "writer" not in service.seen[1].json
            assert "writer" not in service.seen[-1].json

    async def test_it_beats_while_the_event_loop_is_blocked(self, settings_for, monkeypatch):
        monkeypatch.setattr("mlops_platform.sdk._async.delivery.promised_seconds", lambda interval: interval * 5)
        with fake_service(tracking_service()) as service:
            platform = AsyncPlatform(settings=settings_for(service.url, heartbeat_seconds=0.05))
            async with platform, platform.tracking.run("e"):
                wait_until(lambda: len(beats(service)) >= 3)  # without giving the loop a moment

    def test_a_run_that_another_process_took_is_not_ended_by_this_one(self, connected, monkeypatch):
        monkeypatch.setattr("mlops_platform.sdk._sync.delivery.promised_seconds", lambda interval: interval * 5)
        service_answer = tracking_service()

        def answer(seen):
            return problem(409, "run_held") if seen.path.endswith("/heartbeat") else service_answer(seen)

        with connected(answer, heartbeat_seconds=0.05) as (service, platform), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run = platform.tracking.start_run("e")
            wait_until(lambda: run._pulse.is_lost)
            run.log_metric("loss", 0.5, step=7)
            run.finish()
            assert [seen.method for seen in service.seen if seen.method == "PATCH"] == []
            assert points_in(service.seen[-1]) == [("loss", 7, 0.5)]
        assert len([each for each in said if each.category is RecorderWarning]) == 1

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_worker_that_leaves_the_block_does_not_end_its_parents_run(self, connected):
        with connected(tracking_service(), heartbeat_seconds=60) as (service, platform):
            with platform.tracking.run("e") as run:

                def work():
                    with run:
                        run.log_metric("loss", 0.5, step=3)
                    run.finish("KILLED")

                worker = multiprocessing.get_context("fork").Process(target=work)
                worker.start()
                worker.join(SECONDS)
                assert worker.exitcode == 0
                assert [seen for seen in service.seen if seen.method == "PATCH"] == []
            assert [point for seen in service.seen if seen.path.endswith("/metrics") for point in points_in(seen)] == [
                ("loss", 3, 0.5)
            ]
            assert [seen.json["status"] for seen in service.seen if seen.method == "PATCH"] == ["FINISHED"]


async def silence(platform, run_id):
    """As if the server had heard nothing for an hour."""
    async with platform.runtime.database.write() as session:
        earlier = datetime.now(UTC) - timedelta(hours=1)
        await session.execute(update(run_leases).where(run_leases.c.run_id == run_id).values(due_at=earlier))
    await fail_silent_runs(platform.runtime, None)


async def eventually(condition):
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # what it waits for lies with the server
            await asyncio.sleep(0.02)


class TestWithTheServer:
    async def test_a_process_that_is_killed_leaves_a_failed_run_and_all_that_it_had_delivered(self, platform, connect):
        client = connect()
        settings = client.settings
        script = """
import os, signal
from mlops_platform.sdk import Platform
run = Platform().tracking.start_run("killed")
for step in range(700):
    run.log_metric("loss", step, step=step)
run.flush()
print(run.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        environment = os.environ | {
            "MLOPS_EXPERIMENT_TRACKING_URL": settings.urls[Service.TRACKING],
            "MLOPS_API_KEY": settings.credential,
            "MLOPS_HOME": str(settings.home),
            "MLOPS_CAPTURE": "0",
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        }
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        run_id = done.stdout.strip()
        assert (await asyncio.to_thread(client.tracking.get_run, run_id)).status == "RUNNING"
        await silence(platform, run_id)
        found = await asyncio.to_thread(client.tracking.get_run, run_id)
        assert found.status == "FAILED"
        assert f"{socket.gethostname()[:100]}:" in found.status_reason
        history = await asyncio.to_thread(client.tracking.history(run_id, "loss").all)
        assert [point.step for point in history] == list(range(700))

    async def test_a_run_lives_on_when_the_server_heard_nothing_for_an_hour(self, platform, connect):
        road = Road()
        client = connect(road)
        run = await asyncio.to_thread(client.tracking.start_run, "e")
        road.is_broken = True
        for step in range(300):
            run.log_metric("loss", step / 7, step=step)
            if step % 50 == 0:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert await asyncio.to_thread(run.flush) is False
        await silence(platform, run.id)
        watcher = connect(heartbeat_seconds=0)
        assert (await asyncio.to_thread(watcher.tracking.get_run, run.id)).status == "FAILED"
        road.is_broken = False
        await eventually(lambda: watcher.tracking.get_run(run.id).status == "RUNNING")
        run.log_metric("loss", 300 / 7, step=300)
        await asyncio.to_thread(run.finish)
        found = await asyncio.to_thread(watcher.tracking.get_run, run.id)
        assert (found.status, found.status_reason) == ("FINISHED", None)
        history = await asyncio.to_thread(watcher.tracking.history(run.id, "loss").all)
        assert [(point.step, point.value) for point in history] == [(step, step / 7) for step in range(301)]
        times = [point.timestamp for point in history]
        assert times == sorted(times)

    async def test_of_two_processes_that_resume_one_run_one_has_it_and_the_other_is_told(self, connect):
        first, second = connect(), connect()
        run = await asyncio.to_thread(first.tracking.start_run, "e")
        await asyncio.to_thread(run.finish)
        answers = await asyncio.gather(
            *(asyncio.to_thread(client.tracking.resume_run, run.id) for client in (first, second)), return_exceptions=True
        )
        (held,) = [answer for answer in answers if isinstance(answer, RunHeld)]
        (resumed,) = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert resumed._pulse.writer in held.message
        await asyncio.to_thread(resumed.finish)
        assert (await asyncio.to_thread(first.tracking.get_run, run.id)).status == "FINISHED"

    async def test_who_loses_a_run_records_on_and_does_not_end_it(self, connect):
        first, second = connect(), connect()
        old = await asyncio.to_thread(first.tracking.start_run, "e")
        with pytest.raises(RunHeld, match=old._pulse.writer):
            await asyncio.to_thread(second.tracking.resume_run, old.id)
        new = await asyncio.to_thread(second.tracking.resume_run, old.id, take_over=True)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            await eventually(lambda: old._pulse.is_lost)
            old.log_metric("loss", 0.25, step=1)
            await asyncio.to_thread(old.finish, "FAILED")
        assert len([each for each in said if each.category is RecorderWarning]) == 1
        found = await asyncio.to_thread(second.tracking.get_run, old.id)
        assert (found.status, found.metrics) == ("RUNNING", {"loss": 0.25})
        await asyncio.to_thread(new.finish)
        assert (await asyncio.to_thread(second.tracking.get_run, old.id)).status == "FINISHED"

    async def test_who_joins_a_run_records_into_it_and_does_not_end_it(self, connect):
        first, second = connect(), connect()
        run = await asyncio.to_thread(first.tracking.start_run, "e")

        def work():
            with second.tracking.join_run(run.id) as joined:
                joined.log_metric("rank1/loss", 0.5)

        await asyncio.to_thread(work)
        found = await asyncio.to_thread(first.tracking.get_run, run.id)
        assert (found.status, found.metrics) == ("RUNNING", {"rank1/loss": 0.5})
        await asyncio.to_thread(run.finish)

    async def test_a_client_that_promises_nothing_keeps_what_the_run_had_promised(self, connect):
        first, second = connect(), connect(heartbeat_seconds=0)
        run = await asyncio.to_thread(first.tracking.start_run, "e")
        await asyncio.to_thread(run.finish)
        resumed = await asyncio.to_thread(second.tracking.resume_run, run.id)
        assert resumed._pulse.seconds == promised_seconds(1)
        await asyncio.to_thread(resumed.finish)

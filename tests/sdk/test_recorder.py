"""Metrics survive a server that is away, slow or stubborn, and never hold up the training."""

import concurrent.futures
import json
import math
import multiprocessing
import os
import socket
import stat
import statistics
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from mlops_platform.sdk import AsyncPlatform, Platform
from mlops_platform.sdk.errors import PlatformUnreachable, api_error
from mlops_platform.sdk.recorder import Recorder, RecorderWarning
from mlops_platform.sdk.spool import Delivery, Spool
from mlops_platform.sdk.wire import NotSerialisable, encode
from tests.sdk.server import Reply, fake_service, problem

NOW = "2026-01-01T00:00:00Z"
EXPERIMENT = {
    "id": "1" * 32,
    "name": "e",
    "tags": {},
    "runs": {},
    "run_count": 0,
    "created_by": "ada",
    "created_at": NOW,
    "updated_at": NOW,
}
RUN = {
    "id": "2" * 32,
    "experiment_id": "1" * 32,
    "run_name": "r",
    "status": "RUNNING",
    "parameters": {},
    "tags": {},
    "metrics": {},
    "created_at": NOW,
    "updated_at": NOW,
}


def tracking_service(*, away=lambda: False, refuse=lambda seen: False):
    """Answers as Experiment Tracking does; 503 for what is recorded while `away()`, 422 for what `refuse` names."""

    def answer(seen):
        if seen.method == "GET" and seen.path.startswith("/api/experiments"):
            return Reply(200, {"items": [EXPERIMENT], "next_page_token": None})
        if seen.path.endswith("/runs"):
            return Reply(201, RUN)
        if away():
            return problem(503)
        if refuse(seen):
            return problem(422)
        return Reply(200, RUN if seen.method == "PATCH" else {"accepted": 1, "stored": 1, "duplicates": 0})

    return answer


def points_in(seen):
    """(key, step, value) of every metric in a request."""
    return [
        (key, body.get("step"), value)
        for body in seen.json
        for key, value in body.items()
        if key not in {"step", "timestamp"}
    ]


class Sink:
    """Stands for the way to the server."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refuse = lambda body: False
        self.sent: list[Delivery] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, delivery: Delivery) -> None:
        self.gate.wait(10)
        encode(delivery.body)
        if self.error is not None:
            raise self.error
        if self.refuse(delivery.body):
            raise api_error(422, None, url="u")
        self.sent.append(delivery)

    def points(self):
        return [
            (key, body.get("step"), value)
            for delivery in self.sent
            if delivery.path == "/m"
            for body in delivery.body
            for key, value in body.items()
            if key not in {"step", "timestamp"}
        ]


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", "http://x", "default")


@pytest.fixture
def recorder(sink, spool):
    made = Recorder(sink, spool, interval_seconds=60)
    yield made
    sink.gate.set()
    sink.error = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.close(timeout_seconds=5)


UNREACHABLE = PlatformUnreachable("away")


class TestTheWayToTheServer:
    def test_what_was_recorded_arrives_in_order(self, recorder, sink):
        for step in range(2500):
            recorder.point("/m", "loss", step / 10, step, 1000 + step)
        assert recorder.flush()
        assert sink.points() == [("loss", step, step / 10) for step in range(2500)]
        assert all(len(delivery.body) <= 1000 for delivery in sink.sent)

    def test_values_of_one_step_and_time_share_a_body(self, recorder, sink):
        recorder.point("/m", "loss", 1.0, 7, 1000)
        recorder.point("/m", "accuracy", 2.0, 7, 1000)
        recorder.flush()
        assert sink.sent[0].body == [{"loss": 1.0, "accuracy": 2.0, "step": 7, "timestamp": 1000}]

    def test_the_same_metric_twice_in_one_moment_keeps_both_values(self, recorder, sink):
        recorder.point("/m", "loss", 1.0, 7, 1000)
        recorder.point("/m", "loss", 2.0, 7, 1000)
        recorder.flush()
        assert sink.points() == [("loss", 7, 1.0), ("loss", 7, 2.0)]

    def test_nan_and_infinities_travel_as_strings(self, recorder, sink):
        for value in (math.nan, math.inf, -math.inf):
            recorder.point("/m", "loss", value, None, 1000)
        recorder.flush()
        assert [value for _, _, value in sink.points()] == ["NaN", "Infinity", "-Infinity"]
        json.dumps(sink.sent[0].body, allow_nan=False)

    def test_a_request_follows_the_points_before_it(self, recorder, sink):
        recorder.point("/m", "loss", 1.0, 1, 1000)
        recorder.request("PATCH", "/run", {"status": "FINISHED"})
        recorder.point("/m", "loss", 2.0, 2, 1000)
        recorder.flush()
        assert [delivery.path for delivery in sink.sent] == ["/m", "/run", "/m"]


class TestWhileTheServerIsAway:
    def test_nothing_is_lost_and_all_arrives_in_order_when_it_is_back(self, recorder, sink, spool):
        sink.error = UNREACHABLE
        recorder.point("/m", "loss", 0.5, 0, 1000)
        with pytest.warns(RecorderWarning, match="wait in"):
            recorder.flush()
        for step in range(1, 50):
            recorder.point("/m", "loss", 0.5, step, 1000)
            if step % 10 == 9:
                assert recorder.flush() is False
        recorder.request("PATCH", "/run", {"status": "FINISHED"})
        assert list(spool.own())
        sink.error = None
        assert recorder.flush() is True
        assert sink.points() == [("loss", step, 0.5) for step in range(50)]
        assert sink.sent[-1].path == "/run"
        assert list(spool.all()) == []

    def test_a_spooled_request_keeps_its_idempotency_key(self, recorder, sink, spool):
        sink.error = UNREACHABLE
        recorder.request("POST", "/p", {})
        with pytest.warns(RecorderWarning):
            recorder.flush()
        (waiting,) = spool.own()
        key = spool.read(waiting).idempotency_key
        sink.error = None
        recorder.flush()
        assert [delivery.idempotency_key for delivery in sink.sent] == [key]

    def test_the_warning_is_said_once(self, recorder, sink):
        sink.error = UNREACHABLE
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(5):
                recorder.point("/m", "loss", 0.5, step, 1000)
                recorder.flush()
        assert len([warning for warning in said if warning.category is RecorderWarning]) == 1

    @pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
    def test_an_answer_that_may_change_keeps_the_data(self, recorder, sink, spool, status):
        sink.error = api_error(status, None, url="u")
        recorder.point("/m", "loss", 0.5, 1, 1000)
        with pytest.warns(RecorderWarning):
            recorder.flush()
        assert len(list(spool.own())) == 1

    def test_files_are_for_their_owner_alone(self, recorder, sink, spool):
        sink.error = UNREACHABLE
        recorder.point("/m", "loss", 0.5, 1, 1000)
        with pytest.warns(RecorderWarning):
            recorder.flush()
        (waiting,) = spool.own()
        assert stat.S_IMODE(waiting.stat().st_mode) == 0o600
        assert stat.S_IMODE(waiting.parent.stat().st_mode) == 0o700

    def test_a_full_disk_warns_and_does_not_raise(self, recorder, sink, monkeypatch):
        sink.error = UNREACHABLE

        def full(self, delivery):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Spool, "append", full)
        recorder.point("/m", "loss", 0.5, 1, 1000)
        with pytest.warns(RecorderWarning) as said:
            recorder.flush()
        assert any("was lost" in str(warning.message) for warning in said)

    def test_warnings_as_errors_do_not_reach_the_training(self, recorder, sink):
        sink.error = UNREACHABLE
        recorder.point("/m", "loss", 0.5, 1, 1000)
        assert recorder.flush() is False

    def test_a_hanging_server_does_not_hold_up_the_end(self, recorder, sink, spool):
        sink.gate.clear()
        recorder.point("/m", "loss", 0.5, 1, 1000)
        recorder._wake.set()
        deadline = time.monotonic() + 5
        while not recorder._held and time.monotonic() < deadline:
            time.sleep(0.005)
        recorder.point("/m", "loss", 0.6, 2, 1000)
        start = time.monotonic()
        assert recorder.flush(timeout_seconds=0.1) is False
        assert time.monotonic() - start < 2
        kept = [spool.read(path).body[0]["step"] for path in spool.own()]
        assert sorted(kept) == [1, 2]


class TestSpoolsThatAreNotAsTheyShouldBe:
    @pytest.mark.parametrize("content", [b"", b'{"method": "POST"', b"[1]", b'{"strange": 1}', b"\xff\xfe"])
    def test_a_file_that_is_no_request_is_set_aside_and_the_others_are_sent(self, recorder, sink, spool, content):
        spool.append(Delivery("POST", "/p", {"n": 1}, "first")).write_bytes(content)
        spool.append(Delivery("POST", "/p", {"n": 2}, "second"))
        with pytest.warns(RecorderWarning, match="set aside"):
            assert recorder.flush() is True
        assert [delivery.idempotency_key for delivery in sink.sent] == ["second"]
        (aside,) = spool.directory.glob("*.rejected")
        assert aside.read_bytes() == content

    def test_a_home_that_is_a_file_loses_only_what_the_server_did_not_take(self, sink, tmp_path):
        (tmp_path / "file").write_text("")
        recorder = Recorder(sink, Spool(tmp_path / "file", "http://x", None), interval_seconds=60)
        recorder.point("/m", "loss", 0.5, 1, 1000)
        assert recorder.flush() is True
        sink.error = UNREACHABLE
        recorder.point("/m", "loss", 0.5, 2, 1000)
        with pytest.warns(RecorderWarning) as said:
            assert recorder.flush() is False
        assert any("was lost" in str(warning.message) for warning in said)
        assert sink.points() == [("loss", 1, 0.5)]
        recorder.close(timeout_seconds=5)


class TestWhatCallersGive:
    def test_numbers_of_numpy_wait_on_the_disk_like_others(self, recorder, sink):
        sink.error = UNREACHABLE
        recorder.point("/m", "loss", 0.5, np.int64(7), 1000)
        recorder.request("POST", "/p", {"parameters": {"lr": np.float32(0.5), "layers": np.arange(2)}})
        with pytest.warns(RecorderWarning, match="wait in"):
            recorder.flush()
        sink.error = None
        assert recorder.flush() is True
        assert sink.points() == [("loss", 7, 0.5)]
        assert sink.sent[-1].body == {"parameters": {"lr": 0.5, "layers": [0, 1]}}

    def test_what_json_cannot_carry_is_refused_at_the_call(self, recorder, sink):
        with pytest.raises(NotSerialisable, match="type object"):
            recorder.request("POST", "/p", {"parameters": {"model": object()}})
        assert recorder.flush() is True
        assert sink.sent == []

    def test_a_request_says_what_was_given_and_not_what_became_of_it(self, recorder, sink):
        parameters = {"layers": [1, 2]}
        recorder.request("POST", "/p", parameters)
        parameters["layers"].append(3)
        recorder.flush()
        assert sink.sent[0].body == {"layers": [1, 2]}

    def test_a_step_that_is_nonsense_loses_its_own_point_alone(self, recorder, sink):
        for step in (1, object(), 3):
            recorder.point("/m", "loss", 0.5, step, 1000)
        with pytest.warns(RecorderWarning, match="was lost"):
            recorder.flush()
        assert sink.points() == [("loss", 1, 0.5), ("loss", 3, 0.5)]


class TestTroubleOfOurOwn:
    @pytest.mark.parametrize("error", [RuntimeError("not foreseen"), concurrent.futures.CancelledError()])
    def test_an_error_that_nobody_foresaw_loses_nothing_and_reaches_no_training(self, recorder, sink, error):
        sink.error = error
        recorder.point("/m", "loss", 0.5, 1, 1000)
        with pytest.warns(RecorderWarning, match="wait in"):
            assert recorder.flush() is False
        sink.error = None
        assert recorder.flush() is True
        assert sink.points() == [("loss", 1, 0.5)]

    def test_without_a_thread_to_be_had_what_is_recorded_is_delivered_at_the_end(self, recorder, sink, monkeypatch):
        def refuse(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.warns(RecorderWarning, match="waits in memory"):
            recorder.point("/m", "loss", 0.5, 1, 1000)
        assert recorder.flush() is True
        assert sink.points() == [("loss", 1, 0.5)]


class TestRefusals:
    def test_a_run_that_is_gone_costs_one_request_for_each_batch_and_not_one_for_each_point(self, recorder, sink, spool):
        asked = 0

        def gone(delivery):
            nonlocal asked
            asked += 1
            raise api_error(404, None, url="u")

        recorder._send = gone
        for step in range(1000):
            recorder.point("/m", "loss", 0.5, step, 1000)
        with pytest.warns(RecorderWarning, match="set aside"):
            recorder.flush()
        (aside,) = spool.directory.glob("*.rejected")
        assert (asked, len(spool.read(aside).body)) == (1, 1000)

    def test_one_bad_point_does_not_take_its_batch_with_it(self, recorder, sink, spool):
        sink.refuse = lambda body: any(point.get("bad") is not None for point in body)
        for step in range(100):
            recorder.point("/m", "bad" if step == 37 else "loss", 0.5, step, 1000)
        with pytest.warns(RecorderWarning, match="set aside"):
            recorder.flush()
        assert sorted(step for _, step, _ in sink.points()) == [step for step in range(100) if step != 37]
        (aside,) = spool.directory.glob("*.rejected")
        assert spool.read(aside).body == [{"bad": 0.5, "step": 37, "timestamp": 1000}]


class TestAnHourOfAbsence:
    def test_it_is_sent_in_a_few_requests_in_order_and_keeps_what_lies_between(self, recorder, sink, spool):
        sink.error = UNREACHABLE
        recorder.point("/m", "loss", 0.5, 0, 1000)
        with pytest.warns(RecorderWarning):
            recorder.flush()
        for step in range(1, 1200):
            recorder.point("/m", "loss", 0.5, step, 1000)
            if step == 601:
                recorder.request("PATCH", "/run", {"tags": {"a": "b"}})
            if step % 2:
                recorder._deliver(math.inf)
        assert len(list(spool.own())) > 600
        sink.error = None
        assert recorder.flush() is True
        assert sink.points() == [("loss", step, 0.5) for step in range(1200)]
        assert len(sink.sent) < 10
        before = sum(len(delivery.body) for delivery in sink.sent[: [it.path for it in sink.sent].index("/run")])
        assert before == 602

    def test_one_file_that_is_refused_among_many_is_set_aside_alone(self, recorder, sink, spool):
        for number in range(20):
            spool.append(Delivery("POST", "/m", [{("bad" if number == 7 else "loss"): 1.0, "step": number}], f"k{number}"))
        sink.refuse = lambda body: any("bad" in point for point in body)
        with pytest.warns(RecorderWarning, match="set aside"):
            assert recorder.flush() is True
        assert [step for _, step, _ in sink.points()] == [step for step in range(20) if step != 7]
        (aside,) = spool.directory.glob("*.rejected")
        assert spool.read(aside).body == [{"bad": 1.0, "step": 7}]

    def test_a_server_that_goes_away_again_leaves_the_rest_as_it_was(self, recorder, sink, spool):
        for number in range(30):
            spool.append(Delivery("POST", f"/m{number // 10}", [{"loss": 1.0, "step": number}], f"k{number}"))
        sink.refuse = lambda body: False
        real = recorder._send

        def once(delivery):
            if delivery.path != "/m0":
                raise UNREACHABLE
            real(delivery)

        recorder._send = once
        with pytest.warns(RecorderWarning):
            assert recorder.flush() is False
        assert len(list(spool.own())) == 20


class TestMemory:
    def test_a_loop_that_outruns_the_thread_goes_to_the_disk(self, recorder, sink, monkeypatch):
        monkeypatch.setattr("mlops_platform.sdk.recorder.QUEUE_POINTS", 5000)
        sink.gate.clear()
        for step in range(12_000):
            recorder.point("/m", "loss", 0.5, step, 1000)
            assert len(recorder._queue) <= 5000
        sink.gate.set()
        assert recorder.flush(timeout_seconds=60)
        assert len({step for _, step, _ in sink.points()}) == 12_000


class TestProcesses:
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_records_its_own_points_and_not_its_parents(self, recorder, sink, tmp_path):
        sink.gate.clear()
        recorder.point("/m", "parent", 1.0, 1, 1000)
        report = tmp_path / "child.json"
        child = os.fork()
        if child == 0:
            sink.gate.set()
            sink.sent.clear()
            recorder.point("/m", "child", 2.0, 1, 1000)
            recorder.flush(timeout_seconds=5)
            report.write_text(json.dumps(sink.points()))
            os._exit(0)
        os.waitpid(child, 0)
        sink.gate.set()
        recorder.flush()
        assert json.loads(report.read_text()) == [["child", 1, 2.0]]
        assert sink.points() == [("parent", 1, 1.0)]

    def test_what_a_dead_process_left_is_sent_by_the_next(self, recorder, sink, spool):
        left = Delivery("POST", "/m", [{"loss": 1.0, "step": 3, "timestamp": 1}], "key")
        path = spool.append(left)
        ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{ended.stdout.decode().strip()}-")))
        recorder.point("/m", "loss", 2.0, 4, 1000)
        recorder.flush()
        assert ("loss", 3, 1.0) in sink.points()
        assert list(spool.all()) == []

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_worker_of_multiprocessing_delivers_before_it_ends(self, connected):
        with connected(tracking_service()) as (service, platform):
            run = platform.tracking.start_run("e")
            worker = multiprocessing.get_context("fork").Process(target=run.log_metric, args=("loss", 0.5))
            worker.start()
            worker.join(30)
            assert worker.exitcode == 0
            assert [point for seen in service.seen if seen.path.endswith("/metrics") for point in points_in(seen)] == [
                ("loss", None, 0.5)
            ]


class TestCost:
    def test_a_call_costs_microseconds_on_the_callers_thread(self, recorder):
        # Far above what is measured (see benchmarks): this catches a lock or a request on the caller's path, not noise.
        costs = []
        for step in range(5000):
            start = time.perf_counter_ns()
            recorder.point("/m", "loss", 0.5, step, 1000)
            costs.append(time.perf_counter_ns() - start)
        assert statistics.median(costs) < 50_000


class TestARun:
    def test_it_ends_finished_with_all_its_metrics(self, connected):
        with connected(tracking_service()) as (service, platform):
            with platform.tracking.run("e", run_name="r", parameters={"lr": 0.1}) as run:
                run.log_metric("loss", 0.5, step=1)
                run.log_metrics({"loss": 0.4, "accuracy": 0.9}, step=2)
            begun = service.seen[1].json
            assert set(begun) == {"id", "start_time", "run_name", "parameters"}
            assert (begun["run_name"], begun["parameters"]) == ("r", {"lr": 0.1})
            metrics, ended = service.seen[2:]
            assert set(points_in(metrics)) == {("loss", 1, 0.5), ("loss", 2, 0.4), ("accuracy", 2, 0.9)}
            assert ended.json["status"] == "FINISHED"

    def test_its_end_is_one_moment(self, connected, monkeypatch):
        with connected(tracking_service()) as (service, platform):
            run = platform.tracking.start_run("e")
            monkeypatch.setattr(time, "time_ns", lambda: 1_767_225_600_000_001_999)
            run.finish()
        assert service.seen[-1].json["end_time"] == "2026-01-01T00:00:00.000001Z"

    @pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
    def test_an_exception_ends_it_and_goes_on(self, connected, error, status):
        with connected(tracking_service()) as (service, platform):
            with pytest.raises(error), platform.tracking.run("e"):
                raise error
            assert service.seen[-1].json["status"] == status

    @pytest.mark.parametrize("key", ["", "step", "timestamp", "a\nb", "x" * 251, 7])
    def test_a_key_that_cannot_be_is_refused_at_the_call(self, connected, key):
        with connected(tracking_service()) as (_, platform):
            run = platform.tracking.start_run("e")
            with pytest.raises(ValueError, match="cannot be a metric"):
                run.log_metric(key, 0.5)

    def test_a_training_goes_on_and_ends_well_while_the_server_is_away(self, connected, settings_for):
        is_away = False
        with connected(tracking_service(away=lambda: is_away)) as (service, platform):
            run = platform.tracking.start_run("e")
            is_away = True
            run.log_param("late", 1)
            for step in range(100):
                run.log_metric("loss", 0.5, step=step)
            with pytest.warns(RecorderWarning):
                run.finish()
            is_away = False
            service.seen.clear()
            with Platform(settings=settings_for(service.url)) as later:
                delivered, remaining = later.tracking.sync()
            assert (delivered, remaining) == (3, 0)
            assert [seen.path.rsplit("/", 1)[1] for seen in service.seen[:2]] == ["params", "metrics"]
            assert len(points_in(service.seen[1])) == 100
            assert service.seen[2].json["status"] == "FINISHED"

    def test_a_script_that_forgets_everything_still_delivers_at_its_exit(self, connected, tmp_path):
        script = """
from mlops_platform.sdk import Platform
run = Platform().tracking.start_run("e")
run.log_metric("loss", 0.25, step=9)
"""
        with connected(tracking_service()) as (service, _):
            environment = os.environ | {
                "MLOPS_EXPERIMENT_TRACKING_URL": service.url,
                "MLOPS_HOME": str(tmp_path / "other"),
                "MLOPS_CAPTURE": "0",
                "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
            }
            subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
            assert points_in(service.seen[-1]) == [("loss", 9, 0.25)]

    def test_a_command_starts_no_run_without_a_server_and_says_so(self, settings_for):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            settings = settings_for(f"http://127.0.0.1:{taken.getsockname()[1]}", retries=1, must_reach=True)
            with Platform(settings=settings) as platform, pytest.raises(PlatformUnreachable, match="mlops up"):
                platform.tracking.start_run("e")


class TestAnAsynchronousRun:
    async def test_it_records_through_the_loop_that_started_it(self, settings_for):
        with fake_service(tracking_service()) as service:
            platform = AsyncPlatform(settings=settings_for(service.url))
            async with platform, platform.tracking.run("e") as run:
                for step in range(10):
                    run.log_metric("loss", 0.5, step=step)
                assert await run.flush()
            points = [point for seen in service.seen if seen.path.endswith("/metrics") for point in points_in(seen)]
            assert sorted(step for _, step, _ in points) == list(range(10))
            assert service.seen[-1].json["status"] == "FINISHED"

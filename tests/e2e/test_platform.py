"""The platform as a newcomer meets it: started by `mlops up`, used by the CLI and the scripts, killed, started again."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mlops_platform.sdk.settings import Service
from tests.factories.running import (
    ROOT,
    RunningPlatform,
    alive,
    end,
    environment,
    eventually,
    free_ports,
    is_listening,
    mlops,
    platform_home,
    run,
    running,
)

# A loaded machine starts five services and a database slowly.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def told(shared) -> subprocess.CompletedProcess[str]:
    """What one run of the demo said."""
    return shared.mlops("demo", "-o", "json", timeout=200)


class TestDemo:
    def test_it_does_all_five_steps(self, told):
        assert told.returncode == 0, told.stderr
        assert [line.split("  ")[0] for line in told.stderr.splitlines() if line[1:3] == "/5"] == [
            f"{number}/5" for number in range(1, 6)
        ]
        assert "confidence interval" in told.stderr

    def test_the_champion_is_one_of_the_two_registered_versions(self, shared, told):
        outcome = json.loads(told.stdout)
        with shared.client() as platform:
            champion = platform.registry.get_version(outcome["model"], "@champion")
            versions = {version.version for version in platform.registry.versions(outcome["model"])}
        assert champion.version == outcome["champion"]
        assert champion.version in versions
        assert champion.status == "ready"

    def test_every_held_out_patient_counts(self, shared, told):
        outcome = json.loads(told.stdout)
        with shared.client() as platform:
            results = platform.ab.results(outcome["ab_test"])
        assert results.units == outcome["units"] == 228
        assert sum(arm.n for arm in results.metrics[0].variants) == 228

    def test_candidates_are_finished_runs_with_metrics_of_each_stage(self, shared, told):
        outcome = json.loads(told.stdout)
        with shared.client() as platform:
            runs = list(platform.tracking.search(experiments=[outcome["experiment"]]))
            history = list(platform.tracking.history(runs[0].id, "validation_log_loss"))
        assert len(runs) == 6
        assert {run.status for run in runs} == {"FINISHED"}
        assert [point.step for point in history] == list(range(1, 21))

    def test_lineage_goes_from_the_alias_back_to_the_feature_set(self, shared, told):
        outcome = json.loads(told.stdout)
        traced = shared.mlops("lineage", f"{outcome['model']}@champion")
        assert traced.returncode == 0, traced.stderr
        for name in (outcome["training_set_id"], outcome["pipeline_run_id"], f"{outcome['feature_set']}/1"):
            assert name in traced.stdout

    def test_every_command_that_it_names_as_the_next_works(self, shared, told):
        named = [line.split()[1:] for line in told.stderr.splitlines() if line.startswith("  mlops ")]
        assert len(named) >= 5
        for command in named:
            shown = shared.mlops(*command)
            assert shown.returncode == 0, shown.stderr
            assert shown.stdout


class TestCommands:
    @pytest.mark.parametrize(
        "script",
        [
            ["test_mlops_platform.py", "--comprehensive"],
            ["test_model_registry.py"],
            ["test_experiment_tracking.py"],
            ["test_feature_store.py"],
        ],
        ids=lambda script: script[0],
    )
    def test_a_validation_script_needs_the_standard_library_alone_and_finds_nothing_wrong(self, shared, script):
        variables = shared.environment | {"PYTHONPATH": ""}
        validated = run([sys.executable, "-I", "-S", str(ROOT / "scripts" / script[0]), *script[1:]], variables)
        assert validated.returncode == 0, validated.stdout + validated.stderr
        assert " 0 failed" in validated.stdout

    def test_doctor_finds_nothing_wrong(self, shared):
        looked = shared.mlops("doctor")
        assert looked.returncode == 0, looked.stdout + looked.stderr
        assert "✗" not in looked.stdout

    def test_the_audit_chain_is_intact(self, shared):
        verified = shared.mlops("audit", "verify", "-o", "json")
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["is_intact"]

    def test_without_a_platform_the_demo_says_so_in_one_line(self, tmp_path):
        told = run(mlops("demo"), environment(tmp_path / "none", free_ports()))
        assert told.returncode == 5
        assert told.stderr.count("\n") == 1
        assert "mlops up" in told.stderr


class TestRefusals:
    """`mlops up` that cannot: exit code 1 and one line that says why and what to do."""

    def refused(self, variables: dict[str, str]) -> str:
        outcome = run(mlops("up"), variables)
        assert outcome.returncode == 1, outcome.stdout + outcome.stderr
        assert outcome.stderr.count("\n") == 1, outcome.stderr
        return outcome.stderr

    def test_a_second_one_on_the_same_home_names_the_process_of_the_first(self, shared):
        assert str(shared.process.pid) in self.refused(environment(shared.home, free_ports()))

    def test_a_taken_port_names_its_owner_and_the_way_round(self, shared):
        with platform_home() as home:
            told = self.refused(environment(home, free_ports() | {Service.FEATURES: shared.ports[Service.FEATURES]}))
        assert f"process {shared.process.pid}" in told
        assert "MLOPS_FEATURE_STORE_PORT" in told

    def test_a_home_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        home = tmp_path / "file" / "home"
        told = self.refused(environment(home, free_ports()) | {"HOME": str(tmp_path)})
        assert str(home) in told


def test_a_worker_that_is_killed_is_started_again_and_works(shared):
    killed = shared.worker()
    killed.kill()
    eventually(lambda: _has_other_worker(shared, killed), seconds=30, what="a new worker")
    with shared.client() as platform:
        tasks = [{"name": "dump", "entry_point": "json:dumps", "arguments": {"obj": [1, 2]}}]
        version = platform.pipelines.create("after-the-kill", tasks)
        started = platform.pipelines.run(version.pipeline)
        platform.pipelines.wait(started.id, timeout_seconds=60)
        assert platform.pipelines.result(started.id, "dump") == "[1, 2]"


def _has_other_worker(platform: RunningPlatform, former: psutil.Process) -> bool:
    try:
        return platform.worker().pid != former.pid
    except (StopIteration, psutil.NoSuchProcess):
        return False


@dataclass(frozen=True)
class FirstLife:
    """A platform that was started in an empty home, given a model, and stopped with SIGTERM."""

    home: Path
    exit_code: int
    survivors: list[psutil.Process]
    still_listening: list[int]


@pytest.fixture(scope="module")
def first_life() -> Iterator[FirstLife]:
    with platform_home() as home:
        with running(home) as platform:
            with platform.client() as client:
                client.registry.create_version("kept", "1")
            family = platform.family()
            code = platform.stop(signal.SIGTERM)
            survivors, listening = alive(family), [port for port in platform.ports.values() if is_listening(port)]
            end(survivors)
        yield FirstLife(home, code, survivors, listening)


@contextlib.contextmanager
def copy_of(life: FirstLife) -> Iterator[Path]:
    """The home of a platform that was stopped, for a test of its own."""
    with platform_home() as home:
        # The database's files belong to the user that it runs as; only `cp` keeps that.
        subprocess.run(["cp", "-a", str(life.home), str(home)], check=True)
        yield home


class TestStopping:
    def test_sigterm_ends_all_of_it_with_exit_code_0(self, first_life):
        assert first_life.exit_code == 0
        assert first_life.survivors == []
        assert first_life.still_listening == []

    def test_ctrl_c_lets_a_request_that_is_under_way_finish_and_the_next_start_has_it(self, first_life):
        with copy_of(first_life) as home:
            with running(home) as platform:
                family = platform.family()
                with half_an_upload(platform) as connection:
                    os.killpg(platform.process.pid, signal.SIGINT)
                    eventually(lambda: not is_listening(platform.ports[Service.REGISTRY]), what="no new connections")
                    connection.sendall(b"end")
                    assert b" 201 " in connection.recv(4096).split(b"\r\n")[0]
                assert platform.process.wait(60) == 0
                assert alive(family) == []
            with running(home) as platform, platform.client() as client:
                assert [file.path for file in client.registry.files("kept", "1")] == ["file"]

    def test_after_kill_9_nothing_is_left_running_once_the_next_one_is_up_and_the_data_is_there(self, first_life):
        with copy_of(first_life) as home:
            with running(home) as platform:
                family = platform.family()
                platform.stop(signal.SIGKILL)
            with running(home, platform.ports) as after, after.client() as client:
                assert client.registry.get_version("kept", "1").version == "1"
                eventually(lambda: alive(family) == [], what="no process of the killed platform")


@contextlib.contextmanager
def half_an_upload(platform: RunningPlatform) -> Iterator[socket.socket]:
    """A connection on which the server has all of a request but the last three bytes."""
    with socket.create_connection(("127.0.0.1", platform.ports[Service.REGISTRY]), timeout=30) as connection:
        head = (
            "PUT /api/models/kept/versions/1/artifacts/file HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {platform.key()}\r\nContent-Length: 6\r\n\r\nthe"
        )
        connection.sendall(head.encode())
        # A whole request after it shows that the server has begun with the first one.
        with platform.client() as client:
            client.registry.get_model("kept")
        yield connection

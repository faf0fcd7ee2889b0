"""Runs recorded without a server are complete on the disk, readable, and brought in once."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mlops_platform.sdk import AsyncPlatform, Platform
from mlops_platform.sdk.errors import Conflict, Offline
from mlops_platform.sdk.offline import NotARecording, OfflineRun, recorded
from tests.conftest import Platform as RunningPlatform
from tests.sdk.server import Reply, fake_service, problem
from tests.sdk.test_recorder import EXPERIMENT, RUN


@pytest.fixture
def offline(settings_for):
    """A client that was told to send nothing."""
    with Platform(settings=settings_for("http://127.0.0.1:1", offline=True)) as platform:
        yield platform


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


def record(platform, steps=3000):
    with platform.tracking.run("study/one", run_name="r", parameters={"lr": 0.1}, tags={"a": "1"}) as run:
        for step in range(steps):
            run.log_metric("loss", 1 / (step + 1), step=step)
        run.log_metric("odd", float("nan"))
        run.log_params({"late": True})
        run.set_tags({"a": None, "b": "2"})
        run.log_text("hello", "notes/hello.txt")
        run.record_file(b"\x00\x01", "raw.bin")
        run.log_dataset([{"age": 31}], name="customers", context="training")
        run.log_model({"weights": [1.0]}, "model")
        with run.child("inner") as inner:
            inner.log_metric("score", 2)
    return run, inner


class TestTheRecording:
    def test_it_is_complete_and_can_be_read(self, offline):
        run, inner = record(offline)
        found = {one.id: one.summary() for one in recorded(offline.settings.offline_runs)}
        assert list(found) == [run.id, inner.id]
        mine = found[run.id]
        assert (mine["experiment"], mine["run_name"], mine["status"]) == ("study/one", "r", "FINISHED")
        assert (mine["parameters"], mine["tags"]) == ({"lr": 0.1, "late": True}, {"b": "2"})
        assert mine["metrics"] == {"loss": 1 / 3000, "odd": "NaN"}
        assert set(mine["artifacts"]) == {"notes/hello.txt", "raw.bin", "model/mlops-model.json", "model/model.pkl"}
        assert [it["name"] for it in mine["datasets"] + mine["models"]] == ["customers", "model"]
        folder = offline.settings.offline_runs / run.id
        assert (folder / "artifacts" / "notes" / "hello.txt").read_text() == "hello"
        assert found[inner.id]["metrics"] == {"score": 2.0}

    def test_no_credential_stands_in_it_and_no_other_user_reads_it(self, offline):
        run, _ = record(offline, steps=1)
        folder = offline.settings.offline_runs / run.id
        assert folder.stat().st_mode & 0o077 == 0
        assert "mlops_user_test" not in "".join(path.read_text() for path in folder.glob("*.json*"))

    def test_what_needs_the_server_says_so(self, offline):
        with pytest.raises(Offline, match="MLOPS_OFFLINE"):
            offline.tracking.get_run("1" * 32)
        with pytest.raises(Offline):
            offline.registry.get_model("m")

    def test_a_path_through_a_file_is_refused_as_the_server_would(self, offline):
        with offline.tracking.run("e") as run:
            run.log_text("x", "a")
            with pytest.raises(Conflict):
                run.log_text("x", "a/b")

    def test_a_run_is_resumed_where_it_lies(self, offline):
        run, _ = record(offline, steps=1)
        offline.tracking.resume_run(run.id).log_metric("more", 1)
        with pytest.raises(NotARecording):
            offline.tracking.resume_run("3" * 32)

    def test_the_variable_switches_it_on(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLOPS_OFFLINE", "1")
        monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
        monkeypatch.setenv("MLOPS_CAPTURE", "0")
        with Platform() as platform, platform.tracking.run("e") as run:
            run.log_metric("loss", 1)
        assert OfflineRun(tmp_path / "offline" / run.id).summary()["status"] == "FINISHED"
        monkeypatch.setenv("MLOPS_OFFLINE", "maybe")
        with pytest.raises(Exception, match="MLOPS_OFFLINE"):
            Platform()


class TestBringingIn:
    async def test_all_of_it_arrives_and_a_second_time_changes_nothing(self, sdk: AsyncPlatform, offline):
        run, inner = record(offline)
        first = await sdk.tracking.sync_offline()
        assert [(one.id, one.outcome, one.refused) for one in first] == [(run.id, "synced", 0), (inner.id, "synced", 0)]
        found = await sdk.tracking.get_run(run.id)
        assert (found.run_name, found.status, found.parameters) == ("r", "FINISHED", {"lr": 0.1, "late": True})
        assert found.tags == {"b": "2"}
        history = [point.value async for point in sdk.tracking.history(run.id, "loss")]
        assert history == [1 / (step + 1) for step in range(3000)]
        assert await sdk.tracking.read_artifact(run.id, "notes/hello.txt") == b"hello"
        assert await sdk.tracking.read_artifact(run.id, "raw.bin") == b"\x00\x01"
        assert [each.name for each in await sdk.tracking.inputs(run.id)] == ["customers"]
        assert await sdk.tracking.load_model(run.id, trust=True) == {"weights": [1.0]}
        assert (await sdk.tracking.get_run(inner.id)).parent_run_id == run.id
        again = await sdk.tracking.sync_offline()
        assert [(one.outcome, one.sent) for one in again] == [("synced", 0), ("synced", 0)]
        (run.id and (sdk.settings.offline_runs / run.id / "state.json")).unlink()
        assert [one.outcome for one in await sdk.tracking.sync_offline()] == ["synced", "synced"]
        assert (await sdk.tracking.get_run(run.id)).model_copy(update={"updated_at": found.updated_at}) == found
        assert len(await sdk.tracking.models(run.id)) == len(await sdk.tracking.inputs(run.id)) == 1
        assert (await sdk.tracking.experiment("study/one")).run_count == 2

    async def test_a_run_that_goes_on_is_sent_as_far_as_it_is(self, sdk: AsyncPlatform, offline):
        run = offline.tracking.start_run("e")
        run.log_metric("loss", 1, step=1)
        run.flush()
        assert [one.outcome for one in await sdk.tracking.sync_offline()] == ["going on"]
        run.log_metric("loss", 2, step=2)
        run.finish()
        (done,) = await sdk.tracking.sync_offline()
        assert (done.outcome, done.sent) == ("synced", 2)
        assert [point.step async for point in sdk.tracking.history(run.id, "loss")] == [1, 2]
        assert (await sdk.tracking.get_run(run.id)).status == "FINISHED"

    async def test_what_a_killed_process_had_recorded_is_recovered(self, sdk: AsyncPlatform, tmp_path):
        script = """
import os, signal
from mlops_platform.sdk import Platform
run = Platform(offline=True).tracking.start_run("killed", parameters={"a": 1})
for step in range(500):
    run.log_metric("loss", step, step=step)
run.flush()
run.log_text("x", "x.txt")
os.kill(os.getpid(), signal.SIGKILL)
"""
        environment = os.environ | {"MLOPS_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], env=environment, check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        (run,) = recorded(tmp_path / "offline")
        (journal,) = run.folder.glob("journal-*.jsonl")
        with journal.open("ab") as file:
            file.write(b'{"at": 1, "method": "PO')  # what it was writing when it was killed
        (synced,) = await sdk.tracking.sync_offline()
        assert (synced.outcome, synced.refused) == ("synced", 0)
        found = await sdk.tracking.get_run(run.id)
        assert (found.status, found.parameters["a"]) == ("FAILED", 1)
        assert "mlops.offline.left" in found.tags
        assert [point.step async for point in sdk.tracking.history(run.id, "loss")] == list(range(500))
        assert await sdk.tracking.read_artifact(run.id, "x.txt") == b"x"
        assert (await sdk.tracking.search(experiments=["killed"]).head())[0].id == run.id

    def test_it_goes_on_where_it_broke_off(self, offline, settings_for):
        run, _ = record(offline)
        room = [4]

        def answer(seen):
            if seen.method == "GET":
                return Reply(200, {"items": [EXPERIMENT], "next_page_token": None})
            if seen.path.endswith("/runs"):
                return Reply(201, RUN)
            room[0] -= 1
            if room[0] < 0:
                return problem(503)
            return Reply(
                200, {"path": "p", "size": 1, "sha256": _digest(seen), "content_type": "x", "created_at": RUN["created_at"]}
            )

        with fake_service(answer) as service, Platform(settings=settings_for(service.url, retries=1)) as platform:
            first = platform.tracking.sync_offline()
            assert {one.outcome for one in first} == {"waiting"}
            assert first[0].why
            room[0] = 1000
            service.seen.clear()
            second = platform.tracking.sync_offline(offline.settings.offline_runs / run.id)
            assert [one.outcome for one in second] == ["synced"]
            assert not any(seen.path.endswith("/runs") for seen in service.seen)
            assert first[0].sent + second[0].sent == sum(
                1 for _ in OfflineRun(offline.settings.offline_runs / run.id).entries()
            )

    async def test_what_the_server_refuses_is_set_aside_and_the_rest_arrives(self, sdk: AsyncPlatform, offline):
        with offline.tracking.run("e", parameters={"lr": 1}) as run:
            run.log_metric("good", 1, step=1)
            run.log_param("lr", 2)
            run._recorder.request("POST", f"/api/runs/{run.id}/metrics", [{"bad": "x", "step": 1}, {"good": 2, "step": 2}])
        (done,) = await sdk.tracking.sync_offline()
        assert (done.outcome, done.refused) == ("synced", 2)
        assert [point.step async for point in sdk.tracking.history(run.id, "good")] == [1, 2]
        aside = [
            json.loads(line) for line in (offline.settings.offline_runs / run.id / "refused.jsonl").read_text().splitlines()
        ]
        assert "lr" in aside[0]["why"]

    async def test_the_same_recording_brought_in_twice_at_once_is_one_run(self, sdk: AsyncPlatform, offline):
        record(offline, steps=10)
        results = await asyncio.gather(*[sdk.tracking.sync_offline() for _ in range(4)])
        assert {one.outcome for result in results for one in result} <= {"synced", "busy elsewhere", "waiting"}
        assert {one.outcome for one in await sdk.tracking.sync_offline()} == {"synced"}
        assert (await sdk.tracking.experiment("study/one")).run_count == 2


def _digest(seen):
    return hashlib.sha256(seen.body).hexdigest()


def test_a_full_disk_loses_nothing_that_fits_later(offline, monkeypatch):
    run = offline.tracking.start_run("e")
    run.flush()
    write, full = os.write, [True]

    def limited(descriptor, content):
        return write(descriptor, content[:5] if full[0] else content)

    monkeypatch.setattr(os, "write", limited)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.log_metric("loss", 1, step=1)
        assert not run.flush()
        full[0] = False
        run.log_metric("loss", 2, step=2)
        run.finish()
    found = OfflineRun(offline.settings.offline_runs / run.id)
    assert [body["step"] for entry in found.entries() if entry.suffix == "metrics" for body in entry.body] == [1, 2]
    assert found.summary()["status"] == "FINISHED"

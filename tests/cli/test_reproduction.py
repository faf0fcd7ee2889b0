"""A run is done again, compared, and brought in from offline, by the command line."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_platform.sdk import Platform
from mlops_platform.sdk.replay import NotReproducible, plan
from mlops_platform.sdk.settings import URL_VARIABLES, ClientSettings

SCRIPT = """
import sys
from pathlib import Path
from mlops_platform.sdk import Platform

with Platform() as platform, platform.tracking.run("again", parameters={"lr": 0.1}, seeds={"numpy": 7}) as run:
    run.log_metric("loss", float(sys.argv[1].partition("=")[2]))
    Path(sys.argv[2]).write_text(Path(__file__).read_text() + run.id)
"""
SRC = str(Path(__file__).parents[2] / "src")


def settings_of(environment):
    urls = {service: environment[variable] for service, variable in URL_VARIABLES.items()}
    return {"urls": urls, "credential": environment["MLOPS_API_KEY"], "home": Path(environment["MLOPS_HOME"])}


def forget_packages(environment, run_id):
    with Platform(settings=ClientSettings(**settings_of(environment))) as platform:
        platform.tracking.join_run(run_id).log_text("# none\n", "reproduction/requirements.txt")


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path):
    """A repository with a script that was changed after its commit."""
    folder = tmp_path / "repository"
    (folder / "jobs").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "jobs" / "train.py").write_text(SCRIPT)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "jobs" / "train.py").write_text(SCRIPT + "\n# changed since\n")
    return folder


@pytest.fixture
async def started(mlops, repository, tmp_path):
    """Start the script as a user would; the id of its run."""

    async def start(*arguments):
        environment = mlops.environment | {"PYTHONPATH": SRC, "PYTHONHASHSEED": "0"}
        output = tmp_path / "output"
        command = [sys.executable, "jobs/train.py", arguments[0], str(output), *arguments[1:]]
        await asyncio.to_thread(
            subprocess.run, command, cwd=repository, env=os.environ | environment, check=True, timeout=90
        )
        return output.read_text()[-32:]

    return start


class TestReproduce:
    async def test_a_run_is_done_again_with_its_uncommitted_changes(self, mlops, started, repository, tmp_path):
        run_id = await started("--loss=0.25")
        shown = await mlops("run", "reproduce", run_id, "--repository", str(repository), "-o", "json")
        assert [step["step"] for step in shown.json][:2] == [
            "Check out the commit",
            "Apply the changes that were in no commit",
        ]
        assert git(repository, "rev-parse", "HEAD").strip() in shown.json[0]["command"]
        # The packages of this very machine are installed already: of the lock only the form is tried here.
        files = await mlops("run", "artifacts", run_id, "reproduction", "-o", "json")
        assert {file["path"] for file in files.json} == {
            "reproduction/run.json", "reproduction/requirements.txt", "reproduction/changes.patch",
        }  # fmt: skip
        (tmp_path / "output").unlink()
        await asyncio.to_thread(forget_packages, mlops.environment, run_id)
        done = await mlops(
            "run",
            "reproduce",
            run_id,
            "--repository",
            str(repository),
            "--to",
            str(tmp_path / "again"),
            "--execute",
            "--yes",
            PYTHONPATH=os.pathsep.join([SRC, *sys.path]),
        )
        assert done.code == 0, done.err
        assert (tmp_path / "again" / "jobs" / "train.py").read_text().endswith("# changed since\n")
        second = (tmp_path / "output").read_text()[-32:]
        assert second != run_id
        differing = await mlops("run", "diff", run_id, second, "-o", "json")
        areas = {row["area"] for row in differing.json}
        assert not areas & {"params", "metrics", "seeds", "tags"}

    async def test_secrets_in_arguments_are_not_recorded_and_not_executed(self, mlops, started, repository):
        run_id = await started("--loss=0.25", "--api-key", "hunter2hunter2", "--password=swordfish")
        shown = await mlops("run", "reproduce", run_id, "--repository", str(repository), "-o", "json")
        assert "hunter2" not in shown.out and "swordfish" not in shown.out  # noqa: PT018
        refused = await mlops("run", "reproduce", run_id, "--repository", str(repository), "--execute", "--yes")
        assert refused.code == 1
        assert "--arguments" in refused.err

    async def test_without_a_word_of_the_person_nothing_is_executed(self, mlops, started, repository, tmp_path):
        run_id = await started("--loss=0.25")
        outcome = await mlops(
            "run", "reproduce", run_id, "--repository", str(repository), "--to", str(tmp_path / "x"), "--execute"
        )
        assert outcome.code == 2
        assert not (tmp_path / "x").exists()

    async def test_a_run_that_recorded_no_code_says_so(self, mlops):
        run_id = (await mlops("run", "create", "e", "-q")).out.strip()
        outcome = await mlops("run", "reproduce", run_id)
        assert outcome.code == 1
        assert "no git commit" in outcome.err


class TestThePlan:
    def make(self, tmp_path, **changes):
        started = {
            "entry_point": "a.py",
            "argv": [],
            "code": {"commit": "a" * 40},
            "python": {"version": "3.11.1"},
            **changes,
        }
        requirements = started.pop("requirements", "")
        return plan(started, requirements=requirements, changes=b"", repository=tmp_path, target=tmp_path / "t")

    @pytest.mark.parametrize("entry", ["/bin/sh", "../x.py", "interactive", "", "-c", "-m os;x", "-m a b", "a/../../b.py"])
    def test_an_entry_point_outside_of_the_worktree_is_refused(self, tmp_path, entry):
        with pytest.raises(NotReproducible):
            self.make(tmp_path, entry_point=entry)

    @pytest.mark.parametrize("commit", ["", "main", "--upload-pack=x", "a" * 39, None])
    def test_what_is_no_commit_is_refused(self, tmp_path, commit):
        with pytest.raises(NotReproducible):
            self.make(tmp_path, code={"commit": commit})

    @pytest.mark.parametrize(
        "line",
        [
            "--index-url http://evil",
            "-e .",
            "x @ file:///etc",
            "x==1 --config-settings=a",
            "x @ git+https://-u@" + "a" * 40,
            "# a==1",
        ],
    )
    def test_a_lock_gives_packages_and_no_options(self, tmp_path, line):
        made = self.make(tmp_path, requirements=f"numpy==2.4.6\n{line}\n")
        (content,) = made.files.values()
        assert content == b"numpy==2.4.6\n"
        assert f"Not installed: {line}" in made.warnings


class TestDiff:
    async def test_every_difference_is_named(self, mlops, started, repository):
        first = await started("--loss=0.25")
        git(repository, "commit", "-qam", "second")
        second = await started("--loss=0.5")
        rows = {
            (row["area"], row["key"]): (row["a"], row["b"])
            for row in (await mlops("run", "diff", first, second, "-o", "json")).json
        }
        assert rows["metrics", "loss"] == (0.25, 0.5)
        assert rows["code", "dirty"] == (True, False)
        assert rows["code", "commit"][1] == git(repository, "rev-parse", "HEAD").strip()
        assert rows["code", "changes"][1] is None
        assert not {area for area, _ in rows} & {"params", "environment", "seeds", "machine", "data"}
        assert "loss" in (await mlops("run", "diff", first, second)).out

    async def test_a_run_is_like_itself(self, mlops):
        run_id = (await mlops("run", "create", "e", "--param", "a=1", "-q")).out.strip()
        assert (await mlops("run", "diff", run_id, run_id, "-o", "json")).json == []


class TestSync:
    async def test_offline_runs_are_read_and_brought_in(self, mlops, tmp_path, monkeypatch):
        monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
        with Platform(offline=True) as platform, platform.tracking.run("far", parameters={"a": 1}) as run:
            run.log_metric("loss", 0.5)
        shown = (await mlops("sync", "--read", "-o", "json")).json
        assert (shown[0]["id"], shown[0]["status"], shown[0]["metrics"]) == (run.id, "FINISHED", {"loss": 0.5})
        synced = await mlops("sync", "-o", "json", MLOPS_OFFLINE="1")
        assert [(row["id"], row["outcome"]) for row in synced.json] == [(run.id, "synced")]
        assert (await mlops("run", "show", run.id, "-o", "json")).json["metrics"] == {"loss": 0.5}
        assert (await mlops("sync", str(tmp_path / "offline" / run.id), "-o", "json")).json[0]["sent"] == 0

    async def test_a_server_that_is_away_keeps_it_all_for_later(self, mlops, tmp_path, monkeypatch):
        monkeypatch.setenv("MLOPS_HOME", str(tmp_path))
        with Platform(offline=True) as platform, platform.tracking.run("far"):
            pass
        outcome = await mlops("sync", "-o", "json", MLOPS_EXPERIMENT_TRACKING_URL="http://127.0.0.1:9")
        assert outcome.code == 5
        assert json.loads(outcome.out)[0]["outcome"] == "waiting"

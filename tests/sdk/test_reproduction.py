"""What a run was started with is known afterwards, without a secret in it, and never at the cost of the training."""

import hashlib
import json
import subprocess
import sys

import pytest

from mlops_platform.contracts.redaction import REDACTED
from mlops_platform.sdk import reproduction
from mlops_platform.sdk.reproduction import captured, code_state, environment_lock, safe_arguments
from tests.sdk.test_recorder import tracking_service


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


class TestCode:
    def test_a_clean_repository_is_its_commit(self, repository):
        state, patch = code_state(repository)
        assert state["commit"] == git(repository, "rev-parse", "HEAD").strip()
        assert (state["branch"], state["dirty"], patch) == ("main", False, b"")

    def test_changes_are_a_patch_that_applies(self, repository):
        (repository / "a.py").write_text("a = 2\nb = '\u00fc'\n")
        (repository / "new.bin").write_bytes(bytes(range(256)))
        git(repository, "add", "new.bin")
        (repository / "untracked.txt").write_text("x")
        state, patch = code_state(repository)
        assert (state["dirty"], state["untracked"]) == (True, ["untracked.txt"])
        git(repository, "stash", "-q")
        subprocess.run(["git", "apply"], input=patch, cwd=repository, check=True)
        assert (repository / "a.py").read_text() == "a = 2\nb = '\u00fc'\n"
        assert (repository / "new.bin").read_bytes() == bytes(range(256))

    def test_changes_without_bound_are_left_out_and_said(self, repository):
        (repository / "a.py").write_text("x" * (reproduction.LARGEST_PATCH_BYTES + 1))
        state, patch = code_state(repository)
        assert patch == b""
        assert state["changes_left_out_bytes"] > reproduction.LARGEST_PATCH_BYTES

    def test_secrets_in_changes_and_in_the_address_are_taken_out(self, repository):
        git(repository, "remote", "add", "origin", "https://ada:hunter2hunter2@example.org/x.git")
        (repository / "a.py").write_text("key = 'mlops_user_0123456789abcdef'\n")
        state, patch = code_state(repository)
        assert "hunter2" not in json.dumps({**state, "root": ""})
        assert b"0123456789abcdef" not in patch
        assert state["changes_redacted"] is True

    def test_configured_programs_are_not_run(self, repository):
        evil = repository.parent / "evil.sh"
        evil.write_text(f"#!/bin/sh\ntouch {repository.parent}/ran\n")
        evil.chmod(0o755)
        git(repository, "config", "diff.external", str(evil))
        git(repository, "config", "core.fsmonitor", str(evil))
        (repository / "a.py").write_text("a = 3\n")
        code_state(repository)
        assert not (repository.parent / "ran").exists()

    def test_a_folder_without_a_repository_has_no_code(self, tmp_path):
        assert code_state(tmp_path) == ({}, b"")

    def test_a_machine_without_git_has_no_code(self, repository, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert code_state(repository) == ({}, b"")


class TestArguments:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (["--lr", "0.1", "data.csv"], ["--lr", "0.1", "data.csv"]),
            (["--api-key", "hunter2"], ["--api-key", REDACTED]),
            (["--password=hunter2"], [f"--password={REDACTED}"]),
            (["--token", "--verbose", "x"], ["--token", "--verbose", "x"]),
            (["mlops_user_0123456789abcdef"], [REDACTED]),
            (["postgresql://ada:hunter2@host/db"], [f"postgresql://{REDACTED}@host/db"]),
        ],
    )
    def test_secrets_are_not_among_them(self, given, kept):
        assert safe_arguments(given) == kept


class TestTheRest:
    def test_the_entry_point_is_named_from_the_root_of_the_repository(self, repository):
        (repository / "jobs").mkdir()
        (repository / "jobs" / "train.py").write_text("")
        found, _ = captured(argv=[str(repository / "jobs" / "train.py"), "--lr=1"], folder=repository / "jobs", seeds=7)
        assert (found["entry_point"], found["folder"], found["argv"]) == ("jobs/train.py", "jobs", ["--lr=1"])
        assert found["seeds"]["seed"] == 7
        assert found["python"]["version"] == sys.version.split()[0]
        assert found["hardware"]["cpus"] >= 1
        json.dumps(found)

    def test_the_lock_names_what_is_installed(self):
        lines = environment_lock().splitlines()
        assert any(line.startswith("pydantic==") for line in lines)
        assert lines == sorted(lines, key=lambda line: line.lower().lstrip("# ")) or len(lines) > 50

    @pytest.mark.parametrize(
        ("origin", "line"),
        [
            (None, "x==1"),
            (
                '{"url": "file:///home/ada/x", "dir_info": {"editable": true}}',
                "# x==1 was installed from a local folder or file",
            ),
            (
                '{"url": "https://a:secretsecret@g.org/x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
                f"x @ git+https://{REDACTED}@g.org/x@abc",
            ),
            ("{", "x==1"),
        ],
    )
    def test_a_package_is_named_as_it_was_installed(self, origin, line):
        assert reproduction._requirement("x", "1", origin) == line


class TestRecording:
    def test_a_run_records_it_at_its_start(self, connected, repository, monkeypatch):
        monkeypatch.chdir(repository)
        monkeypatch.setattr(sys, "argv", ["absent.py", "--secret-token", "hunter2"])

        def answer(seen):
            reply = tracking_service()(seen)
            if seen.method == "PUT":
                reply.body = {
                    "path": "p", "size": 1, "sha256": hashlib.sha256(seen.body).hexdigest(), "content_type": "x",
                    "created_at": "2026-01-01T00:00:00Z",
                }  # fmt: skip
            return reply

        with connected(answer, capture=True) as (service, platform):
            with platform.tracking.run("e"):
                pass
            sent = {seen.path.partition("/artifacts/")[2]: seen.body for seen in service.seen if seen.method == "PUT"}
            assert set(sent) == {"reproduction/run.json", "reproduction/requirements.txt"}
            assert b"hunter2" not in b"".join(sent.values())
            tags = next(seen.json["tags"] for seen in service.seen if seen.method == "PATCH" and "tags" in seen.json)
            assert tags["mlops.git.branch"] == "main"
            assert service.seen[-1].json["status"] == "FINISHED"

    def test_trouble_with_it_is_a_warning(self, connected, monkeypatch):
        monkeypatch.setattr(reproduction, "captured", lambda **_: 1 / 0)
        with (
            connected(tracking_service(), capture=True) as (_, platform),
            pytest.warns(RuntimeWarning, match="could not be recorded"),
            platform.tracking.run("e"),
        ):
            pass

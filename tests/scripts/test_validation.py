"""The validation scripts against what is not a platform: a report and an exit code, never a traceback or a leaked key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.server import Reply, fake_service

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_mlops_platform.py"


def validate(home: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    environment = kept | {"MLOPS_HOME": str(home), "MLOPS_MODEL_REGISTRY_URL": url} | variables
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--only", "model-registry"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


class TestAddresses:
    @pytest.mark.parametrize("url", ["localhost:8000", "nonsense", "http://[::1", "http://127.0.0.1:x", "http://a b"])
    def test_an_address_that_is_none_is_a_failed_check(self, tmp_path, url):
        done = validate(tmp_path, url)
        assert (done.returncode, done.stderr.count("Traceback")) == (1, 0), done.stderr
        assert "FAIL" in done.stdout

    def test_what_answers_anything_with_success_is_a_failed_check(self, tmp_path):
        with fake_service(lambda seen: Reply(200, [1])) as service:
            done = validate(tmp_path, service.url)
        assert (done.returncode, done.stderr.count("Traceback")) == (1, 0), done.stderr

    def test_a_client_file_that_is_none_is_passed_over(self, tmp_path):
        (tmp_path / "client.json").write_text("[]")
        assert "Traceback" not in validate(tmp_path, "http://127.0.0.1:9").stderr


class TestKeys:
    def test_the_key_of_this_machine_is_sent_to_no_other(self, tmp_path):
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "api_key").write_text("canary")
        with fake_service(lambda seen: Reply(200)) as service:
            # Another spelling of this machine's address, which stands for any address that is not known to be its own.
            validate(tmp_path, service.url.replace("127.0.0.1", "127.1"))
            assert service.seen
            assert "canary" not in str([seen.headers for seen in service.seen])
            validate(tmp_path, service.url)
            assert "Bearer canary" in {seen.headers.get("Authorization") for seen in service.seen}

    def test_a_key_can_come_from_a_file(self, tmp_path):
        (tmp_path / "key").write_text("from-file\n")
        with fake_service(lambda seen: Reply(200)) as service:
            validate(tmp_path, service.url, MLOPS_SERVICE_TOKEN_FILE=str(tmp_path / "key"))
            assert "Bearer from-file" in {seen.headers.get("Authorization") for seen in service.seen}

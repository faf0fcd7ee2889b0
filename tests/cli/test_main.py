"""The shape of the command line: help, exit codes, output."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from mlops_platform.cli.main import app
from tests.cli.conftest import invoke
from tests.sdk.server import Reply, fake_service

SRC = str(Path(__file__).parents[2] / "src")


def commands(group=None, path=()):
    """Every command with its words."""
    group = group or get_command(app)
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield (*path, name), found


OF_THE_SERVER = {"up", "down", "serve", "worker", "db", "doctor", "demo"}


class TestHelp:
    @pytest.mark.parametrize("words", [words for words, _ in commands() if words[0] not in OF_THE_SERVER], ids=" ".join)
    def test_every_command_explains_itself_with_examples_and_takes_o_and_q(self, words):
        outcome = invoke((*words, "--help"), {})
        assert outcome.code == 0
        assert f"  mlops {' '.join(words)}" in outcome.out
        assert "--output" in outcome.out
        assert "--quiet" in outcome.out

    def test_every_example_names_options_that_exist(self):
        for words, found in commands():
            known = {option for parameter in found.params for option in parameter.opts}
            for line in (found.epilog or "").splitlines():
                given = {word for word in line.split() if word.startswith("--")}
                assert given <= known, f"mlops {' '.join(words)}: {line}"

    def test_help_does_not_import_the_client_library(self):
        code = (
            "import sys; from mlops_platform.cli.main import app\n"
            "try: app(['--help'])\n"
            "except SystemExit: pass\n"
            "print(sorted(m for m in ('pydantic', 'httpx2', 'rich', 'mlops_platform.sdk.errors') if m in sys.modules))"
        )
        environment = os.environ | {"PYTHONPATH": SRC}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    def test_without_a_command_it_helps(self):
        outcome = invoke((), {})
        assert (outcome.code, outcome.out) == (2, "")
        assert "Exit codes: 0 done" in outcome.err

    def test_the_version_is_printed(self):
        assert invoke(("--version",), {}).out.startswith("mlops-platform ")


class TestExitCodes:
    def test_a_wrong_option_is_2(self):
        assert invoke(("model", "list", "--nonsense"), {}).code == 2

    def test_a_wrong_argument_is_2(self, tmp_path):
        outcome = invoke(("ab", "create", "t", "--variant", "control"), {"MLOPS_HOME": str(tmp_path)})
        assert outcome.code == 2
        assert "name:weight:model version" in outcome.err

    def test_when_nothing_listens_it_is_5_with_the_remedy_and_nothing_on_standard_output(self, tmp_path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            environment = {"MLOPS_HOME": str(tmp_path), "MLOPS_MODEL_REGISTRY_URL": url, "MLOPS_RETRIES": "1"}
            outcome = invoke(("model", "list", "-o", "json"), environment)
        assert (outcome.code, outcome.out) == (5, "")
        assert "mlops up" in outcome.err

    def test_a_bad_setting_is_1_in_one_line(self, tmp_path):
        outcome = invoke(("model", "list"), {"MLOPS_HOME": str(tmp_path), "MLOPS_MODEL_REGISTRY_URL": "nonsense"})
        assert outcome.code == 1
        assert "MLOPS_MODEL_REGISTRY_URL" in outcome.err
        assert len(outcome.err.splitlines()) == 1

    def test_what_is_not_the_platform_is_1_in_one_line(self, tmp_path):
        with fake_service(lambda _: Reply(200, b"<html>welcome</html>", content_type="text/html")) as service:
            environment = {"MLOPS_HOME": str(tmp_path), "MLOPS_MODEL_REGISTRY_URL": service.url}
            outcome = invoke(("model", "list", "-o", "json"), environment)
        assert (outcome.code, outcome.out) == (1, "")
        assert "text/html" in outcome.err
        assert len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("name", "content", "code"),
        [
            ("rows.json", b"\xff\xfe\x00", 2),
            ("rows.json", b"5", 2),
            ("rows.json", b'["x"]', 2),
            ("rows.parquet", b"not parquet", 1),
            ("rows.parquet", None, 1),
        ],
    )
    def test_a_file_that_holds_no_rows_is_said_without_a_traceback(self, tmp_path, name, content, code):
        source = tmp_path / name
        if content is not None:
            source.write_bytes(content)
        outcome = invoke(("feature", "ingest", "s", str(source)), {"MLOPS_HOME": str(tmp_path)})
        assert outcome.code == code
        assert name in outcome.err.replace("\n", "").replace("│ ", "")

    async def test_a_directory_that_cannot_be_written_to_is_1_in_one_line(self, mlops, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "model.bin").write_bytes(b"weights")
        await mlops("model", "create", "m", "1", "--file", str(tmp_path / "model.bin"), "--finalize")
        outcome = await mlops("model", "download", "m", "1", "--to", str(tmp_path / "file"))
        assert outcome.code == 1
        assert "file" in outcome.err
        assert len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize("words", [("db", "upgrade"), ("serve", "model-registry")], ids=" ".join)
    def test_a_database_that_does_not_answer_is_1_in_one_line(self, tmp_path, words):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": SRC,
                "MLOPS_HOME": str(tmp_path),
                "MLOPS_DATABASE_URL": f"postgresql://u:canary@127.0.0.1:{taken.getsockname()[1]}/x",
                "API_SECRET_KEY": "a1b2c3d4" * 8,
            }
            command = [sys.executable, "-m", "mlops_platform.cli", *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        said = [line for line in done.stderr.splitlines() if line.startswith("mlops: ")]
        assert (len(said), done.stderr.count("Traceback"), done.stderr.count("canary")) == (1, 0, 0), done.stderr
        assert "onnect" in said[0], said

    async def test_absent_is_3(self, mlops):
        assert (await mlops("model", "show", "absent")).code == 3

    async def test_no_key_is_4_and_says_where_one_is_looked_for(self, mlops):
        outcome = await mlops("model", "list", MLOPS_API_KEY="")
        assert outcome.code == 4
        assert "MLOPS_API_KEY" in outcome.err

    async def test_a_removal_without_a_terminal_needs_yes(self, mlops):
        await mlops("model", "create", "m", "1")
        assert (await mlops("model", "delete", "m")).code == 2
        assert (await mlops("model", "delete", "m", "--yes")).code == 0
        assert (await mlops("model", "show", "m")).code == 3


class TestOutput:
    async def test_json_is_all_that_stands_on_standard_output(self, mlops):
        made = await mlops("model", "create", "m", "1", "--metric", "accuracy=0.5", "-o", "json")
        assert made.json["metrics"] == {"accuracy": 0.5}
        listed = await mlops("model", "list", "-o", "json")
        assert [model["name"] for model in listed.json] == ["m"]

    async def test_an_empty_list_is_an_empty_array(self, mlops):
        assert (await mlops("model", "list", "-o", "json")).json == []

    async def test_an_empty_table_says_so_on_standard_error(self, mlops):
        outcome = await mlops("model", "list")
        assert (outcome.out, outcome.err) == ("", "Nothing found.\n")

    async def test_quiet_prints_names_alone(self, mlops):
        for version in ("1", "2"):
            await mlops("model", "create", "m", version)
        assert (await mlops("model", "versions", "m", "-q")).out == "2\n1\n"

    async def test_the_format_can_come_from_the_environment(self, mlops):
        assert (await mlops("model", "list", MLOPS_OUTPUT="json")).json == []

    async def test_a_table_has_headings_and_aligned_columns(self, mlops):
        await mlops("model", "create", "a-long-model-name", "1")
        await mlops("model", "create", "b", "1")
        headings, first, second = (await mlops("model", "list")).out.splitlines()
        assert headings.index("LATEST") == first.index("1") == second.index("1")

    async def test_what_others_wrote_cannot_steer_the_terminal(self, mlops):
        await mlops("model", "create", "m", "1", "--description", "\x1b[31mred\x07")
        shown = await mlops("model", "show", "m", "1")
        assert "\x1b" not in shown.out
        assert "\\x1b[31mred" in shown.out

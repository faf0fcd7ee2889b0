"""The reference pages of the client say what there is."""

from pathlib import Path

from mlops_platform.sdk.settings import CLIENT_VARIABLES
from tests.cli.test_main import OF_THE_SERVER, commands

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_setting_of_the_client_is_documented():
    page = (REFERENCE / "python-client.md").read_text(encoding="utf-8")
    for variable, meaning in CLIENT_VARIABLES.items():
        assert f"| `{variable}` | {meaning} |" in page


def test_every_command_is_documented_and_every_documented_one_exists():
    rows = [line.split("|") for line in (REFERENCE / "command-line.md").read_text(encoding="utf-8").splitlines()]
    documented = {
        (row[1].strip().strip("`"), *verb.split())
        for row in rows
        if len(row) == 4 and row[1].startswith(" `")
        for verb in row[2].split("`")[1::2]
        if not verb.startswith(("mlops", "model/", "model@"))
    }
    real = {words for words, _ in commands() if words[0] not in OF_THE_SERVER}
    assert documented == real - {("lineage",), ("sync",)}

"""The README does what it says: its marked blocks run, in order, against a running platform."""

import json

import pytest

from mlops_platform.sdk.settings import URL_VARIABLES
from tests.factories.fences import differences, snippets
from tests.factories.running import ROOT, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def newcomer(shared):
    """The shell of someone with a key of a fresh project: the README's names are not taken there."""
    with shared.client() as platform:
        project = platform.admin.create_project("readme")
    with shared.client(project=project.name) as platform:
        key = platform.admin.create_key("readme")
    urls = {variable: shared.url(service) for service, variable in URL_VARIABLES.items()}
    return shared.environment | urls | {"MLOPS_API_KEY": key.key}


def test_each_marked_block_succeeds_and_answers_as_printed(newcomer):
    found = snippets(ROOT / "README.md")
    assert found, "the README has no block that is marked with <!-- run -->"
    for snippet in found:
        done = run(["bash", "-euo", "pipefail", "-c", snippet.code], newcomer)
        assert done.returncode == 0, f"{snippet}\n{done.stdout}{done.stderr}"
        if snippet.expected is not None:
            wrong = list(differences(json.loads(snippet.expected), json.loads(done.stdout)))
            assert wrong == [], f"{snippet}\n{done.stdout}"

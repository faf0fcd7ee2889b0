from pathlib import Path

import pytest

from mlops_platform.server import openapi

ROOT = Path(__file__).parents[2]
DOCUMENTS = openapi.documents()


@pytest.mark.parametrize("service", DOCUMENTS)
def test_the_public_api_is_the_reviewed_one(service):
    """Write it anew with `make openapi`, and read the difference before committing it."""
    assert (ROOT / "openapi" / f"{service}.json").read_text(encoding="utf-8") == DOCUMENTS[service]


def test_there_is_no_snapshot_of_a_service_that_is_gone():
    assert {path.stem for path in (ROOT / "openapi").glob("*.json")} == set(DOCUMENTS)

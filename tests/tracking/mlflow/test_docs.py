"""What the pages on MLflow say is so."""

import re
from pathlib import Path

import pytest

from mlops_platform.core.http.app import routes_of
from mlops_platform.tracking.app import SERVICE
from mlops_platform.tracking.endpoints.mlflow.wire import API, ARTIFACTS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.timeout(300)
async def test_every_python_block_of_the_page_for_those_who_come_runs(stock_python, tmp_path):
    page = (DOCS / "coming-from-mlflow.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    await stock_python(script)


def test_the_reference_names_every_request_there_is():
    page = (DOCS / "reference" / "mlflow.md").read_text(encoding="utf-8")
    paths = {route.path for route in routes_of(SERVICE)}  # type: ignore[attr-defined]  # they are all API routes
    named = {"experiments": 0, "runs": 0, "metrics": 0}
    for path in paths:
        kind, _, action = path.removeprefix(API[1]).strip("/").partition("/")
        if path.startswith(API[1] + "/") and kind in named:
            assert f"`{action}`" in page, path
            named[kind] += 1
    assert named == {"experiments": 10, "runs": 14, "metrics": 3}
    assert {f"{ARTIFACTS[0]}/mpu/{step}/{{path:path}}" for step in ("create", "complete", "abort")} <= paths

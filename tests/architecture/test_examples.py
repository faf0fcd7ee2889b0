"""The examples in docstrings are run: most are results from the literature."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
WITH_EXAMPLES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in WITH_EXAMPLES])
def test_every_example_of_a_module_is_right(name):
    assert doctest.testmod(import_module(name)).failed == 0

"""The synchronous client is what the generator makes of the asynchronous one."""

import ast
import inspect

import pytest
from scripts.generate_sync_sdk import SDK, stale, to_sync

from mlops_platform.sdk._async.platform import AsyncPlatform
from mlops_platform.sdk._sync.platform import Platform


def test_no_generated_file_is_stale():
    assert stale() == [], "run scripts/generate_sync_sdk.py"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f():\n    return (await g()).x\n", "def f():\n    return (g()).x\n"),
        ("async with a as b:\n    pass\n", "with a as b:\n    pass\n"),
        ("[x async for x in y]\n", "[x for x in y]\n"),
        ("x = '''\nasync with AsyncPlatform() as p:'''\n", "x = '''\nwith Platform() as p:'''\n"),
        (
            "class A:\n    def __aenter__(self) -> AsyncIterator[bytes]: ...\n",
            "class A:\n    def __enter__(self) -> Iterator[bytes]: ...\n",
        ),
    ],
)
def test_async_is_taken_out_and_the_rest_stays(source, expected):
    assert to_sync(source) == expected


def test_nothing_asynchronous_is_left():
    for path in (SDK / "_sync").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith), path.name


@pytest.mark.parametrize("part", ["registry", "tracking", "features", "pipelines", "ab", "admin"])
def test_both_clients_have_the_same_methods_and_parameters(part, settings_for):
    settings = settings_for("http://127.0.0.1:1")
    ours, theirs = getattr(Platform(settings=settings), part), getattr(AsyncPlatform(settings=settings), part)
    names = {name for name in dir(theirs) if not name.startswith("_")} - {"aclose"}
    assert names == {name for name in dir(ours) if not name.startswith("_")} - {"close"}
    for name in names:
        synchronous, asynchronous = getattr(ours, name), getattr(theirs, name)
        assert list(inspect.signature(synchronous).parameters) == list(inspect.signature(asynchronous).parameters)

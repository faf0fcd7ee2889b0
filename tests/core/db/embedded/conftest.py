from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_platform.core.db.embedded.server import EmbeddedPostgres
from tests.factories.embedded import embedded_server, server_directory


@pytest.fixture
def base() -> Iterator[Path]:
    with server_directory() as folder:
        yield folder


@pytest.fixture
def embedded(base: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Makes servers of the home `base/home` (or another), and stops each at the end."""
    made: list[EmbeddedPostgres] = []

    def make(home: Path | None = None, *, fsync: bool = False) -> EmbeddedPostgres:
        made.append(embedded_server(base, home, fsync=fsync))
        return made[-1]

    yield make
    for server in made:
        server.stop()

"""Embedded PostgreSQL servers for tests, and connections to them."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg

from mlops_platform.core.db import migrate
from mlops_platform.core.db.embedded.server import EmbeddedPostgres

TEMPLATE = "mlops"
_MEMORY = Path("/dev/shm")  # noqa: S108  # only through mkdtemp
_ENOUGH_BYTES = 2 * 1024**3


@contextlib.contextmanager
def server_directory() -> Iterator[Path]:
    """A directory that the server's user can pass through, which pytest's own (0700) is not when root runs the tests.

    In memory when there is plenty: a cluster is a thousand files, and disks are slow to make and remove so many.
    """
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
    folder = Path(tempfile.mkdtemp(prefix="mlops-test-", dir=_MEMORY if in_memory else None))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder)


def embedded_server(
    base: Path, home: Path | None = None, *, fsync: bool = False, max_connections: int = 100
) -> EmbeddedPostgres:
    """A server whose every file is below the base, and which makes no user on the machine."""
    return EmbeddedPostgres(
        home or base / "home",
        fsync=fsync,
        max_connections=max_connections,
        stop_seconds=10,
        system_root=base / "system",
        system_user="nobody" if os.geteuid() == 0 else None,
    )


@contextlib.contextmanager
def migrated_server() -> Iterator[dict[str, str]]:
    """A server with a migrated template to copy; the addresses by role, with DATABASE for the name of a copy."""
    with server_directory() as base:
        server = embedded_server(base, max_connections=300)
        try:
            address = server.start()
            asyncio.run(migrate.upgrade(address.owner_dsn(TEMPLATE)))
            yield {
                "superuser": server.superuser_dsn("postgres"),
                "owner": address.owner_dsn("DATABASE"),
                "app": address.app_dsn("DATABASE"),
            }
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is closed again."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()

"""Migrations: one linear history in the package, run as the owner role.

A revision is named like its file and files are numbered in order, so that a start which has nothing to migrate (nearly
every one) looks at names alone and does not load Alembic.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from mlops_platform.core.db.database import sqlalchemy_url
from mlops_platform.core.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS = Path(__file__).parents[2] / "migrations"
VERSION_SCHEMA = "core"
T = TypeVar("T")
_LOCK = 0x6D6C_6F70_0003


def config(connection: Connection | None = None) -> "Config":
    """Alembic's configuration; no ini file, so that it works from an installed wheel."""
    from alembic.config import Config  # noqa: PLC0415  # see above

    alembic = Config()
    alembic.set_main_option("script_location", str(SCRIPTS))
    alembic.attributes["connection"] = connection
    return alembic


def revisions() -> list[str]:
    """All revisions that this code knows, oldest first."""
    return sorted(path.stem for path in (SCRIPTS / "versions").glob("[0-9]*.py"))


def head_revision() -> str:
    """The newest revision that this code knows."""
    return revisions()[-1]


async def upgrade(owner_dsn: str) -> None:
    """Bring the database to the newest revision. Safe to call from several processes at once."""
    await _run(owner_dsn, _upgrade)


async def current_revision(dsn: str) -> str | None:
    """The revision of a database; None for an empty one."""
    return await _run(dsn, _current)


async def check_revision(dsn: str) -> None:
    """Refuse to go on with a database that is behind this code. One that is ahead is fine: upgrades only expand."""
    current, known = await current_revision(dsn), revisions()
    if current is None or (current in known and current != known[-1]):
        raise ConfigurationError(
            f"The database is at revision {current}, and this version needs {known[-1]}. Run: mlops db upgrade"
        )


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  # see above

    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    try:
        command.upgrade(config(connection), "head")
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def _current(connection: Connection) -> str | None:
    table = f"{VERSION_SCHEMA}.alembic_version"
    if connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is None:
        return None
    revision = connection.scalar(text(f"SELECT version_num FROM {table}"))  # noqa: S608  # a constant
    return None if revision is None else str(revision)


async def _run(dsn: str, function: Callable[[Connection], T]) -> T:
    engine = create_async_engine(
        sqlalchemy_url(dsn),
        poolclass=pool.NullPool,
        connect_args={"dsn": dsn, "timeout": 10, "server_settings": {"lock_timeout": "10000", "timezone": "UTC"}},
    )
    try:
        async with engine.connect() as connection:
            result = await connection.run_sync(function)
            await connection.commit()
            return result
    finally:
        await engine.dispose()


def upgrade_now(owner_dsn: str) -> None:
    """`upgrade`, for callers without an event loop."""
    asyncio.run(upgrade(owner_dsn))

"""Migrations: one linear history in the package, run as the owner role."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from mlops_platform.core.db.database import sqlalchemy_url
from mlops_platform.core.errors import ConfigurationError

SCRIPTS = Path(__file__).parents[2] / "migrations"
VERSION_SCHEMA = "core"
T = TypeVar("T")
_LOCK = 0x6D6C_6F70_0003


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; no ini file, so that it works from an installed wheel."""
    alembic = Config()
    alembic.set_main_option("script_location", str(SCRIPTS))
    alembic.attributes["connection"] = connection
    return alembic


def head_revision() -> str:
    """The newest revision that this code knows."""
    return str(ScriptDirectory.from_config(config()).get_current_head())


async def upgrade(owner_dsn: str) -> None:
    """Bring the database to the newest revision. Safe to call from several processes at once."""
    await _run(owner_dsn, _upgrade)


async def current_revision(dsn: str) -> str | None:
    """The revision of a database; None for an empty one."""
    return await _run(dsn, _current)


async def check_revision(dsn: str) -> None:
    """Refuse to go on with a database that is behind this code. One that is ahead is fine: upgrades only expand."""
    current, script = await current_revision(dsn), ScriptDirectory.from_config(config())
    known = {revision.revision for revision in script.walk_revisions()}
    if current is None or (current in known and current != script.get_current_head()):
        raise ConfigurationError(
            f"The database is at revision {current}, and this version needs {script.get_current_head()}."
            " Run: mlops db upgrade"
        )


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    try:
        command.upgrade(config(connection), "head")
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def _current(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": VERSION_SCHEMA})
    return context.get_current_revision()


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

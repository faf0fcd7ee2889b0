"""The engine: a pool of connections that heals, and the two ways into it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine

from mlops_platform.core.db.pulse import Pulse
from mlops_platform.core.db.schema import read_json
from mlops_platform.core.db.session import (
    AutocommitSession,
    ReadSession,
    WriteSession,
    reaching_database,
    translated_errors,
)
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.settings import Settings

APPLICATION_NAME = "mlops-platform"
_UNKNOWN = "The change may or may not have been kept. Look, or retry with the same Idempotency-Key."


class Database:
    """Opens sessions. One per process."""

    def __init__(self, engine: AsyncEngine, reading: AsyncEngine, pulse: Pulse) -> None:
        self._pulse = pulse
        self._engine = engine
        self._reading = reading
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A session that only reads; the server refuses a write in it.

        Each statement sees what is committed when it begins, as in a transaction of PostgreSQL's default isolation. So
        there is no transaction around them, which would cost two more round trips.
        """
        async with self._pulse.guarding(), _connected(self._reading) as connection:
            yield ReadSession(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """A transaction that is durable when the block has ended, or undone when it raised."""
        async with self._pulse.guarding(hint=_UNKNOWN), _connected(self._engine) as connection:
            session = WriteSession(connection)
            async with connection.begin() as transaction:
                yield session
                await session.settle()
                await _commit(transaction)
        session.committed()

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[WriteSession]:
        """A session on which each statement is a transaction of its own: one round trip instead of three, for hot paths."""
        async with self._pulse.guarding(hint=_UNKNOWN), _connected(self._autocommit) as connection:
            session = AutocommitSession(connection)
            yield session
            await session.settle()
        session.committed()

    async def ping(self) -> None:
        """Raise `DependencyUnavailable` unless the database answers."""
        async with self.read() as session:
            await session.scalar(text("SELECT 1"))

    def start(self) -> None:
        """Watch from now on whether the database answers: no session then waits for ever."""
        self._pulse.start()

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._pulse.stop()
        await self._engine.dispose()
        await self._reading.dispose()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with translated_errors():
        async with AsyncExitStack() as stack:
            with reaching_database():
                connection = await stack.enter_async_context(engine.connect())
            yield connection


async def _commit(transaction: AsyncTransaction) -> None:
    try:
        with reaching_database():
            await transaction.commit()
    except DependencyUnavailable as error:
        # The one moment at which nobody but the database knows: saying "nothing was changed" could be a lie.
        raise DependencyUnavailable(
            error.dependency,
            "The database went away during the commit.",
            hint=_UNKNOWN,
        ) from error


def open_database(settings: Settings, dsn: str, *, pool_size: int | None = None) -> Database:
    """A database for the given URL, with the time-outs of the settings. Connects on first use."""
    size = pool_size or settings.database_pool_size
    return Database(
        create_async_engine(sqlalchemy_url(dsn), **_options(settings, dsn, size)),
        # Connections of their own: whether one may write is then a property of it, which costs no statement.
        create_async_engine(
            sqlalchemy_url(dsn),
            isolation_level="AUTOCOMMIT",
            **_options(settings, dsn, size, default_transaction_read_only="on"),
        ),
        Pulse(dsn),
    )


def _options(settings: Settings, dsn: str, pool_size: int, **server_settings: str) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": settings.database_lock_timeout_seconds,
        "pool_recycle": 1800,
        "json_deserializer": read_json,
        # What a statement carries may be secret; errors are logged.
        "hide_parameters": True,
        "connect_args": {
            "dsn": dsn,
            "timeout": 5,
            # Statements that a connection keeps prepared: five services in one process have more than the default 100.
            "prepared_statement_cache_size": 300,
            "server_settings": {
                "application_name": APPLICATION_NAME,
                "timezone": "UTC",
                "statement_timeout": str(int(settings.database_statement_timeout_seconds * 1000)),
                "lock_timeout": str(int(settings.database_lock_timeout_seconds * 1000)),
                "idle_in_transaction_session_timeout": "60000",
                **server_settings,
            },
        },
    }


def sqlalchemy_url(dsn: str) -> URL:
    """A `postgresql://` URL, unix socket (`?host=/dir&port=`) or TCP, for SQLAlchemy over asyncpg.

    Says where to connect and as whom. What else stands in the URL, such as `sslmode`, only the driver reads: it is given
    the URL itself as well.
    """
    parts = urlsplit(dsn)
    query = {name: value for name, value in parse_qsl(parts.query) if name in {"host", "port"}}
    return URL.create(
        "postgresql+asyncpg",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        host=parts.hostname,
        port=parts.port,
        database=unquote(parts.path.lstrip("/")) or None,
        query=query,
    )

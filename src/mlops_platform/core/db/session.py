"""Reading and writing sessions as distinct types, so that a GET cannot write by accident."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from sqlalchemy import CursorResult, Executable, Row
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from mlops_platform.core.errors import DependencyUnavailable, InvalidInput, StorageFull

# SQLSTATE classes and codes that say "not now" and not "never": https://www.postgresql.org/docs/18/errcodes-appendix.html
# The login classes are a password that was changed, or a database that was moved: the operator mends it, the service waits.
_LOGIN_CLASSES = ("28", "3D")
_AWAY_CLASSES = ("08", "57", "58", *_LOGIN_CLASSES)
_BUSY_STATES = {"55P03", "40001", "40P01", "53300", "53200", "25P03", "25006"}
_DISK_FULL = "53100"
_CANCELLED = "57014"
# A value that no column takes and that no contract stopped: NUL in text, an integer past its type.
_DATA_CLASS = "22"

Record = Row[Any]
"""A row as a session gives it; services name it without importing SQL."""


class ReadSession:
    """Reads; each statement sees what is committed when it begins."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Every row."""
        return (await self._run(statement, parameters)).all()

    async def first(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Row[Any] | None:
        """The first row, if there is one."""
        return (await self._run(statement, parameters)).first()

    async def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        return (await self._run(statement, parameters)).scalar()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Statements within one transaction, for those that a setting local to it steers."""
        driver = await self._alive()
        transaction = driver.transaction(readonly=True)
        is_over = False
        try:
            with reaching_database():
                await transaction.start()
            try:
                yield
            except Exception:
                if not driver.is_closed():
                    with reaching_database():
                        await transaction.rollback()
                    is_over = True
                raise
            with reaching_database():
                await transaction.commit()
            is_over = True
        finally:
            # Nobody else knows of this transaction: a connection that may still be in it must not go back to the others.
            if not is_over and not self._connection.invalidated:
                await self._connection.invalidate()

    async def _alive(self) -> Any:
        """The asyncpg connection beneath, which lives: SQLAlchemy learns of no error of what went past it."""
        while True:
            with reaching_database():
                driver: Any = (await self._connection.get_raw_connection()).driver_connection
            if not driver.is_closed():
                return driver
            await self._connection.invalidate()

    async def _run(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
    ) -> CursorResult[Any]:
        # Here and not only around the whole block: callers inside it must be able to tell an outage from a refusal.
        with reaching_database():
            return await self._connection.execute(statement, parameters)


class WriteSession(ReadSession):
    """A transaction that may change things; it commits when its block ends, and not before."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection)
        self._callbacks: list[Callable[[], None]] = []
        self._deferred: list[tuple[Write, Any]] = []
        self._is_begun = False

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Run an insert, update or delete; a list of parameters runs it for each."""
        return await self._run(statement, parameters)

    async def driver(self) -> Any:
        """The asyncpg connection beneath, within this transaction, for COPY and unnest in repositories."""
        raw = await self._connection.get_raw_connection()
        if not self._is_begun:
            # SQLAlchemy's adapter begins its transaction at the first statement that goes through it.
            await self._connection.exec_driver_sql("SELECT 1")
            self._is_begun = True
        return raw.driver_connection

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """A statement through the driver alone, with `$1` for its arguments: for hot paths."""
        driver = await self.driver()
        try:
            with reaching_database():
                rows: Sequence[asyncpg.Record] = await driver.fetch(statement, *arguments)
        except BaseException as error:
            # A rollback would wait for the answer to the cancelled statement, from a server that may have gone silent.
            if isinstance(error, asyncio.CancelledError) or driver.is_closed():
                await self._connection.invalidate()
            raise
        return rows

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """The transaction that there is anyway."""
        yield

    async def _run(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
    ) -> CursorResult[Any]:
        self._is_begun = True
        return await super()._run(statement, parameters)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that may fail alone: what it changed is undone and the transaction goes on."""
        kept = len(self._deferred)
        try:
            async with self._connection.begin_nested():
                yield
        except BaseException:
            del self._deferred[kept:]
            raise

    def defer(self, write: "Write", records: Iterable[Any]) -> None:
        """Write these records last in this transaction: all that are for the same `write` by one call of it."""
        self._deferred += [(write, record) for record in records]

    async def settle(self) -> None:
        """Write what was deferred. Called by `Database` alone."""
        deferred, self._deferred = self._deferred, []
        for write in dict.fromkeys(write for write, _ in deferred):
            await write(self, [record for one, record in deferred if one is write])

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the change is durable, for in-process wake-ups; it must not fail."""
        self._callbacks.append(callback)

    def committed(self) -> None:
        """Run the callbacks. Called by `Database.write` alone."""
        for callback in self._callbacks:
            callback()


Write = Callable[[WriteSession, Sequence[Any]], Awaitable[None]]
"""Writes records of one kind."""


class AutocommitSession(WriteSession):
    """Each statement is a transaction of its own."""

    async def driver(self) -> Any:
        """The asyncpg connection beneath; there is no transaction to begin."""
        return await self._alive()


def violated_constraint(error: IntegrityError) -> str | None:
    """The name of the constraint that a statement ran into."""
    cause = getattr(error.orig, "__cause__", None)
    return getattr(cause, "constraint_name", None)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's ways of saying "not now" into the one error that callers know."""
    try:
        yield
    except PoolTimeout as error:
        raise DependencyUnavailable("database", "All database connections are busy.", retry_after_seconds=1) from error
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        translated = _translate(error)
        if translated is error:
            raise
        raise translated from error


@contextmanager
def reaching_database() -> Iterator[None]:
    """`translated_errors` for a call that does nothing else: what the network says is about the database too."""
    with translated_errors():
        try:
            yield
        except OSError as error:  # TimeoutError is one
            raise DependencyUnavailable("database") from error


def _translate(error: Exception) -> Exception:
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = str(getattr(cause, "sqlstate", None) or "")
    if state == _DISK_FULL:
        return StorageFull("The database has no space left; nothing was changed.", hint="Free space on its volume.")
    if state == _CANCELLED:
        return DependencyUnavailable("database", "The database took too long over this; nothing was changed.")
    if _is_away(error, state):
        is_login = state.startswith(_LOGIN_CLASSES)
        return DependencyUnavailable("database", "The database refuses the platform's login." if is_login else None)
    if state in _BUSY_STATES:
        return DependencyUnavailable(
            "database", "The database is busy with a conflicting change; nothing was changed.", retry_after_seconds=1
        )
    if state.startswith(_DATA_CLASS) or isinstance(_driver_error(cause), asyncpg.DataError):
        return InvalidInput("A value of this request cannot be stored.", hint="Look for NUL characters and huge numbers.")
    return error


def _is_away(error: Exception, state: str) -> bool:
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or state.startswith(_AWAY_CLASSES)
    # Straight from the driver an InterfaceError is a connection that is closed, or the caller's mistake.
    return state.startswith(_AWAY_CLASSES) or (isinstance(error, asyncpg.InterfaceError) and "closed" in str(error))


def _driver_error(cause: BaseException | None) -> BaseException | None:
    return getattr(cause, "__cause__", None) or cause

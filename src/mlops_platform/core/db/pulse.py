"""Notices a database that has stopped answering without hanging up: a frozen server, a cut network.

A connection says nothing then, and whoever waits on it waits for ever: time-outs of statements are kept by the server. A
session that has been open for a while makes this ask the database anew, over a connection of its own. Long work over an
answering database goes on; when there is no answer, every open session ends, and new ones are refused until there is one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import asyncpg
import structlog

from mlops_platform.core.errors import DependencyUnavailable

log = structlog.get_logger(__name__)

_LOOKS_WITHIN = 6


class Pulse:
    """Watches over the open sessions of one database.

    A session open for `long_seconds` makes it ask; no answer within `answer_seconds` means that the database is away.
    """

    def __init__(self, dsn: str, *, long_seconds: float = 3.0, answer_seconds: float = 2.0) -> None:
        self._dsn = dsn
        self._long_seconds = long_seconds
        self._answer_seconds = answer_seconds
        self._open: dict[asyncio.Timeout, float] = {}
        self._is_away = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="database-pulse")

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @asynccontextmanager
    async def guarding(self, *, hint: str | None = None) -> AsyncIterator[None]:
        """A block that ends with `DependencyUnavailable` once the database is found not to answer."""
        away = DependencyUnavailable("database", hint=hint) if hint else DependencyUnavailable("database")
        if self._is_away:
            raise away
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._open[scope] = monotonic()
                yield
        except TimeoutError as error:
            if scope.expired():
                raise away from error
            raise
        finally:
            self._open.pop(scope, None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._long_seconds / _LOOKS_WITHIN)
            oldest = min(self._open.values(), default=None)
            is_long = oldest is not None and monotonic() - oldest > self._long_seconds
            if self._is_away or is_long:
                self._settle(is_away=not await self._answers())

    def _settle(self, *, is_away: bool) -> None:
        if is_away is not self._is_away:
            log.warning("database.silent" if is_away else "database.answers_again", open_sessions=len(self._open))
        self._is_away = is_away
        if is_away:
            now = asyncio.get_running_loop().time()
            for scope in [one for one in self._open if not one.expired()]:
                scope.reschedule(now)

    async def _answers(self) -> bool:
        """Whether there is an answer of any kind; a server that refuses is there, and says so itself."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                connection = await asyncpg.connect(self._dsn)
        except TimeoutError:
            return False
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return True
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await connection.close(timeout=self._answer_seconds)
        return True

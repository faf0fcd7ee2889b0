"""LISTEN/NOTIFY: a nudge between processes. Never the truth: whoever listens also looks by itself from time to time."""

import asyncio
import contextlib
from collections.abc import Callable

import asyncpg
import structlog
from sqlalchemy import func, select

from mlops_platform.core.db.session import WriteSession

log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 1.0


class Listener:
    """One connection per process that hears every channel; it reconnects by itself."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._callbacks: dict[str, list[Callable[[], None]]] = {}
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on(self, channel: str, callback: Callable[[], None]) -> None:
        """Call `callback` at each notification, and after each reconnection (something may have been missed)."""
        self._callbacks.setdefault(channel, []).append(callback)
        self._woken.set()

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._run(), name="database-listener")

    async def stop(self) -> None:
        """Hang up."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                log.debug("database.listener_lost", error=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5)
        heard: set[str] = set()
        try:
            connection.add_termination_listener(lambda _: self._woken.set())
            while not connection.is_closed():
                self._woken.clear()
                for channel in self._callbacks.keys() - heard:
                    await connection.add_listener(channel, self._heard)
                    heard.add(channel)
                    self._call(channel)
                await self._woken.wait()
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=1)

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        self._call(channel)

    def _call(self, channel: str) -> None:
        for callback in self._callbacks[channel]:
            callback()


async def notify(session: WriteSession, channel: str) -> None:
    """Tell every listener of `channel` when this transaction commits."""
    await session.execute(select(func.pg_notify(channel, "")))

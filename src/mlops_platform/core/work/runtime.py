"""What a process has: one of each, made once at start and passed to whoever needs it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mlops_platform.core.auth.authenticator import Authenticator, AuthKeys
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.notify import Listener
from mlops_platform.core.settings import Settings
from mlops_platform.core.storage.ledger import BlobLedger


class Signals:
    """In-process wake-ups by name: "events were written", "definitions changed". Missing one is never an error."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._callbacks: dict[str, list[Callable[[], None]]] = {}
        self.is_stopping = False

    def stop(self) -> None:
        """The process is about to end: whoever waits is woken, and endless answers end."""
        self.is_stopping = True
        for name in list(self._waiting):
            self.send(name)

    def on(self, name: str, callback: Callable[[], None]) -> None:
        """Call `callback` at each signal, on the event loop."""
        self._callbacks.setdefault(name, []).append(callback)

    def send(self, name: str) -> None:
        """Wake whoever waits for `name`."""
        for event in self._waiting.get(name, ()):
            event.set()
        for callback in self._callbacks.get(name, ()):
            callback()

    async def wait(self, name: str, timeout_seconds: float) -> bool:
        """Wait for the next signal, at most this long; whether one came."""
        event = asyncio.Event()
        self._waiting.setdefault(name, set()).add(event)
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting[name].discard(event)
        return True


@dataclass(frozen=True, slots=True)
class Runtime:
    """The collaborators of a process."""

    settings: Settings
    database: Database
    clock: Clock
    auth_keys: AuthKeys
    authenticator: Authenticator
    listener: Listener
    blobs: BlobLedger
    signals: Signals = field(default_factory=Signals)

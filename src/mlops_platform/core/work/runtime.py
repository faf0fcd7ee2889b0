"""What a process has: one of each, made once at start and passed to whoever needs it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mlops_platform.core.auth.authenticator import Authenticator, AuthKeys
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.notify import Listener
from mlops_platform.core.identity import new_id
from mlops_platform.core.settings import Settings
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.telemetry.tracing import Tracer

_ANCHOR = "audit-head"


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
    # For background duties: few connections of their own, so that an idle process keeps few, and requests never wait
    # for a connection that a duty holds.
    duties_database: Database
    signals: Signals = field(default_factory=Signals)
    # Only where spans are exported.
    tracer: Tracer | None = None

    def keep_anchor(self, head: str) -> None:
        """Write the head of the audit chain outside of the database, where there is a home: it finds a cut-off chain."""
        home = self.settings.home
        if home.is_dir():
            draft = home / f".{_ANCHOR}.{new_id()}"
            draft.write_text(head, encoding="ascii")
            draft.replace(home / _ANCHOR)

    def kept_anchor(self) -> str | None:
        """The head that was last kept; None where there is none."""
        try:
            return (self.settings.home / _ANCHOR).read_text(encoding="ascii")
        except OSError:
            return None

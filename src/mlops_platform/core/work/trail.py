"""What a change leaves beside itself: its audit entries and its events, written together, last, in its transaction."""

from collections.abc import Sequence

from mlops_platform.core.audit import record
from mlops_platform.core.audit.record import AuditEntry
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.events import outbox
from mlops_platform.core.events.outbox import Event

_BOTH = f"WITH {record.ENTRIES} {outbox.APPENDING.format('$2')}"


async def leave_trail(session: WriteSession, left: Sequence[AuditEntry | Event]) -> None:
    """Write entries and events in one statement, however many there are."""
    entries = [one for one in left if isinstance(one, AuditEntry)]
    events = [one for one in left if isinstance(one, Event)]
    if entries and events:
        await session.fetch(_BOTH, record.written(entries), outbox.written(events))
    elif entries:
        await record.record_all(session, entries)
    else:
        await outbox.append(session, events)

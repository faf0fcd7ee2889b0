"""What a change leaves beside itself: its audit entries and its events, written together, last, in its transaction."""

import json
from collections.abc import Sequence

from mlops_platform.core.audit import record
from mlops_platform.core.audit.record import Line
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.events import outbox
from mlops_platform.core.events.outbox import Event

_BOTH = f"WITH {record.ENTRIES} {outbox.APPENDING.format('$2')}"


async def leave_trail(session: WriteSession, left: Sequence[Line | Event]) -> None:
    """Write entries and events in one statement, however many there are."""
    lines = [one for one in left if isinstance(one, Line)]
    events = [one for one in left if isinstance(one, Event)]
    if lines and events:
        await session.fetch(_BOTH, json.dumps([line.columns for line in lines]), outbox.written(events))
    elif lines:
        await record.write_lines(session, lines)
    else:
        await outbox.append(session, events)

"""Events: written with the change, numbered after the commit, read by position.

The data model answers one question: how does a reader that remembers "I am at N" never miss an event? A sequence is
taken before the commit, so event 7 can become visible after event 8. Therefore an event gets its `position` only once
it is visible: a single sequencer at a time (advisory lock) numbers what it sees. Two events of one subject come from
transactions that waited for each other, so their insertion order within one numbering is their true order.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, text

from mlops_platform.core.clock import to_wire
from mlops_platform.core.db.notify import notify
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.events.tables import events
from mlops_platform.core.identity import new_id

CHANNEL = "mlops_events"
LINEAGE_STATED = "lineage.stated"
_SEQUENCER_LOCK = 0x6D6C_6F70_0002


@dataclass(frozen=True, slots=True)
class Event:
    """A fact in the past tense. `position` is None until the sequencer has placed it."""

    id: str
    type: str
    subject: str
    project_id: str
    data: Mapping[str, Any]
    occurred_at: datetime
    principal_id: str | None = None
    trace_parent: str | None = None
    position: int | None = None

    def envelope(self) -> dict[str, Any]:
        """CloudEvents 1.0, structured JSON form."""
        service = self.type.partition(".")[0]
        envelope = {
            "specversion": "1.0",
            "id": self.id,
            "source": f"urn:mlops:{self.project_id}:{service}",
            "type": self.type,
            "subject": self.subject,
            "time": to_wire(self.occurred_at),
            "datacontenttype": "application/json",
            "data": dict(self.data),
            "project": self.project_id,
        }
        if self.trace_parent:
            envelope["traceparent"] = self.trace_parent
        return envelope


async def append(session: WriteSession, new: Sequence[Event]) -> None:
    """Write events in the transaction of the change that they tell of."""
    await session.fetch(APPENDING.format("$1"), written(new))


# A statement, or the end of a larger one.
APPENDING = """
    INSERT INTO core.events (id, project_id, type, subject, data, occurred_at, principal_id, trace_parent)
    SELECT * FROM jsonb_to_recordset({}::jsonb) AS given (id uuid, project_id uuid, type text, subject text, data jsonb,
        occurred_at timestamptz, principal_id uuid, trace_parent text)"""


def written(new: Sequence[Event]) -> str:
    """Events as the statement takes them."""
    return json.dumps(
        [
            {
                "id": event.id,
                "project_id": event.project_id,
                "type": event.type,
                "subject": event.subject,
                "data": dict(event.data),
                "occurred_at": event.occurred_at.isoformat(),
                "principal_id": event.principal_id,
                "trace_parent": event.trace_parent,
            }
            for event in new
        ]
    )


def new_event_id() -> str:
    """Events carry stable ids: a redelivery has the same one."""
    return new_id()


async def place(session: WriteSession, *, limit: int = 2000) -> int:
    """Give positions to committed events that have none; how many got one. Readers are told."""
    await session.execute(select(func.pg_advisory_xact_lock(_SEQUENCER_LOCK)))
    placed = await session.execute(_PLACE, {"limit": limit})
    if placed.rowcount:
        await notify(session, CHANNEL)
    return placed.rowcount


_PLACE = text(
    "WITH fresh AS (SELECT id, row_number() OVER (ORDER BY sequence) AS n FROM"
    " (SELECT id, sequence FROM core.events WHERE position IS NULL ORDER BY sequence LIMIT :limit) f),"
    " last AS (SELECT coalesce(max(position), 0) AS position FROM core.events)"
    " UPDATE core.events e SET position = last.position + fresh.n FROM fresh, last WHERE e.id = fresh.id"
)


async def read_after(
    session: ReadSession,
    position: int,
    *,
    limit: int,
    project_id: str | None = None,
    types: Sequence[str] = (),
) -> list[Event]:
    """The next events in order; `types` are exact or end in `.*`."""
    statement = select(events).where(events.c.position > position).order_by(events.c.position).limit(limit)
    if project_id is not None:
        statement = statement.where(events.c.project_id == project_id)
    if types:
        statement = statement.where(func.coalesce(_type_matches(types), False))
    return [from_row(row) for row in await session.all(statement)]


async def last_position(session: ReadSession) -> int:
    """The position of the newest placed event; 0 when there is none."""
    return int(await session.scalar(select(func.coalesce(func.max(events.c.position), 0))))


def from_row(row: Row[Any]) -> Event:
    """An event as the table has it."""
    return Event(
        id=row.id,
        type=row.type,
        subject=row.subject,
        project_id=row.project_id,
        data=row.data,
        occurred_at=row.occurred_at,
        principal_id=row.principal_id,
        trace_parent=row.trace_parent,
        position=row.position,
    )


def _type_matches(types: Sequence[str]) -> Any:
    clauses = [
        events.c.type.startswith(kind[:-1], autoescape=True) if kind.endswith(".*") else events.c.type == kind
        for kind in types
    ]
    clause = clauses[0]
    for other in clauses[1:]:
        clause = clause | other
    return clause


Wake = Callable[[], None]

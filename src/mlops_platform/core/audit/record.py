"""Writing audit entries, in the transaction of the change that they tell of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import Principal, new_id


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which resource, for whom, and what it was before and after."""

    principal: Principal | None
    action: str
    resource: str
    occurred_at: datetime
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    detail: Mapping[str, Any] | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as the statement takes it."""

    columns: Mapping[str, Any]


def digest(value: Mapping[str, Any] | None) -> str | None:
    """SHA-256 of the canonical JSON of a state; None for "was not there"."""
    if value is None:
        return None
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


async def record(session: WriteSession, entry: AuditEntry) -> None:
    """Add one entry. It is durable exactly when the change is."""
    await record_all(session, [entry])


async def record_all(session: WriteSession, entries: Sequence[AuditEntry]) -> None:
    """Add one entry for each of many things that one request changed, in one statement."""
    await write_lines(session, [line_of(entry) for entry in entries])


async def write_lines(session: WriteSession, lines: Sequence[Line]) -> None:
    """The same for entries that were already made lines of."""
    await session.fetch(f"WITH {ENTRIES} SELECT", json.dumps([line.columns for line in lines]))


# For a statement of its own, or as the beginning of a larger one; its only argument is `$1`.
ENTRIES = """
    entries AS (
        INSERT INTO core.audit_entries (id, project_id, occurred_at, principal_id, principal_name, credential_id,
            on_behalf_of, action, resource, before_digest, after_digest, detail, request_id)
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS given (id uuid, project_id uuid, occurred_at timestamptz,
            principal_id uuid, principal_name text, credential_id uuid, on_behalf_of text, action text, resource text,
            before_digest text, after_digest text, detail jsonb, request_id text)
        RETURNING id
    ),
    waiting AS (INSERT INTO core.audit_pending (entry_id) SELECT id FROM entries)"""


def line_of(entry: AuditEntry) -> Line:
    """An entry as it is written; its states are digested as they are now."""
    who = entry.principal
    columns = {
        "id": new_id(),
        "project_id": who.project if who else None,
        "occurred_at": entry.occurred_at.isoformat(),
        "principal_id": who.id if who else None,
        "principal_name": who.name if who else "platform",
        "credential_id": who.credential_id if who else None,
        "on_behalf_of": who.on_behalf_of if who else None,
        "action": entry.action,
        "resource": entry.resource,
        "before_digest": digest(entry.before),
        "after_digest": digest(entry.after),
        "detail": dict(entry.detail) if entry.detail else None,
        "request_id": entry.request_id,
    }
    return Line(columns)

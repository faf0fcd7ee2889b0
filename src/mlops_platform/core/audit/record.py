"""Writing audit entries, in the transaction of the change that they tell of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert

from mlops_platform.core.audit.tables import audit_entries, audit_pending
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
    """Add one entry for each of many things that one request changed."""
    if not entries:
        return
    rows = [{"id": new_id(), **_columns(entry)} for entry in entries]
    await session.execute(insert(audit_entries), rows)
    await session.execute(insert(audit_pending), [{"entry_id": row["id"]} for row in rows])


def _columns(entry: AuditEntry) -> dict[str, Any]:
    who = entry.principal
    return {
        "project_id": who.project if who else None,
        "occurred_at": entry.occurred_at,
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

"""One change: its transaction, its author, its audit entry and its events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_platform.core.audit.record import AuditEntry, line_of
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.events.outbox import LINEAGE_STATED, Event, new_event_id
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.trail import leave_trail


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a request changed, as the audit keeps it."""

    resource: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """What a service object needs to change something. Everything in it commits together or not at all.

    Audit entries and events are written last, in one statement: a lock is held no longer than the change itself needs.
    """

    session: WriteSession
    principal: Principal
    clock: Clock
    request_id: str | None = None
    trace_parent: str | None = None

    async def audit(
        self,
        action: str,
        resource: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """State who did what; the states before and after are kept as digests, `detail` as it is (no secrets)."""
        await self.audit_each(action, [Change(resource, before=before, after=after, detail=detail)])

    async def audit_each(self, action: str, changes: Sequence["Change"]) -> None:
        """The same for many things that one request changed alike."""
        entries = [
            AuditEntry(
                principal=self.principal,
                action=action,
                resource=change.resource,
                occurred_at=self.clock.now(),
                before=change.before,
                after=change.after,
                detail=change.detail,
                request_id=self.request_id,
            )
            for change in changes
        ]
        self.session.defer(leave_trail, [line_of(entry) for entry in entries])

    async def emit(self, event_type: str, subject: str, data: Mapping[str, Any]) -> None:
        """Write an event to the outbox; it is published once this change is durable."""
        await self.emit_each(event_type, [(subject, data)])

    async def emit_each(self, event_type: str, facts: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """The same for many subjects."""
        self.session.defer(leave_trail, [self._event(event_type, subject, data) for subject, data in facts])

    async def link(self, subject: str, relation: str, target: str) -> None:
        """State a lineage edge between two URNs; the Model Registry keeps the graph."""
        await self.emit(LINEAGE_STATED, subject, {"subject": subject, "relation": relation, "object": target})

    def urn(self, kind: str, name: str) -> str:
        """The stable name of a thing of this project."""
        return urn(self.principal.project, kind, name)

    def _event(self, event_type: str, subject: str, data: Mapping[str, Any]) -> Event:
        return Event(
            id=new_event_id(),
            type=event_type,
            subject=subject,
            project_id=self.principal.project,
            data=dict(data),
            occurred_at=self.clock.now(),
            principal_id=self.principal.id,
            trace_parent=self.trace_parent,
        )


def urn(project_id: str, kind: str, name: str) -> str:
    """`urn:mlops:<project>:<kind>:<name>`."""
    return f"urn:mlops:{project_id}:{kind}:{name}"

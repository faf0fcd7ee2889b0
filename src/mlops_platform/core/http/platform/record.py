"""Audit and events: what happened, to look up and to follow."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Query, Request
from sqlalchemy import Row
from starlette.responses import StreamingResponse

from mlops_platform.contracts.common import MAX_INTEGER, Page
from mlops_platform.contracts.platform import AuditItem, AuditVerification
from mlops_platform.core.audit import chain
from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.auth.authenticator import Presented, read_credential
from mlops_platform.core.auth.visibility import visible_to
from mlops_platform.core.errors import DependencyUnavailable, InvalidInput, PlatformError
from mlops_platform.core.events import outbox
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.platform import permissions
from mlops_platform.core.http.routing import platform_router, requires
from mlops_platform.core.work.runtime import Runtime

_KEEP_ALIVE_SECONDS = 15.0
_BATCH = 200

router = platform_router(tags=["platform"])


@router.get("/api/platform/audit", dependencies=[requires(permissions.AUDIT_ADMIN, everywhere=True)])
async def list_audit(
    caller: Caller,
    session: Reading,
    page: PageOf,
    action: Annotated[str | None, Query(max_length=100, description="For example `model_version.created`.")] = None,
    resource: Annotated[str | None, Query(max_length=500)] = None,
    principal: Annotated[str | None, Query(max_length=128)] = None,
) -> Page[AuditItem]:
    """The audit entries of this project, newest first."""
    statement = visible_to(caller, audit_entries)
    wanted = {"action": action, "resource": resource, "principal_name": principal}
    for column, value in wanted.items():
        if value is not None:
            statement = statement.where(audit_entries.c[column] == value)
    if page.after:
        statement = statement.where(audit_entries.c.sequence < page.after[0])
    rows = await session.all(statement.order_by(audit_entries.c.sequence.desc()).limit(page.size + 1))
    return page.answer(rows, _audit_item, lambda row: (row.sequence,))


@router.get("/api/platform/audit/verify", dependencies=[requires(permissions.AUDIT_ADMIN, everywhere=True)])
async def verify_audit(
    session: Reading,
    runtime: RuntimeOf,
    anchor: Annotated[
        str | None, Query(max_length=100, description="A head that was kept elsewhere; absent: the one in `MLOPS_HOME`.")
    ] = None,
) -> AuditVerification:
    """Walk the hash chain of the whole platform; finds an edit, a deletion, a reordering, and (with `anchor`) a cut."""
    anchor = anchor or await asyncio.to_thread(runtime.kept_anchor)
    try:
        anchored = chain.Head.parse(anchor) if anchor else None
    except ValueError as error:
        raise InvalidInput.of("anchor", "must be `<count>:<hash>` as verify prints it", anchor) from error
    found = await chain.verify(session, runtime.auth_keys.audit, anchored)
    return AuditVerification(
        is_intact=not found.problems,
        sealed=found.sealed,
        unsealed=found.unsealed,
        head=str(found.head) if found.head else None,
        problems=list(found.problems),
    )


@router.get(
    "/api/platform/events",
    dependencies=[requires(permissions.EVENTS_READ, everywhere=True)],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow_events(
    request: Request,
    caller: Caller,
    runtime: RuntimeOf,
    types: Annotated[str | None, Query(max_length=1000, description="Comma-separated; `model_version.*` works.")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
    since: Annotated[
        int | None, Query(ge=0, le=MAX_INTEGER, description="Position after which to begin; 0 is the beginning.")
    ] = None,
) -> StreamingResponse:
    """Server-Sent Events of this project, as CloudEvents. Begins now, after `Last-Event-ID`, or after `since`."""
    wanted = [kind.strip() for kind in types.split(",") if kind.strip()] if types else []
    start = since
    if last_event_id:
        start = _position(last_event_id)
    if start is None:
        async with runtime.database.read() as session:
            start = await outbox.last_position(session)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    presented = read_credential(dict(request.headers.raw))
    return StreamingResponse(
        _feed(runtime, presented, caller.project, start, wanted), media_type="text/event-stream", headers=headers
    )


async def _feed(
    runtime: Runtime, presented: Presented | None, project_id: str, position: int, types: list[str]
) -> AsyncIterator[bytes]:
    """Batches as they come; a comment line when nothing comes, so that proxies keep the connection.

    Ends when the credential does, or the database is away: the client comes back with the last id that it saw.
    """
    yield b": connected\n\n"
    silent_since = asyncio.get_running_loop().time()
    while not runtime.signals.is_stopping and await _may_go_on(runtime, presented):
        try:
            async with runtime.database.read() as session:
                newest = await outbox.last_position(session)
                batch = await outbox.read_after(session, position, limit=_BATCH, project_id=project_id, types=types)
        except DependencyUnavailable:
            return
        for event in batch:
            position = event.position or position
            data = json.dumps(event.envelope(), separators=(",", ":"))
            yield f"id: {position}\nevent: {event.type}\ndata: {data}\n\n".encode()
        if batch:
            silent_since = asyncio.get_running_loop().time()
            continue
        # What is not wanted need not be looked through again: no position below this one is ever given later.
        position = max(position, newest)
        await runtime.signals.wait("placed", 1.0)
        if asyncio.get_running_loop().time() - silent_since > _KEEP_ALIVE_SECONDS:
            silent_since = asyncio.get_running_loop().time()
            yield b": still here\n\n"


async def _may_go_on(runtime: Runtime, presented: Presented | None) -> bool:
    """A feed may live for days: what the credential may do is asked again, out of memory most of the time."""
    try:
        if presented is None:
            return False
        caller = await runtime.authenticator.authenticate(presented)
    except PlatformError:
        return False
    return caller.may_everywhere(permissions.EVENTS_READ)


def _position(event_id: str) -> int:
    if not (event_id.isascii() and event_id.isdigit() and len(event_id) < len(str(MAX_INTEGER))):
        raise InvalidInput.of("Last-Event-ID", "must be an id of this feed", event_id[:100])
    return int(event_id)


def _audit_item(row: Row[Any]) -> AuditItem:
    return AuditItem(
        id=row.id,
        sequence=row.sequence,
        occurred_at=row.occurred_at,
        principal=row.principal_name,
        on_behalf_of=row.on_behalf_of,
        action=row.action,
        resource=row.resource,
        before_digest=row.before_digest,
        after_digest=row.after_digest,
        detail=row.detail,
        request_id=row.request_id,
    )

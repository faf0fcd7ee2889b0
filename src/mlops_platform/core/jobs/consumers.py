"""Delivering events to handlers in this process: by cursor, in order, at least once, a poisonous one set aside."""

from datetime import timedelta

import structlog
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.events import outbox
from mlops_platform.core.events.outbox import Event
from mlops_platform.core.events.tables import event_cursors, event_dead_letters
from mlops_platform.core.identity import Grant, Principal, PrincipalId, PrincipalKind, ProjectId, Role
from mlops_platform.core.work.duties import EventHandler
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork

log = structlog.get_logger(__name__)

_BATCH = 100
_MOST_FAILURES = 5
PLATFORM = PrincipalId("0" * 32)


class HandlerFailed(Exception):
    """One event could not be handled, after so many before it in its batch; the cause says why."""

    def __init__(self, event: Event, before: int) -> None:
        super().__init__(f"event {event.id} ({event.type})")
        self.event = event
        self.before = before


def platform_principal(project_id: str) -> Principal:
    """Who acts when an event handler does."""
    return Principal(
        PrincipalId(PLATFORM), "platform", PrincipalKind.SERVICE, ProjectId(project_id), (Grant(Role.SERVICE),)
    )


async def deliver(runtime: Runtime, handler: EventHandler) -> bool:
    """One batch; whether there was anything. Handlers and the cursor commit together."""
    try:
        return await _deliver(runtime, handler, _BATCH)
    except HandlerFailed as failed:
        # All was undone: the good ones before it pass first, then it is alone.
        before = failed.before
    try:
        return await _deliver(runtime, handler, before or 1)
    except HandlerFailed as failed:
        await _count_failure(runtime, handler, failed)
        return True


async def _deliver(runtime: Runtime, handler: EventHandler, limit: int) -> bool:
    now = runtime.clock.now()
    async with runtime.database.write() as session:
        await _ensure_cursor(session, handler)
        cursor = await session.first(
            select(event_cursors).where(event_cursors.c.consumer == handler.consumer).with_for_update(skip_locked=True)
        )
        if cursor is None or (cursor.retry_at is not None and cursor.retry_at > now):
            return False
        newest = await outbox.last_position(session)
        batch = await outbox.read_after(session, cursor.position, limit=limit, types=handler.types)
        for before, event in enumerate(batch):
            work = UnitOfWork(session, platform_principal(event.project_id), runtime.clock, trace_parent=event.trace_parent)
            try:
                await handler.handle(work, event)
            except DependencyUnavailable:
                raise
            except Exception as error:
                raise HandlerFailed(event, before) from error
        # Events of other types are passed over for good: positions below `newest` never appear later.
        # The last one of a batch may have been placed after `newest` was read.
        last = batch[-1].position or 0 if batch else 0
        reached = last if len(batch) == limit else max(newest, cursor.position, last)
        if reached != cursor.position:
            await session.execute(
                update(event_cursors)
                .where(event_cursors.c.consumer == handler.consumer)
                .values(position=reached, failures=0, retry_at=None)
            )
            session.after_commit(lambda: runtime.signals.send("events"))
    return bool(batch)


async def _count_failure(runtime: Runtime, handler: EventHandler, failed: HandlerFailed) -> None:
    """Try again later; after the fifth time set the event aside and go on.

    The cursor was free since the failure: another replica may have passed the event by now, or have failed with it, too.
    """
    now = runtime.clock.now()
    async with runtime.database.write() as session:
        await _ensure_cursor(session, handler)
        mine = event_cursors.c.consumer == handler.consumer
        cursor = await session.first(select(event_cursors).where(mine).with_for_update())
        if cursor is None or cursor.position >= (failed.event.position or 0):
            return
        if cursor.retry_at is not None and cursor.retry_at > now:
            return
        failures = cursor.failures + 1
        if failures < _MOST_FAILURES:
            retry_at = now + timedelta(seconds=2.0**failures)
            await session.execute(update(event_cursors).where(mine).values(failures=failures, retry_at=retry_at))
            log.warning("event.retry", consumer=handler.consumer, event_id=failed.event.id, failures=failures)
            return
        await session.execute(
            upsert(event_dead_letters)
            .values(consumer=handler.consumer, event_id=failed.event.id, error=repr(failed.__cause__)[:2000], failed_at=now)
            .on_conflict_do_nothing()
        )
        await session.execute(
            update(event_cursors).where(mine).values(position=failed.event.position, failures=0, retry_at=None)
        )
    log.error("event.dead", consumer=handler.consumer, event_id=failed.event.id, exc_info=failed.__cause__)


async def _ensure_cursor(session: WriteSession, handler: EventHandler) -> None:
    """Where the handler stands; what a failed batch has made is undone with it."""
    first = upsert(event_cursors).values(consumer=handler.consumer, position=0)
    await session.execute(first.on_conflict_do_nothing(index_elements=["consumer"]))

"""Runs background duties. Each is a claimed row: any replica may take it, and there is no leader."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.audit import chain
from mlops_platform.core.auth import directory
from mlops_platform.core.errors import PlatformError
from mlops_platform.core.events import outbox, webhooks
from mlops_platform.core.identity import new_id
from mlops_platform.core.jobs import consumers
from mlops_platform.core.jobs.tables import duties
from mlops_platform.core.work.duties import Duty, EventHandler, Periodic
from mlops_platform.core.work.runtime import Runtime

log = structlog.get_logger(__name__)

_CLAIM_SECONDS = 60.0
_SEQUENCER_IDLE_SECONDS = 0.25
_CONSUMER_IDLE_SECONDS = 1.0
# Changes that are made within this time are placed by one turn, and heard by one: a turn costs more than most changes.
_GATHER_SECONDS = 0.1
_PLACED_AT_ONCE = 2000
_LONGEST_BACKOFF_SECONDS = 30.0
_NOTE_USED_SECONDS = 30.0
_SEALED_AT_ONCE = 1000


class Runner:
    """The duties of one process: the sequencer, the sealer, and those that the services declare."""

    def __init__(self, runtime: Runtime, declared: Sequence[tuple[Duty, Any]]) -> None:
        self._runtime = runtime
        self._declared = declared
        self._me = new_id()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; returns at once."""
        self._spawn("sequencer", self._place_events())
        self._spawn("credential-use", self._note_used())
        self._spawn("webhooks", self._deliver_webhooks())
        for duty, state in (*((duty, None) for duty in OWN_DUTIES), *self._declared):
            if isinstance(duty, EventHandler):
                self._spawn(duty.consumer, self._consume(duty))
            else:
                self._spawn(duty.name, self._run_periodic(duty, state))

    async def stop(self) -> None:
        """End between two steps; what was under way is rolled back and done again by whoever claims it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What was cut off is free at once, instead of when the claim of a dead replica runs out.
        with contextlib.suppress(PlatformError):
            async with self._runtime.database.write() as session:
                await session.execute(update(duties).where(duties.c.claimed_by == self._me).values(claimed_until=None))

    def _spawn(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _place_events(self) -> None:
        backoff = _Backoff("sequencer")
        while True:
            async with backoff:
                async with self._runtime.database.write() as session:
                    placed = await outbox.place(session, limit=_PLACED_AT_ONCE)
                if placed:
                    self._runtime.signals.send("placed")
                if placed == _PLACED_AT_ONCE:
                    continue
            if await self._runtime.signals.wait("events", backoff.seconds or _SEQUENCER_IDLE_SECONDS):
                await asyncio.sleep(_GATHER_SECONDS)

    async def _consume(self, handler: EventHandler) -> None:
        backoff = _Backoff(handler.consumer)
        while True:
            async with backoff:
                if await consumers.deliver(self._runtime, handler):
                    continue
            await self._runtime.signals.wait("placed", backoff.seconds or _CONSUMER_IDLE_SECONDS)

    async def _deliver_webhooks(self) -> None:
        backoff, runtime = _Backoff("webhooks"), self._runtime
        allowed = runtime.settings.webhook_allowed_hosts
        async with webhooks.opened(runtime.database, runtime.clock, runtime.auth_keys.sealing, allowed) as courier:
            while True:
                async with backoff:
                    if await courier.turn():
                        continue
                await runtime.signals.wait("placed", backoff.seconds or _CONSUMER_IDLE_SECONDS)

    async def _note_used(self) -> None:
        """This process' own: which credentials it saw is known nowhere else."""
        backoff = _Backoff("credential-use")
        while True:
            await asyncio.sleep(backoff.seconds or _NOTE_USED_SECONDS)
            async with backoff:
                if used := self._runtime.authenticator.take_used():
                    async with self._runtime.database.write() as session:
                        await directory.note_used(session, used)

    async def _run_periodic(self, duty: Periodic, state: Any) -> None:
        backoff = _Backoff(duty.name)
        while True:
            async with backoff:
                if await self._claim(duty):
                    await self._hold_while(duty, duty.run(self._runtime, state))
                    await self._done(duty)
            await asyncio.sleep(backoff.seconds or duty.every_seconds)

    async def _claim(self, duty: Periodic) -> bool:
        now = self._runtime.clock.now()
        until = now + timedelta(seconds=_CLAIM_SECONDS)
        free = or_(duties.c.claimed_until.is_(None), duties.c.claimed_until < now, duties.c.claimed_by == self._me)
        async with self._runtime.database.write() as session:
            await session.execute(
                upsert(duties).values(name=duty.name, due_at=now).on_conflict_do_nothing(index_elements=["name"])
            )
            claimed = select(duties.c.name).where(duties.c.name == duty.name, duties.c.due_at <= now, free)
            if await session.scalar(claimed.with_for_update(skip_locked=True)) is None:
                return False
            await session.execute(
                update(duties).where(duties.c.name == duty.name).values(claimed_by=self._me, claimed_until=until)
            )
        return True

    async def _hold_while(self, duty: Periodic, work: Awaitable[None]) -> None:
        """Run it, and renew the claim meanwhile: a long turn must not be taken for a dead replica."""
        holder = asyncio.create_task(self._renew(duty), name=f"{duty.name}-claim")
        try:
            await work
        finally:
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)

    async def _renew(self, duty: Periodic) -> None:
        backoff = _Backoff(f"{duty.name}-claim")
        while True:
            await asyncio.sleep(backoff.seconds or _CLAIM_SECONDS / 3)
            async with backoff, self._runtime.database.write() as session:
                until = self._runtime.clock.now() + timedelta(seconds=_CLAIM_SECONDS)
                await session.execute(
                    update(duties)
                    .where(duties.c.name == duty.name, duties.c.claimed_by == self._me)
                    .values(claimed_until=until)
                )

    async def _done(self, duty: Periodic) -> None:
        # A little early, so that this replica's own next turn finds it due.
        due = self._runtime.clock.now() + timedelta(seconds=duty.every_seconds * 0.9)
        async with self._runtime.database.write() as session:
            await session.execute(
                update(duties)
                .where(duties.c.name == duty.name, duties.c.claimed_by == self._me)
                .values(claimed_until=None, due_at=due)
            )


class _Backoff:
    """Waits longer after each failure in a row. The edge of a background loop: nothing may end it but its own end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.seconds = 0.0

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None:
            self.seconds = 0.0
            return False
        if not isinstance(error, Exception):
            return False
        self.seconds = min(max(self.seconds * 2, 0.5), _LONGEST_BACKOFF_SECONDS)
        if isinstance(error, PlatformError):
            log.warning("duty.failed", duty=self._name, error=error.detail, retry_in_seconds=self.seconds)
        else:
            log.error("duty.crashed", duty=self._name, retry_in_seconds=self.seconds, exc_info=error)
        return True


async def _seal(runtime: Runtime, _: Any) -> None:
    sealed = _SEALED_AT_ONCE
    last: chain.Head | None = None
    # Until the backlog is gone: what comes in meanwhile has time until the next turn.
    while sealed == _SEALED_AT_ONCE:
        async with runtime.database.write() as session:
            head = await chain.seal(session, runtime.auth_keys.audit, runtime.clock.now(), limit=_SEALED_AT_ONCE)
        if head is None:
            return
        sealed = head.position - last.position if last else _SEALED_AT_ONCE
        last = head
        log.debug("audit.sealed", head=str(head))
        with contextlib.suppress(OSError):
            await asyncio.to_thread(runtime.keep_anchor, str(head))


async def _sweep(runtime: Runtime, _: Any) -> None:
    if swept := await runtime.blobs.sweep_all():
        log.info("storage.swept", blobs=swept)


async def _sweep_webhooks(runtime: Runtime, _: Any) -> None:
    async with runtime.database.write() as session:
        await webhooks.sweep(session, runtime.clock.now())


OWN_DUTIES: tuple[Duty, ...] = (
    Periodic("audit.seal", 1.0, _seal),
    Periodic("storage.sweep", 600.0, _sweep),
    Periodic("webhooks.sweep", 3600.0, _sweep_webhooks),
)

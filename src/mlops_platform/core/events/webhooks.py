"""Webhooks: events of a project, sent to an address of its choosing, signed, retried, and set aside when nobody answers.

Signed after the Standard Webhooks specification (https://www.standardwebhooks.com). A delivery is a row that any replica
may claim; it is counted before it is sent, so a crash repeats it and never loses it.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.clock import Clock
from mlops_platform.core.crypto.seal import seal, unseal
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.errors import PlatformError
from mlops_platform.core.events import outbox
from mlops_platform.core.events.outbox import Event
from mlops_platform.core.events.tables import event_cursors, events, webhook_deliveries, webhooks
from mlops_platform.core.net.safe_client import CallPolicy, CheckedTransport, SafeClient

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 8
_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 6 * 3600.0
_CLAIM_SECONDS = 60.0
_CLAIMED_AT_ONCE = 16
_OF_ONE_WEBHOOK = 4  # a slow receiver must not hold up the others
_FANNED_OUT_AT_ONCE = 1000
_KEPT_DAYS = 7
_CONSUMER = "webhooks"
_SECRET_PREFIX = "whsec_"  # noqa: S105  # a prefix, not a secret
_GONE = 410


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt: the status, if there was an answer, or what went wrong."""

    status: int | None
    error: str | None

    @property
    def is_delivered(self) -> bool:
        """Any 2xx takes the event."""
        return self.error is None


def make_secret() -> str:
    """A new signing secret."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def seal_secret(key: bytes, webhook_id: str, secret: str) -> bytes:
    """The secret as the table keeps it."""
    return seal(key, secret.encode(), _context(webhook_id))


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64 HMAC-SHA256>` over id, time and body."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def delay_seconds(attempts: int, chance: float) -> float:
    """How long to wait after so many attempts: four times longer each time, and not in step with the others.

    >>> [delay_seconds(n, 1.0) for n in (1, 2, 3)], delay_seconds(1, 0.0), delay_seconds(99, 1.0)
    ([5.0, 20.0, 80.0], 2.5, 21600.0)
    """
    longest = min(_FIRST_DELAY_SECONDS * 4.0 ** (min(attempts, 20) - 1), _LONGEST_DELAY_SECONDS)
    return longest * (0.5 + 0.5 * chance)


def policy(allowed_hosts: Sequence[str]) -> CallPolicy:
    """Public addresses on the usual ports, and what the operator allows beside them, as `host` or `host:port`."""
    origins: set[str] = set()
    for host in allowed_hosts:
        has_port = host.rpartition(":")[2].isdigit() and not host.endswith("]")
        origins |= {host} if has_port else {f"{host}:80", f"{host}:443"}
    return CallPolicy(internal_origins=frozenset(origins))


class Courier:
    """Makes deliveries out of events, and takes them where they belong."""

    def __init__(self, database: Database, clock: Clock, key: bytes, client: SafeClient) -> None:
        self._database = database
        self._clock = clock
        self._key = key
        self._client = client

    async def check(self, url: str) -> None:
        """Raise `UnsafeAddress` or `EndpointUnreachable` unless the address may be called, as of now."""
        await self._client.check(url)

    async def turn(self) -> bool:
        """Fan out what is new, deliver what is due; whether there was anything."""
        fanned_out = await self._fan_out()
        claimed = await self._claim()
        await asyncio.gather(*(self._attempt(row) for row in claimed))
        return bool(claimed) or fanned_out

    async def send(self, url: str, webhook_id: str, secret_sealed: bytes, event: Event) -> Outcome:
        """One call. What the other side writes back is not kept: it is nobody's business here."""
        body = json.dumps(event.envelope(), separators=(",", ":")).encode()
        timestamp = int(self._clock.now().timestamp())
        try:
            secret = unseal(self._key, secret_sealed, _context(webhook_id)).decode()
            headers = {
                "Content-Type": "application/cloudevents+json",
                "User-Agent": "mlops-platform-webhooks",
                "webhook-id": event.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signature(secret, event.id, timestamp, body),
            }
            answer = await self._client.call("POST", url, headers=headers, content=body)
        except PlatformError as error:
            return Outcome(None, error.detail[:500])
        return Outcome(answer.status, None if 200 <= answer.status < 300 else f"answered {answer.status}")

    async def _fan_out(self) -> bool:
        """A row for each webhook that wants an event; once, however often this is repeated."""
        async with self._database.write() as session:
            await session.execute(
                upsert(event_cursors)
                .values(consumer=_CONSUMER, position=0)
                .on_conflict_do_nothing(index_elements=["consumer"])
            )
            cursor = select(event_cursors.c.position).where(event_cursors.c.consumer == _CONSUMER)
            position = await session.scalar(cursor.with_for_update(skip_locked=True))
            newest = await outbox.last_position(session)
            if position is None or position >= newest:
                return False
            reached = min(newest, position + _FANNED_OUT_AT_ONCE)
            await session.execute(_FAN_OUT, {"after": position, "reached": reached, "now": self._clock.now()})
            await session.execute(
                update(event_cursors).where(event_cursors.c.consumer == _CONSUMER).values(position=reached)
            )
        return True

    async def _claim(self) -> Sequence[Row[Any]]:
        now = self._clock.now()
        queue = (
            select(
                webhook_deliveries.c.id,
                func.row_number()
                .over(partition_by=webhook_deliveries.c.webhook_id, order_by=webhook_deliveries.c.next_attempt_at)
                .label("place"),
            )
            .join(webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)
            .where(webhook_deliveries.c.next_attempt_at <= now, webhook_deliveries.c.delivered_at.is_(None))
            .where(~webhook_deliveries.c.is_dead, webhooks.c.is_active, webhooks.c.deleted_at.is_(None))
            .subquery()
        )
        due = (
            select(webhook_deliveries.c.id)
            .where(webhook_deliveries.c.id.in_(select(queue.c.id).where(queue.c.place <= _OF_ONE_WEBHOOK)))
            .where(webhook_deliveries.c.next_attempt_at <= now)  # again: it is looked at anew once the row is held
            .limit(_CLAIMED_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        async with self._database.write() as session:
            ids = [row.id for row in await session.all(due)]
            if not ids:
                return []
            await session.execute(
                update(webhook_deliveries)
                .where(webhook_deliveries.c.id.in_(ids))
                .values(
                    attempts=webhook_deliveries.c.attempts + 1,
                    next_attempt_at=now + timedelta(seconds=_CLAIM_SECONDS),
                )
            )
            return await session.all(
                select(
                    webhook_deliveries.c.id.label("delivery_id"),
                    webhook_deliveries.c.attempts,
                    webhook_deliveries.c.webhook_id,
                    webhooks.c.url,
                    webhooks.c.secret_sealed,
                    *(events.c[name].label(f"event_{name}") for name in Event.__slots__),
                )
                .join(webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)
                .join(events, events.c.id == webhook_deliveries.c.event_id)
                .where(webhook_deliveries.c.id.in_(ids))
            )

    async def _attempt(self, row: Row[Any]) -> None:
        event = _event(row)
        outcome = await self.send(row.url, row.webhook_id, row.secret_sealed, event)
        now = self._clock.now()
        is_dead = not outcome.is_delivered and (row.attempts >= MOST_ATTEMPTS or outcome.status == _GONE)
        chance = random.random()  # noqa: S311  # to spread load, not to hide
        async with self._database.write() as session:
            await session.execute(
                update(webhook_deliveries)
                .where(webhook_deliveries.c.id == row.delivery_id)
                .values(
                    delivered_at=now if outcome.is_delivered else None,
                    last_status=outcome.status,
                    last_error=outcome.error,
                    is_dead=is_dead,
                    next_attempt_at=now + timedelta(seconds=delay_seconds(row.attempts, chance)),
                )
            )
            if outcome.status == _GONE:
                # The receiver says that it wants no more: https://www.standardwebhooks.com
                await session.execute(update(webhooks).where(webhooks.c.id == row.webhook_id).values(is_active=False))
        if is_dead:
            log.warning("webhook.dead", webhook_id=row.webhook_id, event_id=event.id, error=outcome.error)


@asynccontextmanager
async def opened(database: Database, clock: Clock, key: bytes, allowed_hosts: Sequence[str]) -> AsyncIterator[Courier]:
    """A courier with a client of its own."""
    rules = policy(allowed_hosts)
    client = SafeClient(rules, CheckedTransport(rules))
    try:
        yield Courier(database, clock, key, client)
    finally:
        await client.aclose()


async def sweep(session: WriteSession, now: datetime) -> int:
    """Forget deliveries that are done for a week, and those of webhooks that are gone; how many."""
    gone = select(webhooks.c.id).where(webhooks.c.deleted_at.is_not(None))
    is_over = or_(webhook_deliveries.c.delivered_at.is_not(None), webhook_deliveries.c.is_dead)
    is_old = webhook_deliveries.c.created_at < now - timedelta(days=_KEPT_DAYS)
    swept = await session.execute(
        delete(webhook_deliveries).where(or_(is_over & is_old, webhook_deliveries.c.webhook_id.in_(gone)))
    )
    return swept.rowcount


_FAN_OUT = text(
    "INSERT INTO core.webhook_deliveries (id, project_id, webhook_id, event_id, next_attempt_at, created_at)"
    " SELECT gen_random_uuid(), e.project_id, w.id, e.id, :now, :now"
    " FROM core.events e JOIN core.webhooks w ON w.project_id = e.project_id"
    " WHERE e.position > :after AND e.position <= :reached AND w.is_active AND w.deleted_at IS NULL"
    " AND (e.type = ANY (w.event_types) OR split_part(e.type, '.', 1) || '.*' = ANY (w.event_types))"
    " ON CONFLICT (webhook_id, event_id) DO NOTHING"
)


def _event(row: Row[Any]) -> Event:
    return Event(**{name: getattr(row, f"event_{name}") for name in Event.__slots__})


def _context(webhook_id: str) -> bytes:
    return b"webhook\0" + webhook_id.encode()

"""Webhooks: where the events of a project are sent."""

from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import Path, Query
from sqlalchemy import Row, func, insert, select, update

from mlops_platform.contracts.common import ID_PATTERN, Page
from mlops_platform.contracts.platform import (
    NewWebhook,
    Removed,
    Webhook,
    WebhookCreate,
    WebhookDelivery,
    WebhookTested,
)
from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.errors import Conflict, InvalidInput, NotFound
from mlops_platform.core.events import webhooks as delivery
from mlops_platform.core.events.outbox import Event
from mlops_platform.core.events.tables import events, webhook_deliveries, webhooks
from mlops_platform.core.events.webhooks import Courier
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.platform import permissions
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Principal, new_id
from mlops_platform.core.net.errors import EndpointUnreachable, UnsafeAddress
from mlops_platform.core.work.runtime import Runtime

_MOST_WEBHOOKS = 100

router = platform_router(tags=["platform"])
IdPath = Annotated[str, Path(pattern=ID_PATTERN)]
_admin = requires(permissions.WEBHOOKS_ADMIN, everywhere=True)


class WebhookNotFound(NotFound):
    """No such webhook in this project."""

    code = "webhook_not_found"


class DeliveryNotFound(NotFound):
    """No such delivery of this webhook."""

    code = "delivery_not_found"


class TooManyWebhooks(Conflict):
    """A project has its share."""

    code = "too_many_webhooks"


def courier(runtime: Runtime) -> AbstractAsyncContextManager[Courier]:
    """What sends, with the rules of this deployment."""
    allowed = runtime.settings.webhook_allowed_hosts
    return delivery.opened(runtime.database, runtime.clock, runtime.auth_keys.sealing, allowed)


@router.post(
    "/api/platform/webhooks",
    status_code=201,
    dependencies=[_admin],
    responses=problems(UnsafeAddress, TooManyWebhooks),
)
async def create_webhook(body: WebhookCreate, work: Work, runtime: RuntimeOf) -> NewWebhook:
    """Send events of this project to an address. The signing secret is in this answer and nowhere else."""
    async with courier(runtime) as sender:
        try:
            await sender.check(body.url)
        except EndpointUnreachable as error:
            raise InvalidInput.of("url", error.detail, body.url[:200]) from error
    live = in_project(work.principal, webhooks) & webhooks.c.deleted_at.is_(None)
    if await work.session.scalar(select(func.count()).select_from(webhooks).where(live)) >= _MOST_WEBHOOKS:
        raise TooManyWebhooks(f"This project has {_MOST_WEBHOOKS} webhooks, the most that it may have.")
    webhook_id, secret, now = new_id(), delivery.make_secret(), work.clock.now()
    await work.session.execute(
        insert(webhooks).values(
            id=webhook_id,
            project_id=work.principal.project,
            url=body.url,
            event_types=body.event_types,
            secret_sealed=delivery.seal_secret(runtime.auth_keys.sealing, webhook_id, secret),
            created_at=now,
        )
    )
    await work.audit("webhook.created", f"webhook:{webhook_id}", after=body.model_dump(mode="json"))
    return NewWebhook(
        id=webhook_id, url=body.url, event_types=body.event_types, is_active=True, created_at=now, secret=secret
    )


@router.get("/api/platform/webhooks", dependencies=[_admin])
async def list_webhooks(caller: Caller, session: Reading, page: PageOf) -> Page[Webhook]:
    """The webhooks of this project, oldest first. Never their secrets."""
    statement = visible_to(caller, webhooks).where(webhooks.c.deleted_at.is_(None))
    if page.after:
        statement = statement.where(webhooks.c.id > page.after[0])
    rows = await session.all(statement.order_by(webhooks.c.id).limit(page.size + 1))
    return page.answer(rows, _webhook, lambda row: (row.id,))


@router.delete("/api/platform/webhooks/{webhook_id}", dependencies=[_admin], responses=problems(WebhookNotFound))
async def delete_webhook(webhook_id: IdPath, work: Work) -> Removed:
    """Send nothing more to it, not even what waits."""
    row = await _found(work.session, work.principal, webhook_id)
    await work.session.execute(
        update(webhooks)
        .where(in_project(work.principal, webhooks), webhooks.c.id == webhook_id)
        .values(deleted_at=work.clock.now(), is_active=False)
    )
    before = {"url": row.url, "event_types": row.event_types}
    await work.audit("webhook.deleted", f"webhook:{webhook_id}", before=before)
    return Removed(id=webhook_id)


@router.post("/api/platform/webhooks/{webhook_id}/test", dependencies=[_admin], responses=problems(WebhookNotFound))
async def test_webhook(webhook_id: IdPath, caller: Caller, runtime: RuntimeOf) -> WebhookTested:
    """Send a `webhook.tested` event now, once, and say what came of it. It changes nothing."""
    async with runtime.database.read() as session:
        row = await _found(session, caller, webhook_id)
    event = Event(
        id=new_id(),
        type="webhook.tested",
        subject=f"webhook:{webhook_id}",
        project_id=caller.project,
        data={"principal": caller.name},
        occurred_at=runtime.clock.now(),
    )
    async with courier(runtime) as sender:
        outcome = await sender.send(row.url, webhook_id, row.secret_sealed, event)
    return WebhookTested(is_delivered=outcome.is_delivered, status=outcome.status, error=outcome.error)


@router.get("/api/platform/webhooks/{webhook_id}/deliveries", dependencies=[_admin], responses=problems(WebhookNotFound))
async def list_deliveries(
    webhook_id: IdPath,
    caller: Caller,
    session: Reading,
    page: PageOf,
    is_dead: Annotated[bool | None, Query(description="Only those that were given up, or only the others.")] = None,
) -> Page[WebhookDelivery]:
    """What was sent, waits, or was given up: newest first, for a week."""
    await _found(session, caller, webhook_id)
    statement = (
        visible_to(caller, webhook_deliveries)
        .add_columns(events.c.type.label("event_type"), events.c.position)
        .join(events, events.c.id == webhook_deliveries.c.event_id)
        .where(webhook_deliveries.c.webhook_id == webhook_id)
    )
    if is_dead is not None:
        statement = statement.where(webhook_deliveries.c.is_dead == is_dead)
    if page.after:
        statement = statement.where(events.c.position < page.after[0])
    rows = await session.all(statement.order_by(events.c.position.desc()).limit(page.size + 1))
    return page.answer(rows, _delivery, lambda row: (row.position,))


@router.post(
    "/api/platform/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    dependencies=[_admin],
    responses=problems(WebhookNotFound, DeliveryNotFound),
)
async def redeliver(webhook_id: IdPath, delivery_id: IdPath, work: Work) -> WebhookDelivery:
    """Send an event again, with the attempts counted anew: one that was given up, or one that the receiver lost."""
    await _found(work.session, work.principal, webhook_id)
    mine = in_project(work.principal, webhook_deliveries) & (webhook_deliveries.c.id == delivery_id)
    changed = await work.session.execute(
        update(webhook_deliveries)
        .where(mine, webhook_deliveries.c.webhook_id == webhook_id)
        .values(attempts=0, is_dead=False, delivered_at=None, next_attempt_at=work.clock.now())
    )
    if changed.rowcount == 0:
        raise DeliveryNotFound(f"There is no delivery {delivery_id!r} of this webhook; they are kept for a week.")
    await work.audit("webhook.redelivered", f"webhook:{webhook_id}", after={"delivery_id": delivery_id})
    statement = visible_to(work.principal, webhook_deliveries).add_columns(events.c.type.label("event_type"))
    row = await work.session.first(
        statement.join(events, events.c.id == webhook_deliveries.c.event_id).where(webhook_deliveries.c.id == delivery_id)
    )
    if row is None:
        raise DeliveryNotFound(f"There is no delivery {delivery_id!r} of this webhook; they are kept for a week.")
    return _delivery(row)


async def _found(session: ReadSession, caller: Principal, webhook_id: str) -> Row[Any]:
    row = await session.first(
        visible_to(caller, webhooks).where(webhooks.c.id == webhook_id, webhooks.c.deleted_at.is_(None))
    )
    if row is None:
        raise WebhookNotFound(f"There is no webhook {webhook_id!r} in this project.")
    return row


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(**{name: getattr(row, name) for name in Webhook.model_fields})


def _delivery(row: Row[Any]) -> WebhookDelivery:
    fields = {name: getattr(row, name) for name in WebhookDelivery.model_fields}
    is_over = row.is_dead or row.delivered_at is not None
    return WebhookDelivery(**{**fields, "next_attempt_at": None if is_over else row.next_attempt_at})

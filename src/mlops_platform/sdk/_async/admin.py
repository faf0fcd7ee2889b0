"""What every service answers: who am I, keys, tokens, grants, projects, audit, events, webhooks."""

from collections.abc import AsyncIterator, Sequence

import httpx2

from mlops_platform.contracts.common import Answer
from mlops_platform.contracts.platform import (
    ApiKey,
    AuditItem,
    AuditVerification,
    GrantItem,
    Health,
    NewApiKey,
    NewToken,
    NewWebhook,
    Project,
    Readiness,
    Version,
    Webhook,
    Whoami,
)
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient
from mlops_platform.sdk.errors import PlatformUnreachable
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.wire import given, segment

SILENCE_SECONDS = 60.0
"""The feed says something every quarter of a minute, if only that it is there."""


class Event(Answer):
    """One event of the feed, as it arrived."""

    id: str
    type: str
    data: str


class AsyncAdmin:
    """Identity, projects, audit and events. All services answer alike; this asks the registry unless told otherwise."""

    def __init__(self, pool: AsyncPool, settings: ClientSettings, service: Service = Service.REGISTRY) -> None:
        self._client = AsyncServiceClient(service, pool, settings)

    async def health(self) -> Health:
        return await self._client.get(Health, "/health")

    async def readiness(self) -> Readiness:
        return await self._client.get(Readiness, "/ready")

    async def version(self) -> Version:
        return await self._client.get(Version, "/version")

    async def whoami(self) -> Whoami:
        return await self._client.get(Whoami, "/api/platform/whoami")

    # Credentials

    async def create_key(
        self,
        name: str,
        *,
        principal: str | None = None,
        kind: str | None = None,
        role: str | None = None,
        scopes: Sequence[str] | None = None,
        expires_in_days: int | None = 90,
    ) -> NewApiKey:
        """A new API key; its secret is in the answer and nowhere else. `expires_in_days=None`: it does not expire."""
        body = given(name=name, principal=principal, kind=kind, role=role, scopes=scopes)
        body["expires_in_days"] = expires_in_days
        return await self._client.send("POST", "/api/platform/keys", NewApiKey, json=body)

    def api_keys(self, *, limit: int | None = None) -> AsyncIterator[ApiKey]:
        return self._client.pages(ApiKey, "/api/platform/keys", limit=limit)

    async def rotate_key(self, key_id: str, *, overlap_seconds: int | None = None) -> NewApiKey:
        """A successor; the old key goes on for `overlap_seconds` (a day unless said otherwise)."""
        path = f"/api/platform/keys/{segment(key_id)}/rotate"
        return await self._client.send("POST", path, NewApiKey, params=given(overlap_seconds=overlap_seconds))

    async def revoke_key(self, key_id: str) -> None:
        await self._client.request("DELETE", f"/api/platform/keys/{segment(key_id)}")

    async def create_token(
        self,
        name: str,
        *,
        principal: str | None = None,
        scopes: Sequence[str] | None = None,
        on_behalf_of: str | None = None,
        ttl_seconds: int | None = None,
    ) -> NewToken:
        """A short-lived service token."""
        body = given(name=name, principal=principal, scopes=scopes, on_behalf_of=on_behalf_of, ttl_seconds=ttl_seconds)
        return await self._client.send("POST", "/api/platform/tokens", NewToken, json=body)

    async def revoke_token(self, token_id: str) -> None:
        await self._client.request("DELETE", f"/api/platform/tokens/{segment(token_id)}")

    async def grant(self, principal: str, role: str, *, pattern: str | None = None, kind: str | None = None) -> GrantItem:
        """Give a principal a role in this project."""
        body = given(principal=principal, role=role, pattern=pattern, kind=kind)
        return await self._client.send("POST", "/api/platform/grants", GrantItem, json=body)

    def grants(self, *, limit: int | None = None) -> AsyncIterator[GrantItem]:
        return self._client.pages(GrantItem, "/api/platform/grants", limit=limit)

    async def revoke_grant(self, grant_id: str) -> None:
        await self._client.request("DELETE", f"/api/platform/grants/{segment(grant_id)}")

    # Projects

    async def create_project(self, name: str, *, description: str | None = None) -> Project:
        return await self._client.send(
            "POST", "/api/platform/projects", Project, json=given(name=name, description=description)
        )

    def projects(self, *, limit: int | None = None) -> AsyncIterator[Project]:
        return self._client.pages(Project, "/api/platform/projects", limit=limit)

    # Audit and events

    def audit(
        self,
        *,
        resource: str | None = None,
        principal: str | None = None,
        action: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AuditItem]:
        params = given(resource=resource, principal=principal, action=action)
        return self._client.pages(AuditItem, "/api/platform/audit", params=params, limit=limit)

    async def verify_audit(self, *, anchor: str | None = None) -> AuditVerification:
        """Walk the hash chain; `anchor` is a head that was kept elsewhere."""
        return await self._client.get(AuditVerification, "/api/platform/audit/verify", params=given(anchor=anchor))

    async def events(self, *, types: Sequence[str] = (), after: str | None = None) -> AsyncIterator[Event]:
        """Events of this project as they happen, beginning after the id `after`; ends when the connection does."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        params = given(types=",".join(types) or None)
        try:
            async with self._client.stream(
                "GET", "/api/platform/events", params=params, headers=headers, patience_seconds=SILENCE_SECONDS
            ) as response:
                fields: dict[str, str] = {}
                async for line in response.aiter_lines():
                    if line:
                        name, _, value = line.partition(":")
                        fields[name] = f"{fields[name]}\n{value.strip()}" if name in fields else value.strip()
                        continue
                    if "data" in fields:
                        yield Event(id=fields.get("id", ""), type=fields.get("event", "message"), data=fields["data"])
                    fields = {}
        except httpx2.TransportError as error:
            raise PlatformUnreachable(f"The event feed of {self._client.url} broke off: {error}.") from error

    async def create_webhook(self, url: str, event_types: Sequence[str]) -> NewWebhook:
        """Send events to a URL; the signing secret is in the answer and nowhere else."""
        body = {"url": url, "event_types": list(event_types)}
        return await self._client.send("POST", "/api/platform/webhooks", NewWebhook, json=body)

    def webhooks(self, *, limit: int | None = None) -> AsyncIterator[Webhook]:
        return self._client.pages(Webhook, "/api/platform/webhooks", limit=limit)

    async def delete_webhook(self, webhook_id: str) -> None:
        await self._client.request("DELETE", f"/api/platform/webhooks/{segment(webhook_id)}")

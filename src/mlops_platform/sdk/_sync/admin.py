# Generated from sdk/_async/admin.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""What every service answers: who am I, keys, tokens, grants, projects, audit, events, webhooks."""

from collections.abc import Iterator, Sequence

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
from mlops_platform.sdk._sync.client import Pool, ServiceClient
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


class Admin:
    """Identity, projects, audit and events. All services answer alike; this asks the registry unless told otherwise."""

    def __init__(self, pool: Pool, settings: ClientSettings, service: Service = Service.REGISTRY) -> None:
        self._client = ServiceClient(service, pool, settings)

    def health(self) -> Health:
        return self._client.get(Health, "/health")

    def readiness(self) -> Readiness:
        return self._client.get(Readiness, "/ready")

    def version(self) -> Version:
        return self._client.get(Version, "/version")

    def whoami(self) -> Whoami:
        return self._client.get(Whoami, "/api/platform/whoami")

    # Credentials

    def create_key(
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
        return self._client.send("POST", "/api/platform/keys", NewApiKey, json=body)

    def api_keys(self, *, limit: int | None = None) -> Iterator[ApiKey]:
        return self._client.pages(ApiKey, "/api/platform/keys", limit=limit)

    def rotate_key(self, key_id: str, *, overlap_seconds: int | None = None) -> NewApiKey:
        """A successor; the old key goes on for `overlap_seconds` (a day unless said otherwise)."""
        path = f"/api/platform/keys/{segment(key_id)}/rotate"
        return self._client.send("POST", path, NewApiKey, params=given(overlap_seconds=overlap_seconds))

    def revoke_key(self, key_id: str) -> None:
        self._client.request("DELETE", f"/api/platform/keys/{segment(key_id)}")

    def create_token(
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
        return self._client.send("POST", "/api/platform/tokens", NewToken, json=body)

    def revoke_token(self, token_id: str) -> None:
        self._client.request("DELETE", f"/api/platform/tokens/{segment(token_id)}")

    def grant(self, principal: str, role: str, *, pattern: str | None = None, kind: str | None = None) -> GrantItem:
        """Give a principal a role in this project."""
        body = given(principal=principal, role=role, pattern=pattern, kind=kind)
        return self._client.send("POST", "/api/platform/grants", GrantItem, json=body)

    def grants(self, *, limit: int | None = None) -> Iterator[GrantItem]:
        return self._client.pages(GrantItem, "/api/platform/grants", limit=limit)

    def revoke_grant(self, grant_id: str) -> None:
        self._client.request("DELETE", f"/api/platform/grants/{segment(grant_id)}")

    # Projects

    def create_project(self, name: str, *, description: str | None = None) -> Project:
        return self._client.send("POST", "/api/platform/projects", Project, json=given(name=name, description=description))

    def projects(self, *, limit: int | None = None) -> Iterator[Project]:
        return self._client.pages(Project, "/api/platform/projects", limit=limit)

    # Audit and events

    def audit(
        self,
        *,
        resource: str | None = None,
        principal: str | None = None,
        action: str | None = None,
        limit: int | None = None,
    ) -> Iterator[AuditItem]:
        params = given(resource=resource, principal=principal, action=action)
        return self._client.pages(AuditItem, "/api/platform/audit", params=params, limit=limit)

    def verify_audit(self, *, anchor: str | None = None) -> AuditVerification:
        """Walk the hash chain; `anchor` is a head that was kept elsewhere."""
        return self._client.get(AuditVerification, "/api/platform/audit/verify", params=given(anchor=anchor))

    def events(self, *, types: Sequence[str] = (), after: str | None = None) -> Iterator[Event]:
        """Events of this project as they happen, beginning after the id `after`; ends when the connection does."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        params = given(types=",".join(types) or None)
        try:
            with self._client.stream(
                "GET", "/api/platform/events", params=params, headers=headers, patience_seconds=SILENCE_SECONDS
            ) as response:
                fields: dict[str, str] = {}
                for line in response.iter_lines():
                    if line:
                        name, _, value = line.partition(":")
                        fields[name] = f"{fields[name]}\n{value.strip()}" if name in fields else value.strip()
                        continue
                    if "data" in fields:
                        yield Event(id=fields.get("id", ""), type=fields.get("event", "message"), data=fields["data"])
                    fields = {}
        except httpx2.TransportError as error:
            raise PlatformUnreachable(f"The event feed of {self._client.url} broke off: {error}.") from error

    def create_webhook(self, url: str, event_types: Sequence[str]) -> NewWebhook:
        """Send events to a URL; the signing secret is in the answer and nowhere else."""
        body = {"url": url, "event_types": list(event_types)}
        return self._client.send("POST", "/api/platform/webhooks", NewWebhook, json=body)

    def webhooks(self, *, limit: int | None = None) -> Iterator[Webhook]:
        return self._client.pages(Webhook, "/api/platform/webhooks", limit=limit)

    def delete_webhook(self, webhook_id: str) -> None:
        self._client.request("DELETE", f"/api/platform/webhooks/{segment(webhook_id)}")

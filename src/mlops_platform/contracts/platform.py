"""Wire types of the routes that every service has: system, keys, tokens, grants, projects, audit, events."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from mlops_platform.contracts.common import Answer, Contract, Description, Id, Label, Name, Text, Timestamp

RoleName = Literal["viewer", "contributor", "promoter", "admin", "service"]
Scope = Annotated[str, Field(pattern=r"^(\*|[a-z_*]+:[a-z*]+)$", max_length=100, examples=["models:read", "*:read"])]
Pattern = Annotated[str, Field(pattern=r"^[A-Za-z0-9._*?-]{1,128}$", examples=["fraud-*"])]
EventType = Annotated[str, Field(pattern=r"^[a-z_]+\.([a-z_]+|\*)$", max_length=100, examples=["model_version.*"])]


class Health(Answer):
    """The process is alive."""

    status: Literal["healthy"]
    service: str
    version: str
    time: Timestamp


class Readiness(Answer):
    """Whether each dependency answers: `ok`, or what is wrong with it."""

    status: Literal["ready", "unavailable"]
    dependencies: dict[str, str]


class Version(Answer):
    """What runs here."""

    service: str
    version: str


class Whoami(Answer):
    """The caller as the platform sees it."""

    principal_id: str
    principal: str
    kind: str
    project_id: str
    project: str
    roles: list[str]
    scopes: list[str]
    on_behalf_of: str | None = None


class PrincipalKindName(StrEnum):
    """A human being, or a program."""

    USER = "user"
    SERVICE = "service"


class KeyCreate(Contract):
    """A new API key: for the caller, or (admins) for another principal, which is made when absent."""

    name: Label = Field(examples=["laptop of Ada"])
    principal: Name | None = Field(None, description="Whose key; absent: the caller's own.")
    kind: PrincipalKindName = Field(PrincipalKindName.USER, description="Used when the principal is made.")
    role: RoleName | None = Field(None, description="Role to give the principal in this project; absent: none is given.")
    scopes: list[Scope] = Field(["*"], min_length=1, max_length=50, description="Narrow the role, never widen it.")
    expires_in_days: int | None = Field(90, ge=1, le=3650, description="`null` for a key that does not expire.")


class ApiKey(Answer):
    """A key as lists show it: never the secret."""

    id: str
    name: str
    principal: str
    hint: str = Field(examples=["mlops_user_…x3Zq9"])
    scopes: list[str]
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None
    revoked_at: Timestamp | None


class NewApiKey(ApiKey):
    """A key at its making: the only time that the secret is shown."""

    key: str


class TokenCreate(Contract):
    """A short-lived service token."""

    name: Label = Field(examples=["nightly training"])
    principal: Name | None = Field(None, description="Absent: the caller's own.")
    scopes: list[Scope] = Field(["*"], min_length=1, max_length=50)
    on_behalf_of: Text | None = Field(None, max_length=200)
    ttl_seconds: int = Field(3600, ge=60, le=30 * 86400)


class NewToken(Answer):
    """A token at its making."""

    id: str
    token: str
    principal: str
    expires_at: Timestamp


class GrantCreate(Contract):
    """A role for a principal in this project, optionally for resources of matching name only."""

    principal: Name
    role: RoleName
    pattern: Pattern = "*"
    kind: PrincipalKindName = PrincipalKindName.USER


class GrantItem(Answer):
    """A role binding."""

    id: str
    principal: str
    role: str
    pattern: str
    created_at: Timestamp


class ProjectCreate(Contract):
    """A new project; its maker becomes its admin."""

    name: Name
    description: Description = ""


class Project(Answer):
    """A project that the caller sees."""

    id: str
    name: str
    description: str
    created_at: Timestamp


class AuditItem(Answer):
    """One audit entry."""

    id: str
    sequence: int
    occurred_at: Timestamp
    principal: str
    on_behalf_of: str | None
    action: str
    resource: str
    before_digest: str | None
    after_digest: str | None
    detail: dict[str, Any] | None
    request_id: str | None


class AuditVerification(Answer):
    """Whether anyone touched the record. `is_intact` is false exactly when `problems` says why."""

    is_intact: bool
    sealed: int
    unsealed: int
    head: str | None = Field(description="`<count>:<hash>`: keep it elsewhere, and give it as `anchor` next time.")
    problems: list[str]


class WebhookCreate(Contract):
    """Where to send events. Deliveries are signed (Standard Webhooks) and retried."""

    url: Annotated[str, Field(max_length=2000, pattern=r"^https?://", examples=["https://hooks.acme.test/mlops"])]
    event_types: list[EventType] = Field(min_length=1, max_length=50)


class Webhook(Answer):
    """A webhook as lists show it."""

    id: str
    url: str
    event_types: list[str]
    is_active: bool
    created_at: Timestamp


class NewWebhook(Webhook):
    """A webhook at its making: the only time that its signing secret is shown."""

    secret: str


class WebhookDelivery(Answer):
    """One event on its way to a webhook. `is_dead`: nobody took it, and it is tried again only on request."""

    id: str
    event_id: str
    event_type: str
    attempts: int
    created_at: Timestamp
    delivered_at: Timestamp | None
    next_attempt_at: Timestamp | None = Field(description="Null once it is delivered or dead.")
    last_status: int | None
    last_error: str | None
    is_dead: bool


class WebhookTested(Answer):
    """What came of a test event: the status, if there was an answer, or what went wrong."""

    is_delivered: bool
    status: int | None
    error: str | None


class Removed(Answer):
    """What is gone."""

    id: Id


class ProjectReset(Answer):
    """A project that is as new, as far as this service holds it; how many rows went, by kind."""

    id: Id
    removed: dict[str, int]

"""From the bytes of a request to a principal: one hash when the credential is known, one query when it is not."""

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from time import monotonic

from sqlalchemy import and_, select

from mlops_platform.core.auth.keys import is_key, key_digest
from mlops_platform.core.auth.tables import credentials, principals, projects, role_bindings
from mlops_platform.core.auth.tokens import PARTS_WRITE, UploadClaims, read_token, read_upload_token
from mlops_platform.core.clock import Clock
from mlops_platform.core.crypto.derive import derive_key
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.errors import MalformedRequest, Unauthenticated
from mlops_platform.core.identity import Grant, Principal, PrincipalId, PrincipalKind, ProjectId, Role

CHANNEL = "mlops_auth"
# Revocation must be effective everywhere within 5 s. Notifications make it immediate; this bounds it without them.
MAX_AGE_SECONDS = 3.0
_REFRESH_SECONDS = 1.5
_MAX_CACHED = 10_000
_LONGEST_NAME = 200

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class AuthKeys:
    """Independent keys, derived from `API_SECRET_KEY`: of credentials, audit heads, sealed columns and uploads."""

    pepper: bytes
    token: bytes
    audit: bytes
    sealing: bytes
    upload: bytes

    @classmethod
    def from_secret(cls, secret: str) -> "AuthKeys":
        """Derive them."""
        purposes = ("api-key pepper", "service token", "audit head", "sealed column", "upload token")
        return cls(*(derive_key(secret, purpose) for purpose in purposes))


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request carries: a credential, and the project it names."""

    secret: str
    project: str | None
    on_behalf_of: str | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    principal: Principal
    stale_at: float
    expires_at: float | None


class Authenticator:
    """Answers who is asking. Knows recent answers; forgets all of them when anything about access changes."""

    def __init__(self, database: Database, keys: AuthKeys, clock: Clock) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        # Answers are remembered by a keyed hash of this process alone, which is several times faster than the stored one.
        self._cache_key = os.urandom(32)
        self._known: dict[tuple[bytes, str | None], _Known] = {}
        self._generation = 0
        self._used: dict[str, datetime] = {}
        self._looking: dict[tuple[bytes, str | None], asyncio.Task[Principal]] = {}

    def forget(self) -> None:
        """Drop every cached answer: a key, token, role or project has changed."""
        self._generation += 1
        self._known.clear()
        # Those who ask from now on must not be answered with what is being read now.
        self._looking.clear()

    def recall(self, presented: Presented) -> Principal | None:
        """The principal if it is known and fresh: no I/O, for the hot paths."""
        key = self._key_of(presented)
        known = self._known.get(key)
        if known is None or (left := known.stale_at - monotonic()) < 0:
            return None
        if known.expires_at is not None and known.expires_at <= self._clock.now().timestamp():
            return None
        if left < _REFRESH_SECONDS and key not in self._looking:
            self._look(key, presented)  # ahead of time, so that no request has to wait for it
        return _for(known.principal, presented)

    def take_used(self) -> dict[str, datetime]:
        """Which credentials were looked up since the last call, and when: to be written down from time to time."""
        used, self._used = self._used, {}
        return used

    async def authenticate(self, presented: Presented) -> Principal:
        """The principal, or `Unauthenticated`. All refusals look alike."""
        if recalled := self.recall(presented):
            return recalled
        key = self._key_of(presented)
        # One query however many requests wait for it; whoever hangs up does not end it for the others.
        principal = await asyncio.shield(self._looking.get(key) or self._look(key, presented))
        return _for(principal, presented)

    def _key_of(self, presented: Presented) -> tuple[bytes, str | None]:
        return blake2b(presented.secret.encode(), key=self._cache_key, digest_size=32).digest(), presented.project

    def _look(self, key: tuple[bytes, str | None], presented: Presented) -> "asyncio.Task[Principal]":
        task = self._looking[key] = asyncio.create_task(
            self._remember(key, presented, self._generation), name="authenticate"
        )
        task.add_done_callback(lambda done: self._looked(key, done))
        return task

    def _looked(self, key: tuple[bytes, str | None], task: "asyncio.Task[Principal]") -> None:
        if self._looking.get(key) is task:
            del self._looking[key]
        if not task.cancelled() and isinstance(task.exception(), Unauthenticated | MalformedRequest):
            self._known.pop(key, None)  # what was known is no longer so

    async def _remember(self, key: tuple[bytes, str | None], presented: Presented, generation: int) -> Principal:
        async with self._database.read() as session:
            known = await self._look_up(session, presented)
        if known.principal.credential_id:
            self._used[known.principal.credential_id] = self._clock.now()
        # A change that came in meanwhile may not be in what was just read: answer from it, but do not keep it.
        if generation == self._generation:
            if len(self._known) >= _MAX_CACHED:
                self._known.clear()
            self._known[key] = known
        return known.principal

    async def _look_up(self, session: ReadSession, presented: Presented) -> _Known:
        now, asked_at = self._clock.now(), monotonic()
        upload: UploadClaims | None = None
        statement = select(
            credentials, principals.c.name.label("principal_name"), principals.c.kind.label("principal_kind")
        ).join(principals, and_(principals.c.id == credentials.c.principal_id, principals.c.disabled_at.is_(None)))
        if is_key(presented.secret):
            statement = statement.where(credentials.c.digest == key_digest(self._keys.pepper, presented.secret))
        elif token_id := read_token(self._keys.token, presented.secret, now):
            statement = statement.where(credentials.c.id == token_id)
        elif upload := read_upload_token(self._keys.upload, presented.secret, now):
            # Of the credential that it was made for, so that both are revoked at once.
            statement = statement.where(credentials.c.id == upload.credential_id)
        else:
            raise Unauthenticated
        row = await session.first(statement.where(credentials.c.revoked_at.is_(None)))
        if row is None or (row.expires_at is not None and row.expires_at <= now):
            raise Unauthenticated
        named = upload.project_id if upload else presented.project
        project_id, project_name, grants = await _project_of(session, row.principal_id, row.project_id, named)
        principal = Principal(
            id=PrincipalId(row.principal_id),
            name=row.principal_name,
            kind=PrincipalKind(row.principal_kind),
            project=ProjectId(project_id),
            project_name=project_name,
            grants=grants,
            scopes=(PARTS_WRITE,) if upload else tuple(row.scopes),
            credential_id=row.id,
            on_behalf_of=row.on_behalf_of,
            upload_id=upload.upload_id if upload else None,
        )
        ends = [each.expires_at.timestamp() for each in (row, upload) if each is not None and each.expires_at is not None]
        return _Known(principal, asked_at + MAX_AGE_SECONDS, min(ends, default=None))


async def _project_of(
    session: ReadSession, principal_id: str, bound_to: str | None, named: str | None
) -> tuple[str, str, tuple[Grant, ...]]:
    """The project of a request and the grants in it. Naming a project that one does not see is like naming none."""
    rows = await session.all(
        select(projects.c.id, projects.c.name, role_bindings.c.role, role_bindings.c.pattern)
        .join(projects, and_(projects.c.id == role_bindings.c.project_id, projects.c.archived_at.is_(None)))
        .where(role_bindings.c.principal_id == principal_id)
        .order_by(projects.c.name, role_bindings.c.id)
    )
    visible = {row.id: row.name for row in rows if bound_to in {None, row.id}}
    # An id goes before a name, so that a project that is named like another's id does not shadow it.
    chosen = (
        [named]
        if named is not None and named in visible
        else [key for key, name in visible.items() if named in {None, name}]
    )
    if named is not None and not chosen:
        raise MalformedRequest(
            f"The project {named[:128]!r} named by X-MLOps-Project does not exist or this credential does not see it.",
            hint="List the projects of this credential with: mlops project list.",
        )
    if len(chosen) > 1:
        raise MalformedRequest(
            "This credential sees several projects and the request names none.",
            hint=f"Send the header X-MLOps-Project with one of: {', '.join(sorted(visible.values())[:20])}.",
        )
    if not chosen:
        raise Unauthenticated
    grants = tuple(Grant(Role(row.role), row.pattern) for row in rows if row.id == chosen[0])
    return chosen[0], visible[chosen[0]], grants


def read_credential(headers: Headers) -> Presented | None:
    """The credential of a request: Bearer, `X-API-Key`, or the password of HTTP Basic (for stock clients)."""
    secret = _from_authorization(headers[b"authorization"]) if b"authorization" in headers else None
    if not secret:
        secret = headers.get(b"x-api-key", b"").decode("latin-1").strip()
    project = headers.get(b"x-mlops-project") or headers.get(b"x-mlflow-workspace")
    behalf = headers.get(b"x-mlops-on-behalf-of")
    return (
        Presented(
            secret,
            (project.decode("latin-1").strip() or None) if project else None,
            _on_behalf_of(behalf) if behalf is not None else None,
        )
        if secret and len(secret) <= 4096
        else None
    )


def _on_behalf_of(value: bytes) -> str | None:
    """The user for whom a service acts: it lands in the audit, so what nobody can read is refused."""
    name = value.decode("utf-8", "replace").strip()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise MalformedRequest(f"X-MLOps-On-Behalf-Of must be readable text of at most {_LONGEST_NAME} characters.")
    return name or None


def _from_authorization(value: bytes) -> str | None:
    scheme, _, rest = value.partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer":
        return rest.decode("latin-1")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _for(principal: Principal, presented: Presented) -> Principal:
    """Only a service may say for whom it acts: the audit names both. A credential that says it goes before the request."""
    if presented.on_behalf_of and principal.kind is PrincipalKind.SERVICE and principal.on_behalf_of is None:
        return replace(principal, on_behalf_of=presented.on_behalf_of)
    return principal

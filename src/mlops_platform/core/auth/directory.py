"""Who exists, which credentials they hold, and what they may do: the reads and writes behind `/api/platform`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, and_, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.authenticator import CHANNEL, AuthKeys
from mlops_platform.core.auth.keys import key_digest, key_hint, make_key
from mlops_platform.core.auth.tables import credentials, principals, projects, role_bindings
from mlops_platform.core.auth.tokens import TokenClaims, expiry, sign_token
from mlops_platform.core.db.notify import notify
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import DEFAULT_PROJECT_NAME, Principal, PrincipalKind, Role, new_id

KEY = "key"
TOKEN = "token"  # noqa: S105  # a kind, not a secret


@dataclass(frozen=True, slots=True)
class NewCredential:
    """What a credential is made of."""

    principal_id: str
    project_id: str | None
    name: str
    scopes: Sequence[str] = ("*",)
    created_by: str | None = None
    expires_at: datetime | None = None
    on_behalf_of: str | None = None
    made_with: str | None = None


class Directory:
    """SQL over principals, projects, bindings and credentials, in one transaction."""

    def __init__(self, session: WriteSession, keys: AuthKeys, now: datetime) -> None:
        self._session = session
        self._keys = keys
        self._now = now

    async def ensure_principal(self, name: str, kind: PrincipalKind) -> str:
        """The id of the principal of this name, made when absent."""
        await self._session.execute(
            upsert(principals)
            .values(id=new_id(), name=name, kind=kind.value, created_at=self._now)
            .on_conflict_do_nothing(index_elements=["name"])
        )
        return str(await self._session.scalar(select(principals.c.id).where(principals.c.name == name)))

    async def kind_of(self, principal_id: str) -> PrincipalKind:
        """What a principal is; the one who made it has decided."""
        kind = select(principals.c.kind).where(principals.c.id == principal_id)
        return PrincipalKind(await self._session.scalar(kind))

    async def ensure_project(self, name: str, description: str = "") -> tuple[str, bool]:
        """The id of the project of this name, and whether it was made now."""
        project_id = new_id()
        made = await self._session.scalar(
            upsert(projects)
            .values(id=project_id, name=name, description=description, created_at=self._now)
            .on_conflict_do_nothing(index_elements=["name"])
            .returning(projects.c.id)
        )
        if made:
            return project_id, True
        return str(await self._session.scalar(select(projects.c.id).where(projects.c.name == name))), False

    async def grant(
        self, principal_id: str, project_id: str, role: Role, *, pattern: str = "*", by: str | None = None
    ) -> str:
        """Bind a role; the id of the binding, which may have been there."""
        await self._session.execute(
            upsert(role_bindings)
            .values(
                id=new_id(),
                principal_id=principal_id,
                project_id=project_id,
                role=role.value,
                pattern=pattern,
                created_at=self._now,
                created_by=by,
            )
            .on_conflict_do_nothing()
        )
        await self._changed()
        return str(
            await self._session.scalar(
                select(role_bindings.c.id).where(
                    role_bindings.c.principal_id == principal_id,
                    role_bindings.c.project_id == project_id,
                    role_bindings.c.role == role.value,
                    role_bindings.c.pattern == pattern,
                )
            )
        )

    async def ungrant(self, project_id: str, binding_id: str) -> bool:
        """Remove a binding; whether it was there."""
        gone = await self._session.execute(
            role_bindings.delete().where(role_bindings.c.id == binding_id, role_bindings.c.project_id == project_id)
        )
        await self._changed()
        return gone.rowcount == 1

    async def add_key(self, new: NewCredential, kind: PrincipalKind, *, key: str | None = None) -> tuple[str, str]:
        """Make a key; its id and the secret, which is nowhere else."""
        key = key or make_key(kind)
        credential_id = await self._insert(new, KEY, key_digest(self._keys.pepper, key), key_hint(key))
        return credential_id, key

    async def add_token(self, new: NewCredential, ttl_seconds: float) -> tuple[str, str, datetime]:
        """Make a service token; its id, the JWT, and its end."""
        expires_at = new.expires_at or expiry(self._now, ttl_seconds)
        values = NewCredential(**{**_fields(new), "expires_at": expires_at})
        token_id = await self._insert(values, TOKEN, None, "token")
        claims = TokenClaims(token_id, new.principal_id, self._now, expires_at)
        return token_id, sign_token(self._keys.token, claims), expires_at

    async def knows_key(self, key: str) -> bool:
        """Whether this very key was ever made, in force or not."""
        statement = select(credentials.c.id).where(credentials.c.digest == key_digest(self._keys.pepper, key))
        return await self._session.scalar(statement) is not None

    async def revoke(self, credential_id: str) -> None:
        """End a credential that `find_credential` has shown, and all that was made with it if it is a token."""
        ended = select(credentials.c.id).where(credentials.c.id == credential_id).cte("ended", recursive=True)
        ended = ended.union(select(credentials.c.id).where(credentials.c.made_with == ended.c.id))
        await self._session.execute(
            update(credentials)
            .where(credentials.c.id.in_(select(ended.c.id)), credentials.c.revoked_at.is_(None))
            .values(revoked_at=self._now)
        )
        await self._changed()

    async def rotate(
        self,
        row: Row[Any],
        *,
        by: str,
        overlap_seconds: float,
        not_after: datetime | None = None,
        made_with: str | None = None,
    ) -> tuple[str, str]:
        """A successor of a key, which ends at `not_after` at the latest. Both live until the overlap is over."""
        kind = PrincipalKind(row.principal_kind)
        lifetime = row.expires_at - row.created_at if row.expires_at else None
        new = NewCredential(
            principal_id=row.principal_id,
            project_id=row.project_id,
            name=row.name,
            scopes=row.scopes,
            created_by=by,
            expires_at=_earliest(self._now + lifetime if lifetime else None, not_after),
            on_behalf_of=row.on_behalf_of,
            made_with=made_with or row.made_with,
        )
        new_key_id, key = await self.add_key(new, kind)
        end = self._now + timedelta(seconds=overlap_seconds)
        await self._session.execute(
            update(credentials)
            .where(credentials.c.id == row.id)
            .values(replaced_by=new_key_id, expires_at=min(end, row.expires_at) if row.expires_at else end)
        )
        await self._changed()
        return new_key_id, key

    async def _insert(self, new: NewCredential, kind: str, digest: bytes | None, hint: str) -> str:
        credential_id = new_id()
        await self._session.execute(
            insert(credentials).values(
                id=credential_id,
                kind=kind,
                digest=digest,
                hint=hint,
                created_at=self._now,
                **{**_fields(new), "scopes": list(new.scopes)},
            )
        )
        return credential_id

    async def _changed(self) -> None:
        await notify(self._session, CHANNEL)


async def find_credential(
    session: ReadSession, principal: Principal, credential_id: str, *, to_change: bool = False
) -> Row[Any] | None:
    """A credential that is not revoked and that the caller sees, with its principal. `to_change` keeps others from it."""
    statement = _credentials(principal).where(credentials.c.id == credential_id, credentials.c.revoked_at.is_(None))
    return await session.first(statement.with_for_update(of=credentials) if to_change else statement)


async def credential_in_use(session: ReadSession, principal: Principal) -> Row[Any] | None:
    """The credential with which the principal came in; it is not revoked before this transaction ends."""
    statement = _credentials(principal).where(
        credentials.c.id == principal.credential_id, credentials.c.revoked_at.is_(None)
    )
    return await session.first(statement.with_for_update(of=credentials, read=True))


async def list_keys(
    session: ReadSession, principal: Principal, *, only_own: bool, after: str | None, limit: int
) -> Sequence[Row[Any]]:
    """Keys that the caller may see, oldest first."""
    statement = _credentials(principal).where(credentials.c.kind == KEY).order_by(credentials.c.id).limit(limit)
    if only_own:
        statement = statement.where(credentials.c.principal_id == principal.id)
    return await session.all(statement.where(credentials.c.id > after) if after else statement)


async def list_grants(session: ReadSession, project_id: str, *, after: str | None, limit: int) -> Sequence[Row[Any]]:
    """The bindings of a project."""
    statement = (
        select(role_bindings, principals.c.name.label("principal_name"))
        .join(principals, principals.c.id == role_bindings.c.principal_id)
        .where(role_bindings.c.project_id == project_id)
        .order_by(role_bindings.c.id)
        .limit(limit)
    )
    return await session.all(statement.where(role_bindings.c.id > after) if after else statement)


async def list_projects(session: ReadSession, principal: Principal) -> Sequence[Row[Any]]:
    """The projects in which a principal has any role; just the one to which its credential is bound, if it is."""
    bound_to = select(credentials.c.project_id).where(credentials.c.id == principal.credential_id).scalar_subquery()
    mine = select(role_bindings.c.project_id).where(role_bindings.c.principal_id == principal.id)
    return await session.all(
        select(projects)
        .where(
            projects.c.archived_at.is_(None),
            projects.c.id.in_(mine),
            or_(bound_to.is_(None), projects.c.id == bound_to),
        )
        .order_by(projects.c.name)
        .limit(1000)
    )


async def note_used(session: WriteSession, used: Mapping[str, datetime]) -> None:
    """Write down when credentials were last seen; never backwards, for replicas report in any order."""
    for credential_id, moment in sorted(used.items()):
        await session.execute(
            update(credentials)
            .where(credentials.c.id == credential_id)
            .where(or_(credentials.c.last_used_at.is_(None), credentials.c.last_used_at < moment))
            .values(last_used_at=moment)
        )


async def bootstrap(session: WriteSession, keys: AuthKeys, now: datetime, key: str) -> None:
    """The first project, the first admin and the given key of theirs; a no-op when they are there.

    A key that was revoked meanwhile stays revoked, and the platform starts all the same.
    """
    directory = Directory(session, keys, now)
    project_id, _ = await directory.ensure_project(DEFAULT_PROJECT_NAME, "The project that is there from the start.")
    admin_id = await directory.ensure_principal("admin", PrincipalKind.USER)
    if not await directory.knows_key(key):
        await directory.grant(admin_id, project_id, Role.ADMIN)
        # Bound to the principal and not to the project: an admin makes further projects with it.
        new = NewCredential(admin_id, None, "first key")
        await directory.add_key(new, PrincipalKind.USER, key=key)


def _credentials(principal: Principal) -> Select[Any]:
    """Those of the project, and the caller's own that are bound to none."""
    mine = and_(credentials.c.project_id.is_(None), credentials.c.principal_id == principal.id)
    return (
        select(credentials, principals.c.name.label("principal_name"), principals.c.kind.label("principal_kind"))
        .join(principals, principals.c.id == credentials.c.principal_id)
        .where(or_(credentials.c.project_id == principal.project, mine))
    )


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _fields(new: NewCredential) -> Mapping[str, Any]:
    return {name: getattr(new, name) for name in new.__slots__}

"""Keys, tokens, grants, projects: who may come in, and what they may do."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Path, Query
from sqlalchemy import Row

from mlops_platform.contracts.common import ID_PATTERN, Page
from mlops_platform.contracts.platform import (
    ApiKey,
    GrantCreate,
    GrantItem,
    KeyCreate,
    NewApiKey,
    NewToken,
    Project,
    ProjectCreate,
    Removed,
    TokenCreate,
    Whoami,
)
from mlops_platform.core.auth import directory
from mlops_platform.core.auth.directory import Directory, NewCredential
from mlops_platform.core.errors import Conflict, InvalidInput, NotFound, PermissionDenied, Unauthenticated
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.platform import permissions
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Principal, PrincipalKind, Role
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork

ROTATION_OVERLAP_SECONDS = 24 * 3600

router = platform_router(tags=["platform"])
IdPath = Annotated[str, Path(pattern=ID_PATTERN)]


class CredentialNotFound(NotFound):
    """No such key or token in force."""

    code = "credential_not_found"


class KeyAlreadyRotated(Conflict):
    """A key has one successor: two live keys are enough for a rotation."""

    code = "key_already_rotated"


class GrantNotFound(NotFound):
    """No such role binding in this project."""

    code = "grant_not_found"


class ProjectNameTaken(Conflict):
    """The name of a project is unique."""

    code = "project_name_taken"


@router.get("/api/platform/whoami", dependencies=[requires(permissions.SELF_READ)])
async def whoami(caller: Caller) -> Whoami:
    """Who the platform takes the caller for, and what they may do."""
    return Whoami(
        principal_id=caller.id,
        principal=caller.name,
        kind=caller.kind,
        project_id=caller.project,
        project=caller.project_name,
        roles=[grant.role if grant.pattern == "*" else f"{grant.role} on {grant.pattern}" for grant in caller.grants],
        scopes=list(caller.scopes),
        on_behalf_of=caller.on_behalf_of,
    )


@router.post("/api/platform/keys", status_code=201, dependencies=[requires(permissions.SELF_READ)])
async def create_key(body: KeyCreate, work: Work, runtime: RuntimeOf) -> NewApiKey:
    """Make an API key. The secret is in this answer and nowhere else. Keys for others take an admin."""
    access = _directory(work, runtime)
    principal_id, kind = await _whose(access, work.principal, body.principal, PrincipalKind(body.kind))
    if body.role is not None:
        work.principal.require_everywhere(permissions.GRANTS_ADMIN)
        await access.grant(principal_id, work.principal.project, Role(body.role), by=work.principal.id)
    now, in_use = work.clock.now(), await _in_use(work)
    is_own = principal_id == work.principal.id
    new = NewCredential(
        principal_id=principal_id,
        project_id=work.principal.project,
        name=body.name,
        scopes=_narrowed(work.principal, body.scopes, is_own=is_own),
        created_by=work.principal.id,
        expires_at=_end(in_use, now + timedelta(days=body.expires_in_days) if body.expires_in_days else None),
        on_behalf_of=in_use.on_behalf_of if is_own else None,
        made_with=_made_with(in_use),
    )
    key_id, secret = await access.add_key(new, kind)
    await work.audit("key.created", f"key:{key_id}", after={"principal": principal_id, "scopes": body.scopes})
    row = await _credential(work, key_id)
    return NewApiKey(**_key_fields(row), key=secret)


@router.get("/api/platform/keys", dependencies=[requires(permissions.SELF_READ)])
async def list_keys(work: Work, page: PageOf) -> Page[ApiKey]:
    """The keys of the project (admins), or the caller's own. Never their secrets."""
    caller = work.principal
    only_own = not caller.may_everywhere(permissions.KEYS_ADMIN)
    after = page.after[0] if page.after else None
    if not only_own:
        # Who has which keys is what an intruder asks first.
        await work.audit("key.listed", "key:*")
    rows = await directory.list_keys(work.session, caller, only_own=only_own, after=after, limit=page.size + 1)
    return page.answer(rows, lambda row: ApiKey(**_key_fields(row)), lambda row: (row.id,))


@router.post(
    "/api/platform/keys/{key_id}/rotate",
    status_code=201,
    dependencies=[requires(permissions.SELF_READ)],
    responses=problems(CredentialNotFound, KeyAlreadyRotated),
)
async def rotate_key(
    key_id: IdPath,
    work: Work,
    runtime: RuntimeOf,
    overlap_seconds: Annotated[int, Query(ge=0, le=30 * 86400)] = ROTATION_OVERLAP_SECONDS,
) -> NewApiKey:
    """A successor for a key; the old one goes on for `overlap_seconds`, so that nothing stops meanwhile."""
    row, in_use = await _credential(work, key_id), await _in_use(work)
    if row.kind != directory.KEY or (row.expires_at is not None and row.expires_at <= work.clock.now()):
        raise CredentialNotFound(f"There is no key {key_id!r} in force.")
    if row.replaced_by is not None:
        raise KeyAlreadyRotated(f"The key {key_id!r} has a successor.", hint="Rotate the successor.")
    new_id, secret = await _directory(work, runtime).rotate(
        row,
        by=work.principal.id,
        overlap_seconds=overlap_seconds,
        not_after=_end(in_use, None),
        made_with=_made_with(in_use),
    )
    await work.audit("key.rotated", f"key:{key_id}", after={"successor": new_id, "overlap_seconds": overlap_seconds})
    return NewApiKey(**_key_fields(await _credential(work, new_id)), key=secret)


@router.delete(
    "/api/platform/keys/{key_id}",
    dependencies=[requires(permissions.SELF_READ)],
    responses=problems(CredentialNotFound),
)
@router.delete(
    "/api/platform/tokens/{key_id}",
    dependencies=[requires(permissions.SELF_READ)],
    responses=problems(CredentialNotFound),
)
async def revoke_credential(key_id: IdPath, work: Work, runtime: RuntimeOf) -> Removed:
    """End a key or a token now, everywhere within five seconds. One's own, or any as an admin."""
    await _credential(work, key_id)
    await _directory(work, runtime).revoke(key_id)
    await work.audit("credential.revoked", f"credential:{key_id}", before={"id": key_id}, after=None)
    return Removed(id=key_id)


@router.post("/api/platform/tokens", status_code=201, dependencies=[requires(permissions.SELF_READ)])
async def create_token(body: TokenCreate, work: Work, runtime: RuntimeOf) -> NewToken:
    """Make a short-lived service token, to be sent as `Authorization: Bearer`."""
    access = _directory(work, runtime)
    principal_id, kind = await _whose(access, work.principal, body.principal, PrincipalKind.SERVICE)
    if body.on_behalf_of is not None and kind is not PrincipalKind.SERVICE:
        raise InvalidInput.of("on_behalf_of", "only a service acts on behalf of others", body.on_behalf_of)
    in_use, is_own = await _in_use(work), principal_id == work.principal.id
    new = NewCredential(
        principal_id=principal_id,
        project_id=work.principal.project,
        name=body.name,
        scopes=_narrowed(work.principal, body.scopes, is_own=is_own),
        created_by=work.principal.id,
        on_behalf_of=(in_use.on_behalf_of if is_own else None) or body.on_behalf_of,
        expires_at=_end(in_use, work.clock.now() + timedelta(seconds=body.ttl_seconds)),
        made_with=_made_with(in_use),
    )
    token_id, token, expires_at = await access.add_token(new, body.ttl_seconds)
    await work.audit("token.created", f"token:{token_id}", after={"principal": principal_id, "scopes": body.scopes})
    principal = body.principal or work.principal.name
    return NewToken(id=token_id, token=token, principal=principal, expires_at=expires_at)


@router.post("/api/platform/grants", status_code=201, dependencies=[requires(permissions.GRANTS_ADMIN, everywhere=True)])
async def create_grant(body: GrantCreate, work: Work, runtime: RuntimeOf) -> GrantItem:
    """Give a principal a role in this project; the principal is made when absent."""
    access = _directory(work, runtime)
    principal_id = await access.ensure_principal(body.principal, PrincipalKind(body.kind))
    project = work.principal.project
    grant_id = await access.grant(principal_id, project, Role(body.role), pattern=body.pattern, by=work.principal.id)
    await work.audit("grant.created", f"grant:{grant_id}", after=body.model_dump(mode="json"))
    return GrantItem(
        id=grant_id, principal=body.principal, role=body.role, pattern=body.pattern, created_at=work.clock.now()
    )


@router.get("/api/platform/grants", dependencies=[requires(permissions.GRANTS_ADMIN, everywhere=True)])
async def list_grants(caller: Caller, session: Reading, page: PageOf) -> Page[GrantItem]:
    """Who has which role in this project."""
    after = page.after[0] if page.after else None
    rows = await directory.list_grants(session, caller.project, after=after, limit=page.size + 1)
    return page.answer(rows, _grant, lambda row: (row.id,))


@router.delete(
    "/api/platform/grants/{grant_id}",
    dependencies=[requires(permissions.GRANTS_ADMIN, everywhere=True)],
    responses=problems(GrantNotFound),
)
async def delete_grant(grant_id: IdPath, work: Work, runtime: RuntimeOf) -> Removed:
    """Take a role away."""
    if not await _directory(work, runtime).ungrant(work.principal.project, grant_id):
        raise GrantNotFound(f"There is no grant {grant_id!r} in this project.")
    await work.audit("grant.deleted", f"grant:{grant_id}", before={"id": grant_id})
    return Removed(id=grant_id)


@router.get("/api/platform/projects", dependencies=[requires(permissions.PROJECTS_READ)])
async def list_projects(caller: Caller, session: Reading) -> Page[Project]:
    """The projects in which the caller has a role."""
    rows = await directory.list_projects(session, caller)
    return Page(items=[_project(row) for row in rows])


@router.post(
    "/api/platform/projects",
    status_code=201,
    dependencies=[requires(permissions.PROJECTS_ADMIN, everywhere=True)],
    responses=problems(ProjectNameTaken),
)
async def create_project(body: ProjectCreate, work: Work, runtime: RuntimeOf) -> Project:
    """Make a project, with the caller as its admin. A key that is bound to one project does not see the new one."""
    access = _directory(work, runtime)
    project_id, is_new = await access.ensure_project(body.name, body.description)
    if not is_new:
        raise ProjectNameTaken(f"A project named {body.name!r} exists.")
    await access.grant(work.principal.id, project_id, Role.ADMIN, by=work.principal.id)
    await work.audit("project.created", f"project:{project_id}", after=body.model_dump(mode="json"))
    return Project(id=project_id, name=body.name, description=body.description, created_at=work.clock.now())


def _directory(work: UnitOfWork, runtime: Runtime) -> Directory:
    # Other processes hear of it by notification; in this one it holds before the answer to it is sent.
    work.session.after_commit(runtime.authenticator.forget)
    return Directory(work.session, runtime.auth_keys, work.clock.now())


async def _whose(access: Directory, caller: Principal, name: str | None, kind: PrincipalKind) -> tuple[str, PrincipalKind]:
    """The principal for whom a credential is made: the caller, or anybody for an admin."""
    if name is None or name == caller.name:
        return caller.id, caller.kind
    caller.require_everywhere(permissions.KEYS_ADMIN)
    principal_id = await access.ensure_principal(name, kind)
    return principal_id, await access.kind_of(principal_id)


def _narrowed(caller: Principal, scopes: Sequence[str], *, is_own: bool) -> list[str]:
    """A credential made with a limited credential must not reach further than it."""
    if "*" in caller.scopes or not is_own:
        if "*" not in caller.scopes:
            raise PermissionDenied("A credential with limited scopes cannot make credentials for others.")
        return list(scopes)
    wider = [scope for scope in scopes if scope not in caller.scopes]
    if wider:
        raise InvalidInput.of("scopes", f"reach further than the credential in use ({', '.join(caller.scopes)})", wider)
    return list(scopes)


async def _credential(work: UnitOfWork, credential_id: str) -> Row[Any]:
    """A credential that the caller may change: one's own, or any of the project for an admin.

    Never one that reaches further than the credential in use, be it by its scopes or because it is bound to no project:
    its successor would be a way up.
    """
    caller = work.principal
    row = await directory.find_credential(work.session, caller, credential_id, to_change=True)
    if row is None or not (row.principal_id == caller.id or caller.may_everywhere(permissions.KEYS_ADMIN)):
        raise CredentialNotFound(f"There is no credential {credential_id!r} in force.")
    in_use = await _in_use(work)
    is_wider = "*" not in caller.scopes and not set(row.scopes) <= set(caller.scopes)
    if is_wider or (row.project_id is None and in_use.project_id is not None):
        raise PermissionDenied("This credential reaches further than the one in use, which may therefore not change it.")
    return row


async def _in_use(work: UnitOfWork) -> Row[Any]:
    """The credential with which the caller came in."""
    row = await directory.credential_in_use(work.session, work.principal)
    if row is None:
        raise Unauthenticated
    return row


def _end(in_use: Row[Any], wanted: datetime | None) -> datetime | None:
    """When a new credential ends. What a token makes ends with it: a short life must not give a long one."""
    if _made_with(in_use) is None:
        return wanted
    end: datetime = in_use.expires_at
    return min(wanted, end) if wanted else end


def _made_with(in_use: Row[Any]) -> str | None:
    """With what a new credential ends: the one in use, if that is a token or was itself made with one."""
    return str(in_use.id) if in_use.kind == directory.TOKEN or in_use.made_with else None


def _key_fields(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "principal": row.principal_name,
        "hint": row.hint,
        "scopes": row.scopes,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
        "revoked_at": row.revoked_at,
    }


def _grant(row: Row[Any]) -> GrantItem:
    return GrantItem(id=row.id, principal=row.principal_name, role=row.role, pattern=row.pattern, created_at=row.created_at)


def _project(row: Row[Any]) -> Project:
    return Project(id=row.id, name=row.name, description=row.description, created_at=row.created_at)

"""Who asks, in which project, and what they may do. Values only."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NewType

from mlops_platform.core.errors import PermissionDenied

ProjectId = NewType("ProjectId", str)
PrincipalId = NewType("PrincipalId", str)
Permission = NewType("Permission", str)

DEFAULT_PROJECT_NAME = "default"


def new_id() -> str:
    """A UUIDv7 (RFC 9562) as 32 lowercase hex digits: unique, and sorted by the millisecond of its making."""
    milliseconds = time.time_ns() // 1_000_000
    rand = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | (rand >> 68) << 64 | 0b10 << 62 | (rand & (2**62 - 1))
    return f"{value:032x}"


class PrincipalKind(StrEnum):
    """A human being, or a program acting for itself."""

    USER = "user"
    SERVICE = "service"


class Role(StrEnum):
    """The closed set of roles. What each may do is `ROLE_VERBS`."""

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    PROMOTER = "promoter"
    ADMIN = "admin"
    SERVICE = "service"


# A permission is `<noun>:<verb>`. Roles are given verbs and never nouns, so that a new service needs no new role.
ROLE_VERBS: dict[Role, frozenset[str]] = {
    Role.VIEWER: frozenset({"read"}),
    Role.CONTRIBUTOR: frozenset({"read", "write"}),
    Role.PROMOTER: frozenset({"read", "write", "promote"}),
    Role.SERVICE: frozenset({"read", "write"}),
    Role.ADMIN: frozenset({"read", "write", "promote", "admin"}),
}
VERBS = frozenset().union(*ROLE_VERBS.values())


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in one project, for the resources whose name matches `pattern` (shell style, `*` is everything)."""

    role: Role
    pattern: str = "*"


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller within one project.

    `scopes` are permission patterns (`models:read`, `*:read`) of the credential; they narrow the role and never widen it.
    """

    id: PrincipalId
    name: str
    kind: PrincipalKind
    project: ProjectId
    grants: tuple[Grant, ...]
    scopes: tuple[str, ...] = ("*",)
    credential_id: str | None = None
    on_behalf_of: str | None = None
    project_name: str = field(default=DEFAULT_PROJECT_NAME)
    # Of a credential that is for the parts of one upload: which.
    upload_id: str | None = None

    def may(self, permission: Permission, resource: str | None = None) -> bool:
        """Whether any grant gives the permission, for the named resource when one is named."""
        verb = permission.rpartition(":")[2]
        if not any(scope == "*" or fnmatchcase(permission, scope) for scope in self.scopes):
            return False
        return any(
            verb in ROLE_VERBS[grant.role] and (resource is None or fnmatchcase(resource, grant.pattern))
            for grant in self.grants
        )

    def require(self, permission: Permission, resource: str | None = None) -> None:
        """Raise `PermissionDenied` unless `may` says yes."""
        if not self.may(permission, resource):
            of = f" on {resource!r}" if resource is not None else ""
            raise PermissionDenied(
                f"{self.name!r} does not have the permission {permission!r}{of} in project {self.project_name!r}.",
                hint="Ask an admin of the project for a role that has it: mlops auth grant --help.",
            )

    def may_everywhere(self, permission: Permission) -> bool:
        """Whether the permission holds for every name of the project."""
        return self.may(permission) and self.name_patterns(permission) is None

    def require_everywhere(self, permission: Permission) -> None:
        """Raise `PermissionDenied` unless the permission holds for every name.

        For what concerns a project as a whole: who has only some names must not reach the others through it.
        """
        self.require(permission)
        if not self.may_everywhere(permission):
            raise PermissionDenied(
                f"{self.name!r} has the permission {permission!r} for some names only, and this concerns all of them.",
                hint="Ask an admin of the project for a role without a name pattern.",
            )

    def name_patterns(self, permission: Permission) -> tuple[str, ...] | None:
        """The name patterns to which this permission is limited; None when it holds for every name."""
        patterns = tuple(_patterns(self.grants, permission.rpartition(":")[2]))
        return None if "*" in patterns else patterns


def _patterns(grants: Iterable[Grant], verb: str) -> Iterable[str]:
    return (grant.pattern for grant in grants if verb in ROLE_VERBS[grant.role])

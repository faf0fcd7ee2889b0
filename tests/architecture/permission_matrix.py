"""Who may call what, as text to review: python -m tests.architecture.permission_matrix > tests/architecture/permissions.txt

Run it with PYTHONPATH=src from the root of the repository, and read the difference before committing it.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from fastapi.routing import APIRoute

from mlops_platform.core.http import system
from mlops_platform.core.http.app import routes_of
from mlops_platform.core.http.routing import Requires
from mlops_platform.core.identity import ROLE_VERBS, Permission, Role
from mlops_platform.server.catalog import CATALOG

PLATFORM_PREFIXES = ("/api/platform/",)


@dataclass(frozen=True, slots=True)
class Guarded:
    """One method of one route, and what it demands; no permission means public."""

    service: str
    method: str
    path: str
    permission: Permission | None
    resource: str | None = None
    everywhere: bool = False

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that may, in the order of their reach."""
        if self.permission is None:
            return tuple(Role)
        verb = self.permission.rpartition(":")[2]
        return tuple(role for role in Role if verb in ROLE_VERBS[role])

    def line(self) -> str:
        """As it stands in the reviewed file."""
        if self.permission is None:
            return f"{self.service:<22}{self.method:<7}{self.path}  PUBLIC"
        limit = f" on {{{self.resource}}}" if self.resource else " everywhere" if self.everywhere else ""
        roles = " ".join(self.roles)
        return f"{self.service:<22}{self.method:<7}{self.path}  {self.permission}{limit}  [{roles}]"


def guarded() -> Iterator[Guarded]:
    """Every method of every route of every service, hot ones included."""
    for entry in CATALOG:
        for route in routes_of(entry.service):
            assert isinstance(route, APIRoute), route
            requires = next((it.dependency for it in route.dependencies if isinstance(it.dependency, Requires)), None)
            for method in sorted(route.methods or ()):
                if requires is None:
                    assert route.path in system.PUBLIC_ROUTES, route.path
                    yield Guarded(entry.service.name, method, route.path, None)
                else:
                    limits = requires.resource, requires.everywhere
                    yield Guarded(entry.service.name, method, route.path, requires.permission, *limits)


def matrix() -> str:
    """The whole file. What all services have alike stands once, under `*`."""
    lines = set()
    for it in guarded():
        is_shared = it.permission is None or it.path.startswith(PLATFORM_PREFIXES)
        line = it.line()
        lines.add(f"{'*':<22}{line[22:]}" if is_shared else line)
    return "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    sys.stdout.write(matrix())

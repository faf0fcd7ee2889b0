"""Every route of every service, with every kind of credential and every role, does what the reviewed file says."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from mlops_platform.core.auth.authenticator import Presented
from mlops_platform.core.auth.directory import Directory
from mlops_platform.core.http.guard import UNGUARDED_PATHS
from mlops_platform.core.identity import VERBS, ProjectId, Role
from mlops_platform.server.catalog import CATALOG
from tests.architecture.permission_matrix import Guarded, guarded, matrix

REVIEWED = Path(__file__).with_name("permissions.txt")
ROUTES = list(guarded())
NO_SUCH = "0" * 32  # fits where an id, a name or a version is asked for
STREAMS = {"/api/platform/events"}
FIRST = CATALOG[0].service.name
# The platform's own routes are the same objects in every app: they are walked in one.
WALKED = [it for it in ROUTES if it.service == FIRST or not (it.permission is None or it.path.startswith("/api/platform/"))]


def path_of(route: Guarded) -> str:
    return re.sub(r"\{[^}]+\}", NO_SUCH, route.path).replace(f"/docs/assets/{NO_SUCH}", "/docs/assets/swagger-ui.css")


def test_the_reviewed_file_is_what_the_code_declares():
    """How to write it anew stands in permission_matrix.py."""
    assert matrix().splitlines() == REVIEWED.read_text().splitlines()


def test_permissions_are_nouns_with_one_of_the_known_verbs():
    wrong = {
        it.permission for it in ROUTES if it.permission and not re.fullmatch(rf"[a-z_]+:({'|'.join(VERBS)})", it.permission)
    }
    assert wrong == set()


def test_the_public_routes_are_this_exact_list():
    public = {it.path for it in ROUTES if it.permission is None}
    assert public == {
        "/health",
        "/health/",
        "/ready",
        "/version",
        "/docs",
        "/docs/assets/{name}",
        "/openapi.json",
        "/metrics",
    }
    assert {"/health", "/health/", "/ready", "/metrics"} == UNGUARDED_PATHS


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.service.name)
def test_a_hot_route_demands_what_its_documentation_says(entry):
    declared = {(it.method, it.path): it.permission for it in ROUTES if it.service == entry.service.name}
    assert {(hot.method, hot.path): hot.permission for hot in entry.service.hot_routes}.items() <= declared.items()


def test_a_get_never_demands_to_write_and_a_change_never_just_to_read():
    """What only reads by POST, and what everyone may do to their own credentials, is named here."""
    only_reads = re.compile(
        r"/search$|/search-datasets$|/series$|/compare$|/query$|/serve$|/validate$|/preview$|/dry-run$|/get-online-features$|/evaluate|/ofrep/"
    )
    wrong = [
        it.line()
        for it in ROUTES
        if it.permission
        and it.permission != "self:read"
        and (it.method in {"GET", "HEAD"})
        != it.permission.endswith((":read", "audit:admin", "grants:admin", "webhooks:admin"))
        and not (it.method not in {"GET", "HEAD"} and (only_reads.search(it.path) or it.permission.endswith(":admin")))
    ]
    assert wrong == []


class Credentials:
    """One of each kind, made once for all routes."""

    def __init__(self, platform, project: ProjectId, foreign: ProjectId) -> None:
        self.platform, self.project, self.foreign = platform, project, foreign
        self.keys: dict[str, str] = {}

    async def make(self, runtime):
        for role in Role:
            self.keys[role], _ = await self.platform.key(self.project, role)
        ended = runtime.clock.now() - timedelta(seconds=1)
        self.keys["expired"], _ = await self.platform.key(self.project, expires_at=ended)
        self.keys["revoked"], _ = await self.platform.key(self.project)
        self.keys["scoped"], _ = await self.platform.key(self.project, scopes=("nothing:read",))
        self.keys["of some names"], _ = await self.platform.key(self.project, pattern="no-name-is-like-this-*")
        async with runtime.database.write() as session:
            access = Directory(session, runtime.auth_keys, runtime.clock.now())
            principal = await runtime.authenticator.authenticate(Presented(self.keys["revoked"], None))
            await access.revoke(str(principal.credential_id))
        runtime.authenticator.forget()


@pytest.fixture(scope="session")
def kept():
    return {}


@pytest.fixture
async def credentials(platform, runtime, kept):
    if "it" not in kept:
        kept["it"] = Credentials(platform, await platform.project(), await platform.project())
        await kept["it"].make(runtime)
    return kept["it"]


@pytest.mark.parametrize("route", WALKED, ids=lambda it: f"{it.service} {it.method} {it.path}")
async def test_a_route_lets_in_exactly_those(platform, credentials, route):
    client = platform.client(route.service)

    async def status(key=None, **headers):
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return (await client.request(route.method, path_of(route), headers=headers)).status_code

    if route.permission is None:
        assert await status() not in {401, 403}
        return
    bad = (None, "nonsense", credentials.keys["expired"], credentials.keys["revoked"])
    assert [await status(key) for key in bad] == [401] * 4
    assert await status(credentials.keys[Role.ADMIN], **{"X-MLOps-Project": credentials.foreign}) == 400
    assert await status(credentials.keys["scoped"]) == 403
    if route.everywhere or route.resource:
        assert await status(credentials.keys["of some names"]) == 403
    refused = [role for role in Role if role not in route.roles]
    assert [await status(credentials.keys[role]) for role in refused] == [403] * len(refused)
    if route.path not in STREAMS:
        assert not {401, 403} & {await status(credentials.keys[role]) for role in route.roles}

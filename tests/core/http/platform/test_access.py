"""Attempts to get further with `/api/platform` than one's credential reaches."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import select, update

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.auth.authenticator import MAX_AGE_SECONDS
from mlops_platform.core.auth.directory import Directory, NewCredential
from mlops_platform.core.auth.tables import credentials
from mlops_platform.core.identity import PrincipalKind, Role, new_id
from tests.factories.waiting import until

KEYS, TOKENS, GRANTS, PROJECTS = (f"/api/platform/{name}" for name in ("keys", "tokens", "grants", "projects"))
LAPTOP = {"name": "laptop"}


async def whoami(play, key, **headers):
    client = await play.client(key, **headers)
    return await client.get("/api/platform/whoami")


async def refused(play, credential):
    return (await whoami(play, credential)).status_code == 401


async def id_of(caller):
    """The id of the key in use."""
    keys = (await caller.http.get(KEYS)).json()["items"]
    return next(key["id"] for key in keys if key["hint"][-4:] == caller.key.split("_")[2][-4:])


@pytest.fixture
async def another_key(runtime):
    """A further key of a caller's principal, made beneath the API."""

    async def make(caller, project, scopes=("*",)):
        async with runtime.database.write() as session:
            access = Directory(session, runtime.auth_keys, runtime.clock.now())
            principal = await access.ensure_principal(caller.principal, PrincipalKind.USER)
            return await access.add_key(NewCredential(principal, project, "another", scopes), PrincipalKind.USER)

    return make


class TestKeysOfOnesOwn:
    async def test_everyone_may_make_list_rotate_and_revoke_their_own(self, play):
        bob = await play.caller(Role.VIEWER)
        made = await bob.http.post(KEYS, json=LAPTOP)
        assert made.status_code == 201
        assert (await whoami(play, made.json()["key"])).json()["principal"] == bob.principal
        assert made.json()["id"] in {key["id"] for key in (await bob.http.get(KEYS)).json()["items"]}
        rotated = await bob.http.post(f"{KEYS}/{made.json()['id']}/rotate?overlap_seconds=0")
        assert (await whoami(play, rotated.json()["key"])).status_code == 200
        assert (await bob.http.delete(f"{KEYS}/{rotated.json()['id']}")).status_code == 200

    async def test_no_list_shows_a_secret(self, play):
        ada = await play.caller()
        key = (await ada.http.post(KEYS, json=LAPTOP)).json()["key"]
        text = (await ada.http.get(KEYS)).text
        assert key not in text
        assert key.split("_")[2] not in text
        assert '"key"' not in text

    async def test_a_viewer_sees_only_their_own(self, play):
        ada = await play.caller()
        bob = await play.caller(Role.VIEWER, project=ada.project)
        assert {key["principal"] for key in (await bob.http.get(KEYS)).json()["items"]} == {bob.principal}
        assert {key["principal"] for key in (await ada.http.get(KEYS)).json()["items"]} == {ada.principal, bob.principal}

    async def test_both_keys_live_through_the_overlap_and_there_is_one_successor(self, play):
        bob = await play.caller(Role.VIEWER)
        path = f"{KEYS}/{await id_of(bob)}/rotate?overlap_seconds=600"
        rotated = await bob.http.post(path)
        assert rotated.status_code == 201
        for key in (bob.key, rotated.json()["key"]):
            assert (await whoami(play, key)).status_code == 200
        assert (await bob.http.post(path)).status_code == 409

    async def test_rotating_at_once_from_many_places_makes_one_successor(self, play):
        bob = await play.caller(Role.VIEWER)
        path = f"{KEYS}/{await id_of(bob)}/rotate"
        answers = await asyncio.gather(*(bob.http.post(path) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
        assert len((await bob.http.get(KEYS)).json()["items"]) == 2

    async def test_a_key_that_is_revoked_while_it_is_rotated_has_no_successor(self, play, runtime):
        ada = await play.caller()
        bob = await play.caller(Role.VIEWER, project=ada.project)
        key_id = await id_of(bob)
        await ada.http.get(KEYS)  # known from here on: the next request reads the key at once
        async with runtime.database.write() as session:
            await Directory(session, runtime.auth_keys, runtime.clock.now()).revoke(key_id)
            rotating = asyncio.create_task(ada.http.post(f"{KEYS}/{key_id}/rotate"))
            await asyncio.wait({rotating}, timeout=0.3)  # it waits for the one who revokes, having read the key as it was
        assert (await rotating).status_code == 404

    async def test_a_key_that_has_expired_is_not_rotated_into_life(self, play, runtime):
        bob = await play.caller(Role.VIEWER)
        made = (await bob.http.post(KEYS, json={**LAPTOP, "expires_in_days": 1})).json()
        async with runtime.database.write() as session:
            over = runtime.clock.now() - timedelta(seconds=1)
            await session.execute(update(credentials).where(credentials.c.id == made["id"]).values(expires_at=over))
        assert (await bob.http.post(f"{KEYS}/{made['id']}/rotate")).status_code == 404

    async def test_a_revoked_key_is_out_as_soon_as_the_notification_arrives(self, play):
        bob = await play.caller(Role.VIEWER)
        assert (await bob.http.delete(f"{KEYS}/{await id_of(bob)}")).status_code == 200
        # Sooner than what is remembered would be forgotten by itself.
        await until(partial(refused, play, bob.key), seconds=MAX_AGE_SECONDS - 1)


class TestScopedKeys:
    @pytest.mark.parametrize("wanted", [["*"], ["*:*"], ["toys:write"], ["*:read", "toys:write"], ["toys:*"]])
    async def test_one_does_not_make_a_wider_one(self, play, wanted):
        bob = await play.caller(scopes=("*:read",))
        response = await bob.http.post(KEYS, json={**LAPTOP, "scopes": wanted})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "scopes"
        assert (await bob.http.post(TOKENS, json={"name": "t", "scopes": wanted})).status_code == 422

    async def test_one_makes_a_narrow_one(self, play):
        bob = await play.caller(scopes=("*:read",))
        made = (await bob.http.post(KEYS, json={**LAPTOP, "scopes": ["*:read"]})).json()
        assert (await whoami(play, made["key"])).json()["scopes"] == ["*:read"]

    async def test_one_does_not_rotate_or_revoke_the_principals_wider_key(self, play, another_key):
        bob = await play.caller(scopes=("*:read",))
        wide_id, wide = await another_key(bob, bob.project)
        assert (await bob.http.post(f"{KEYS}/{wide_id}/rotate")).status_code == 403
        assert (await bob.http.delete(f"{KEYS}/{wide_id}")).status_code == 403
        assert (await whoami(play, wide)).status_code == 200

    async def test_an_admins_scoped_key_makes_none_for_others(self, play):
        ada = await play.caller(scopes=("*:read", "keys:admin", "grants:admin"))
        response = await ada.http.post(KEYS, json={**LAPTOP, "principal": "mallory", "scopes": ["*:read"]})
        assert response.status_code == 403


class TestLowerRoles:
    @pytest.mark.parametrize("role", [Role.VIEWER, Role.CONTRIBUTOR, Role.PROMOTER, Role.SERVICE])
    async def test_only_an_admin_acts_for_others_or_gives_roles(self, play, role):
        ada = await play.caller()
        bob = await play.caller(role, project=ada.project)
        attempts = [
            (KEYS, {**LAPTOP, "principal": ada.principal}),
            (KEYS, {**LAPTOP, "role": "admin"}),
            (KEYS, {**LAPTOP, "principal": bob.principal, "role": "viewer"}),
            (TOKENS, {"name": "t", "principal": ada.principal}),
            (GRANTS, {"principal": bob.principal, "role": "admin"}),
            (PROJECTS, {"name": "mine"}),
        ]
        for path, body in attempts:
            assert (await bob.http.post(path, json=body)).status_code == 403, (path, body)
        assert (await whoami(play, bob.key)).json()["roles"] == [role]

    async def test_the_keys_of_others_do_not_exist(self, play):
        ada = await play.caller()
        bob = await play.caller(Role.PROMOTER, project=ada.project)
        key_id = await id_of(ada)
        assert (await bob.http.post(f"{KEYS}/{key_id}/rotate")).status_code == 404
        assert (await bob.http.delete(f"{KEYS}/{key_id}")).status_code == 404
        assert (await bob.http.delete(f"{TOKENS}/{key_id}")).status_code == 404


class TestAdminsOfSomeNames:
    async def test_they_administer_nothing_that_concerns_all_names(self, play):
        ada = await play.caller()
        bob = await play.caller(Role.ADMIN, project=ada.project, pattern="fraud-*")
        attempts = [
            (GRANTS, {"principal": bob.principal, "role": "admin"}),
            (KEYS, {**LAPTOP, "role": "admin"}),
            (KEYS, {**LAPTOP, "principal": ada.principal}),
            (PROJECTS, {"name": "mine"}),
            ("/api/platform/webhooks", {"url": "https://example.com", "event_types": ["model.*"]}),
        ]
        for path, body in attempts:
            response = await bob.http.post(path, json=body)
            assert response.status_code == 403, (path, body)
        for path in (
            GRANTS,
            "/api/platform/audit",
            "/api/platform/audit/verify",
            "/api/platform/events",
            "/api/platform/webhooks",
        ):
            assert (await bob.http.get(path)).status_code == 403, path
        assert {key["principal"] for key in (await bob.http.get(KEYS)).json()["items"]} == {bob.principal}


class TestBoundKeys:
    async def test_one_does_not_reach_the_principals_key_that_is_bound_to_none(self, play, another_key):
        bob = await play.caller()
        free_id, free = await another_key(bob, None)
        assert (await bob.http.post(f"{KEYS}/{free_id}/rotate")).status_code == 403
        assert (await bob.http.delete(f"{KEYS}/{free_id}")).status_code == 403
        assert (await whoami(play, free)).status_code == 200

    async def test_what_it_makes_is_bound_to_its_project(self, play, runtime):
        bob = await play.caller()
        elsewhere = (await bob.http.post(PROJECTS, json={"name": f"p-{bob.principal}"})).json()["id"]
        for path in (KEYS, TOKENS):
            made = (await bob.http.post(path, json={"name": "x"})).json()
            secret = made.get("key") or made["token"]
            assert (await whoami(play, secret)).json()["project_id"] == bob.project
            assert (await whoami(play, secret, **{"X-MLOps-Project": elsewhere})).status_code == 400

    async def test_it_sees_its_own_project_alone(self, play, another_key):
        bob = await play.caller()
        await bob.http.post(PROJECTS, json={"name": f"p-{bob.principal}"})
        assert [item["id"] for item in (await bob.http.get(PROJECTS)).json()["items"]] == [bob.project]
        _, free = await another_key(bob, None)
        client = await play.client(free, **{"X-MLOps-Project": bob.project})
        assert len((await client.get(PROJECTS)).json()["items"]) == 2

    async def test_keys_and_grants_of_another_project_do_not_exist(self, play):
        ada, eve = await play.caller(), await play.caller()
        key_id = await id_of(ada)
        grant_id = (await ada.http.post(GRANTS, json={"principal": "grace", "role": "viewer"})).json()["id"]
        assert (await eve.http.delete(f"{KEYS}/{key_id}")).status_code == 404
        assert (await eve.http.post(f"{KEYS}/{key_id}/rotate")).status_code == 404
        assert (await eve.http.delete(f"{GRANTS}/{grant_id}")).status_code == 404
        assert (await whoami(play, ada.key)).status_code == 200


class TestTokens:
    async def test_what_a_token_makes_does_not_outlive_it(self, play):
        bob = await play.caller()
        token = (await bob.http.post(TOKENS, json={"name": "t", "ttl_seconds": 60})).json()["token"]
        by_token = await play.client(token)
        key = (await by_token.post(KEYS, json={**LAPTOP, "expires_in_days": 3650})).json()
        forever = (await by_token.post(KEYS, json={**LAPTOP, "expires_in_days": None})).json()
        longer = (await by_token.post(TOKENS, json={"name": "t", "ttl_seconds": 86400})).json()
        rotated = (await by_token.post(f"{KEYS}/{await id_of(bob)}/rotate")).json()
        for made in (key, forever, longer, rotated):
            assert datetime.fromisoformat(made["expires_at"]) <= datetime.now(UTC) + timedelta(seconds=61)

    async def test_what_it_makes_makes_nothing_that_outlives_it_either(self, play):
        bob = await play.caller()
        token = (await bob.http.post(TOKENS, json={"name": "t", "ttl_seconds": 60})).json()["token"]
        made = token
        for _ in range(3):
            client = await play.client(made)
            answer = (await client.post(KEYS, json={**LAPTOP, "expires_in_days": None})).json()
            assert answer["expires_at"] is not None
            assert datetime.fromisoformat(answer["expires_at"]) <= datetime.now(UTC) + timedelta(seconds=61)
            made = answer["key"]

    async def test_what_it_made_ends_when_it_is_revoked(self, play):
        bob = await play.caller()
        token = (await bob.http.post(TOKENS, json={"name": "t"})).json()
        key = (await (await play.client(token["token"])).post(KEYS, json=LAPTOP)).json()
        further = (await (await play.client(key["key"])).post(TOKENS, json={"name": "t"})).json()
        assert (await whoami(play, further["token"])).status_code == 200
        assert (await bob.http.delete(f"{TOKENS}/{token['id']}")).status_code == 200
        for made in (token["token"], key["key"], further["token"]):
            await until(partial(refused, play, made))
        assert (await whoami(play, bob.key)).status_code == 200

    async def test_one_that_says_for_whom_it_acts_says_it_for_good(self, play):
        ada = await play.caller()
        body = {"name": "t", "principal": f"nightly-{new_id()}", "on_behalf_of": "grace"}
        token = (await ada.http.post(TOKENS, json=body)).json()["token"]
        await ada.http.post(GRANTS, json={"principal": body["principal"], "role": "service", "kind": "service"})
        said = await whoami(play, token, **{"X-MLOps-On-Behalf-Of": "mallory"})
        assert said.json()["on_behalf_of"] == "grace"
        client = await play.client(token)
        other = (await client.post(TOKENS, json={"name": "t", "on_behalf_of": "mallory"})).json()["token"]
        key = (await client.post(KEYS, json=LAPTOP)).json()["key"]
        for made in (other, key):
            said = await whoami(play, made, **{"X-MLOps-On-Behalf-Of": "mallory"})
            assert said.json()["on_behalf_of"] == "grace"

    async def test_only_a_service_acts_on_behalf_of_others(self, play):
        ada = await play.caller()
        forged = await ada.http.post(TOKENS, json={"name": "t", "on_behalf_of": "grace"})
        assert forged.status_code == 422
        made = (await ada.http.post(TOKENS, json={"name": "t", "principal": "nightly", "on_behalf_of": "grace"})).json()
        await ada.http.post(GRANTS, json={"principal": "nightly", "role": "service", "kind": "service"})
        assert (await whoami(play, made["token"])).json()["on_behalf_of"] == "grace"

    async def test_a_users_name_does_not_become_a_service_by_asking(self, play):
        ada = await play.caller()
        bob = await play.caller(Role.VIEWER, project=ada.project)
        body = {"name": "t", "principal": bob.principal, "on_behalf_of": "grace"}
        assert (await ada.http.post(TOKENS, json=body)).status_code == 422

    async def test_a_token_cannot_be_rotated_as_a_key(self, play):
        ada = await play.caller()
        token_id = (await ada.http.post(TOKENS, json={"name": "t"})).json()["id"]
        assert (await ada.http.post(f"{KEYS}/{token_id}/rotate")).status_code == 404


class TestGrants:
    async def test_a_granted_role_is_in_force_and_listed_and_taken_again(self, play):
        ada = await play.caller()
        body = {"principal": "grace", "role": "contributor", "pattern": "fraud-*"}
        made = (await ada.http.post(GRANTS, json=body)).json()
        listed = (await ada.http.get(GRANTS)).json()["items"]
        assert (made["id"], "fraud-*") in {(item["id"], item["pattern"]) for item in listed}
        assert (await ada.http.delete(f"{GRANTS}/{made['id']}")).status_code == 200
        assert (await ada.http.delete(f"{GRANTS}/{made['id']}")).status_code == 404

    @pytest.mark.parametrize(
        "change", [{"role": "root"}, {"pattern": "[a-z]"}, {"pattern": ""}, {"pattern": "a/b"}, {"principal": "a b"}]
    )
    async def test_a_malformed_one_is_refused(self, play, change):
        ada = await play.caller()
        body = {"principal": "grace", "role": "viewer", **change}
        assert (await ada.http.post(GRANTS, json=body)).status_code == 422


class TestAudit:
    async def test_each_change_names_who_what_and_when_and_never_a_secret(self, play, runtime):
        ada = await play.caller()
        key = (await ada.http.post(KEYS, json=LAPTOP)).json()
        await ada.http.post(f"{KEYS}/{key['id']}/rotate")
        await ada.http.delete(f"{KEYS}/{key['id']}")
        token = (await ada.http.post(TOKENS, json={"name": "t"})).json()
        grant = (await ada.http.post(GRANTS, json={"principal": "grace", "role": "viewer"})).json()
        await ada.http.delete(f"{GRANTS}/{grant['id']}")
        async with runtime.database.read() as session:
            rows = await session.all(select(audit_entries).where(audit_entries.c.project_id == ada.project))
        actions = [row.action for row in sorted(rows, key=lambda row: row.sequence)]
        assert actions == [
            "key.created",
            "key.rotated",
            "credential.revoked",
            "token.created",
            "grant.created",
            "grant.deleted",
        ]
        assert {row.principal_name for row in rows} == {ada.principal}
        assert key["key"] not in repr(rows)
        assert token["token"] not in repr(rows)

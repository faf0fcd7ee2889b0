import asyncio
import base64
from datetime import timedelta
from time import monotonic

import pytest
from sqlalchemy import update

from mlops_platform.core.auth import authenticator as module
from mlops_platform.core.auth import directory
from mlops_platform.core.auth.authenticator import Authenticator, Presented, read_credential
from mlops_platform.core.auth.directory import Directory, NewCredential
from mlops_platform.core.auth.keys import make_key
from mlops_platform.core.auth.tables import credentials, principals
from mlops_platform.core.clock import FixedClock
from mlops_platform.core.errors import MalformedRequest, Unauthenticated
from mlops_platform.core.identity import PrincipalKind, Role, new_id
from tests.factories.waiting import until


class Access:
    """Credentials of fresh principals, and an authenticator that nobody notifies."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.clock = FixedClock(runtime.clock.now())
        self.deaf = Authenticator(runtime.database, runtime.auth_keys, self.clock)

    async def change(self, use):
        async with self.runtime.database.write() as session:
            return await use(Directory(session, self.runtime.auth_keys, self.clock.now()))

    async def made(self, *projects, kind=PrincipalKind.USER, bound_to=None, token=False, **fields):
        async def use(access):
            principal = await access.ensure_principal(f"u-{new_id()}", kind)
            for project in projects:
                await access.grant(principal, project, Role.CONTRIBUTOR)
            new = NewCredential(principal, bound_to, "test", **fields)
            if token:
                return principal, *(await access.add_token(new, 3600))[:2]
            return principal, *(await access.add_key(new, kind))

        return await self.change(use)

    async def project(self):
        return (await self.change(lambda access: access.ensure_project(f"p-{new_id()}")))[0]

    async def ask(self, secret, project=None, behalf=None):
        return await self.deaf.authenticate(Presented(secret, project, behalf))


@pytest.fixture
def access(runtime):
    return Access(runtime)


class TestAnswers:
    async def test_key_and_token_give_the_principal_its_project_and_roles(self, access):
        project = await access.project()
        for token in (False, True):
            principal_id, credential_id, secret = await access.made(
                project, bound_to=project, token=token, scopes=("*:read",)
            )
            who = await access.ask(secret)
            assert (who.id, who.project, who.credential_id, who.scopes) == (
                principal_id,
                project,
                credential_id,
                ("*:read",),
            )
            assert [grant.role for grant in who.grants] == [Role.CONTRIBUTOR]

    @pytest.mark.parametrize("token", [False, True])
    async def test_all_refusals_look_alike(self, access, token):
        project = await access.project()
        said = set()
        _, revoked_id, revoked = await access.made(project, bound_to=project, token=token)
        await access.change(lambda a: a.revoke(revoked_id))
        _, _, expired = await access.made(project, bound_to=project, token=token, expires_at=access.clock.now())
        _, _, homeless = await access.made(token=token)
        for secret in (revoked, expired, homeless, "", "nonsense", "mlops_user_" + "a" * 26 + "_000000"):
            with pytest.raises(Unauthenticated) as refused:
                await access.ask(secret)
            said.add((refused.value.detail, refused.value.hint))
        assert len(said) == 1

    async def test_a_disabled_principal_is_out(self, access, runtime):
        project = await access.project()
        principal_id, _, secret = await access.made(project)
        async with runtime.database.write() as session:
            now = runtime.clock.now()
            await session.execute(update(principals).where(principals.c.id == principal_id).values(disabled_at=now))
        with pytest.raises(Unauthenticated):
            await access.ask(secret)

    async def test_a_token_whose_row_is_a_keys_row_is_refused(self, access, runtime):
        """A genuine signature over the id of a revoked row does not help."""
        project = await access.project()
        _, token_id, token = await access.made(project, token=True)
        async with runtime.database.write() as session:
            await session.execute(credentials.delete().where(credentials.c.id == token_id))
        with pytest.raises(Unauthenticated):
            await access.ask(token)


class TestProjects:
    async def test_several_projects_need_one_to_be_named(self, access):
        one, two = await access.project(), await access.project()
        _, _, secret = await access.made(one, two)
        with pytest.raises(MalformedRequest, match="several projects"):
            await access.ask(secret)
        assert (await access.ask(secret, one)).project == one
        assert (await access.ask(secret, (await access.ask(secret, two)).project_name)).project == two

    async def test_naming_a_foreign_project_is_like_naming_none(self, access):
        mine, foreign = await access.project(), await access.project()
        _, _, secret = await access.made(mine)
        said = set()
        for named in (foreign, "no-such-project"):
            with pytest.raises(MalformedRequest) as refused:
                await access.ask(secret, named)
            said.add(refused.value.detail.replace(named, "X"))
        assert len(said) == 1

    async def test_a_bound_key_stays_in_its_project_although_its_principal_sees_others(self, access):
        one, two = await access.project(), await access.project()
        _, _, secret = await access.made(one, two, bound_to=one)
        assert (await access.ask(secret)).project == one
        with pytest.raises(MalformedRequest):
            await access.ask(secret, two)

    async def test_the_answer_for_one_project_is_not_given_for_another(self, access):
        one, two = await access.project(), await access.project()
        _, _, secret = await access.made(one, two)
        for project in (one, two, one, two):
            assert (await access.ask(secret, project)).project == project

    async def test_a_project_that_is_named_like_anothers_id_does_not_shadow_it(self, access):
        one = await access.project()
        twin = (await access.change(lambda a: a.ensure_project(one)))[0]
        _, _, secret = await access.made(one, twin)
        assert (await access.ask(secret, one)).project == one


class TestFreshness:
    """Without any notification: what the authenticator knows by itself."""

    @pytest.fixture
    def later(self, monkeypatch):
        start = monotonic()
        return lambda seconds: monkeypatch.setattr(module, "monotonic", lambda: start + seconds)

    async def test_the_bound_is_below_the_promised_five_seconds(self):
        assert module.MAX_AGE_SECONDS < 5

    async def test_an_answer_is_remembered_and_then_asked_again(self, access, later):
        project = await access.project()
        _, key_id, secret = await access.made(project)
        await access.ask(secret)
        assert access.deaf.recall(Presented(secret, None)) is not None
        await access.change(lambda a: a.revoke(key_id))
        later(module.MAX_AGE_SECONDS + 0.1)
        assert access.deaf.recall(Presented(secret, None)) is None
        with pytest.raises(Unauthenticated):
            await access.ask(secret)

    async def test_an_answer_is_as_old_as_its_question(self, access, monkeypatch):
        """A database that takes its time must not lengthen the life of what it said at the beginning."""
        project = await access.project()
        _, _, secret = await access.made(project)
        start, waited = monotonic(), [0.0]
        monkeypatch.setattr(module, "monotonic", lambda: start + waited[0])
        find_project = module._project_of

        async def late(*arguments):
            found = await find_project(*arguments)
            waited[0] += module.MAX_AGE_SECONDS + 0.1
            return found

        monkeypatch.setattr(module, "_project_of", late)
        await access.ask(secret)
        assert access.deaf.recall(Presented(secret, None)) is None

    async def test_a_role_that_was_taken_is_gone_within_the_bound(self, access, later):
        project = await access.project()
        principal, _, secret = await access.made(project)
        binding = await access.change(lambda a: a.grant(principal, project, Role.ADMIN))
        assert Role.ADMIN in {grant.role for grant in (await access.ask(secret)).grants}
        await access.change(lambda a: a.ungrant(project, binding))
        later(module.MAX_AGE_SECONDS + 0.1)
        assert Role.ADMIN not in {grant.role for grant in (await access.ask(secret)).grants}

    async def test_an_expiry_is_exact_also_for_what_is_remembered(self, access):
        project = await access.project()
        _, _, secret = await access.made(project, expires_at=access.clock.now() + timedelta(seconds=1))
        await access.ask(secret)
        access.clock.moment += timedelta(seconds=1)
        assert access.deaf.recall(Presented(secret, None)) is None
        with pytest.raises(Unauthenticated):
            await access.ask(secret)

    async def test_a_wrong_credential_is_never_remembered(self, access):
        for number in range(50):
            with pytest.raises(Unauthenticated):
                await access.ask(f"mlops_user_{number}")
        assert access.deaf._known == {}

    async def test_what_was_read_before_a_change_came_in_is_not_kept(self, access):
        project = await access.project()
        _, _, secret = await access.made(project)
        asking = asyncio.create_task(access.ask(secret))
        await asyncio.sleep(0)
        access.deaf.forget()
        await asking
        assert access.deaf.recall(Presented(secret, None)) is None

    async def test_memory_is_bounded(self, access, monkeypatch):
        monkeypatch.setattr(module, "_MAX_CACHED", 3)
        project = await access.project()
        for _ in range(8):
            await access.ask((await access.made(project))[2])
        assert len(access.deaf._known) <= 3


class TestNotifications:
    """Through LISTEN/NOTIFY, as a running process has it."""

    async def heard(self, runtime, change):
        generation = runtime.authenticator._generation
        result = await change()
        await until(lambda: runtime.authenticator._generation != generation)
        return result

    async def test_revocation_ungrant_and_rotation_are_heard_at_once(self, access, runtime):
        project = await access.project()
        principal, key_id, secret = await access.made(project)
        await runtime.authenticator.authenticate(Presented(secret, None))
        binding = await self.heard(runtime, lambda: access.change(lambda a: a.grant(principal, project, Role.ADMIN)))
        who = await runtime.authenticator.authenticate(Presented(secret, None))
        assert Role.ADMIN in {grant.role for grant in who.grants}
        await self.heard(runtime, lambda: access.change(lambda a: a.ungrant(project, binding)))
        who = await runtime.authenticator.authenticate(Presented(secret, None))
        assert Role.ADMIN not in {grant.role for grant in who.grants}

        async def rotate(a):
            row = await directory.find_credential(a._session, who, key_id)
            return await a.rotate(row, by=principal, overlap_seconds=0)

        _, successor = await self.heard(runtime, lambda: access.change(rotate))
        with pytest.raises(Unauthenticated):
            await runtime.authenticator.authenticate(Presented(secret, None))
        successor_id = (await runtime.authenticator.authenticate(Presented(successor, None))).credential_id
        await self.heard(runtime, lambda: access.change(lambda a: a.revoke(successor_id)))
        with pytest.raises(Unauthenticated):
            await runtime.authenticator.authenticate(Presented(successor, None))

    async def test_a_change_that_is_rolled_back_is_not_heard(self, access, runtime):
        generation = runtime.authenticator._generation

        async def change(access):
            await access.revoke(new_id())
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await access.change(change)
        assert runtime.authenticator._generation == generation


class TestHeaders:
    def basic(self, text):
        return b"Basic " + base64.b64encode(text.encode())

    @pytest.mark.parametrize(
        ("headers", "secret"),
        [
            ([(b"authorization", b"Bearer k")], "k"),
            ([(b"authorization", b"bearer   k ")], "k"),
            ([(b"x-api-key", b" k ")], "k"),
            ([(b"authorization", b"Basic " + base64.b64encode(b"user:k:with:colons"))], "k:with:colons"),
            ([(b"x-api-key", b"a"), (b"authorization", b"Bearer b")], "b"),
            ([(b"authorization", b"Bearer b"), (b"x-api-key", b"a")], "b"),
            ([(b"authorization", b"Digest x"), (b"x-api-key", b"a")], "a"),
        ],
    )
    def test_a_credential_comes_in_three_ways(self, headers, secret):
        presented = read_credential(dict(headers))
        assert presented is not None
        assert presented.secret == secret

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic",
            b"Basic !!!",
            b"Basic " + base64.b64encode(b"no-colon"),
            b"Basic " + base64.b64encode(b"user:"),
            b"Basic " + base64.b64encode(b"\xff:\xff"),
            b"k",
            b"Token k",
            b"Bearer " + b"k" * 5000,
        ],
    )
    def test_anything_else_is_no_credential(self, value):
        assert read_credential({b"authorization": value}) is None

    def test_the_project_has_two_names(self):
        for name in (b"x-mlops-project", b"x-mlflow-workspace"):
            presented = read_credential({b"x-api-key": b"k", name: b" p "})
            assert presented is not None
            assert presented.project == "p"

    @pytest.mark.parametrize("value", [b"a\x00b", b"a\nb", b"x" * 201, "\u202e".encode()])
    def test_an_unreadable_on_behalf_of_is_refused(self, value):
        with pytest.raises(MalformedRequest, match="On-Behalf-Of"):
            read_credential({b"x-api-key": b"k", b"x-mlops-on-behalf-of": value})


class TestOnBehalfOf:
    async def test_a_service_says_for_whom_it_acts_and_a_user_does_not(self, access):
        project = await access.project()
        _, _, service = await access.made(project, kind=PrincipalKind.SERVICE)
        _, _, user = await access.made(project)
        for _ in range(2):  # looked up, then remembered
            assert (await access.ask(service, behalf="grace")).on_behalf_of == "grace"
            assert (await access.ask(user, behalf="grace")).on_behalf_of is None
        assert (await access.ask(service)).on_behalf_of is None


class TestUse:
    async def test_the_last_use_is_written_down_and_never_goes_back(self, access, runtime):
        project = await access.project()
        _, key_id, secret = await access.made(project)
        await access.ask(secret)
        used = access.deaf.take_used()
        assert used == {key_id: access.clock.now()}
        assert access.deaf.take_used() == {}
        for moment in (access.clock.now(), access.clock.now() - timedelta(hours=1)):
            async with runtime.database.write() as session:
                await directory.note_used(session, {key_id: moment})
        async with runtime.database.read() as session:
            found = await session.scalar(
                credentials.select().with_only_columns(credentials.c.last_used_at).where(credentials.c.id == key_id)
            )
        assert found == access.clock.now()


class TestBootstrap:
    async def first(self, access, key):
        async with access.runtime.database.write() as session:
            await directory.bootstrap(session, access.runtime.auth_keys, access.clock.now(), key)

    async def test_it_can_be_repeated_and_does_not_bring_a_revoked_key_back(self, access):
        key = make_key(PrincipalKind.USER)
        await self.first(access, key)
        await self.first(access, key)
        who = await access.ask(key, "default")
        await access.change(lambda a: a.revoke(who.credential_id))
        await self.first(access, key)
        access.deaf.forget()
        with pytest.raises(Unauthenticated):
            await access.ask(key, "default")

import asyncio
from datetime import timedelta

from sqlalchemy import func, select, text

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.clock import FixedClock
from mlops_platform.core.events.tables import events
from mlops_platform.core.http import idempotency
from mlops_platform.core.http.tables import idempotency_keys
from mlops_platform.core.identity import Role
from tests.factories.sample_service import toy_app

ONE = {"name": "bear"}


def keyed(key="k1"):
    return {"Idempotency-Key": key}


async def rows_of(runtime, project, table=idempotency_keys):
    async with runtime.database.read() as session:
        statement = select(func.count()).select_from(table).where(table.c.project_id == project)
        return await session.scalar(statement)


class TestReplay:
    async def test_the_second_post_has_the_first_ones_bytes_status_and_location_and_no_effect(self, ada, runtime):
        first = await ada.http.post("/api/toys", json=ONE, headers=keyed())
        second = await ada.http.post("/api/toys", json=ONE, headers=keyed())
        assert (first.status_code, second.status_code) == (201, 201)
        assert second.content == first.content
        assert second.headers["location"] == first.headers["location"] == "/api/toys/bear"
        assert second.headers["content-type"] == first.headers["content-type"]
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert (await ada.http.get("/api/toys/count/bear")).json() == 1
        assert await rows_of(runtime, ada.project, audit_entries) == 1
        assert await rows_of(runtime, ada.project, events) == 1

    async def test_another_body_under_the_same_key_is_refused(self, ada):
        await ada.http.post("/api/toys", json=ONE, headers=keyed())
        response = await ada.http.post("/api/toys", json={"name": "doll"}, headers=keyed())
        assert response.status_code == 422
        assert response.json()["code"] == "idempotency_key_reused"

    async def test_another_query_under_the_same_key_is_refused(self, ada):
        await ada.http.post("/api/toys", json=ONE, headers=keyed())
        assert (await ada.http.post("/api/toys?a=1", json=ONE, headers=keyed())).status_code == 422

    async def test_keys_of_another_principal_route_or_project_do_not_meet(self, ada, play):
        await ada.http.post("/api/toys", json=ONE, headers=keyed())
        bob = await play.caller(project=ada.project)
        response = await bob.http.post("/api/toys", json={"name": "doll"}, headers=keyed())
        assert response.status_code == 201
        eve = await play.caller()
        assert "idempotency-replayed" not in (await eve.http.post("/api/toys", json=ONE, headers=keyed())).headers
        assert (await ada.http.post("/api/toys/failing", json=ONE, headers=keyed())).status_code == 404

    async def test_a_key_must_have_a_sane_length(self, ada):
        for key in ("", "x" * 256):
            response = await ada.http.post("/api/toys", json=ONE, headers=keyed(key))
            assert response.status_code == 422
            assert response.json()["errors"][0]["field"] == "Idempotency-Key"

    async def test_a_caller_who_lost_the_permission_gets_no_replay(self, ada, play, runtime):
        await ada.http.post("/api/toys", json=ONE, headers=keyed())
        async with runtime.database.write() as session:
            await session.execute(
                text("UPDATE core.role_bindings SET role = 'viewer' WHERE project_id = :p"), {"p": ada.project}
            )
        runtime.authenticator.forget()
        assert (await ada.http.post("/api/toys", json=ONE, headers=keyed())).status_code == 403


class TestWhatIsKept:
    async def test_a_refused_request_is_not_kept_and_may_be_corrected(self, ada, runtime):
        refused = await ada.http.post("/api/toys", json={"name": "../x"}, headers=keyed())
        assert refused.status_code == 422
        assert await rows_of(runtime, ada.project) == 0
        assert (await ada.http.post("/api/toys", json=ONE, headers=keyed())).status_code == 201

    async def test_nothing_is_kept_of_what_was_rolled_back(self, ada, runtime):
        assert (await ada.http.post("/api/toys/failing", json=ONE, headers=keyed())).status_code == 404
        for table in (idempotency_keys, audit_entries, events):
            assert await rows_of(runtime, ada.project, table) == 0
        assert (await ada.http.get("/api/toys/count/bear")).json() == 0

    async def test_nothing_is_kept_when_the_commit_fails(self, ada, runtime):
        await ada.http.post("/api/toys", json=ONE)
        response = await ada.http.post("/api/toys", json=ONE, headers=keyed())
        assert response.status_code == 500
        assert await rows_of(runtime, ada.project) == 0

    async def test_a_new_keys_secret_is_replayed_and_does_not_lie_about_in_clear(self, ada, runtime):
        body = {"name": "laptop"}
        first = await ada.http.post("/api/platform/keys", json=body, headers=keyed())
        again = await ada.http.post("/api/platform/keys", json=body, headers=keyed())
        assert again.json()["key"] == first.json()["key"]
        async with runtime.database.read() as session:
            statement = select(idempotency_keys.c.body).where(idempotency_keys.c.project_id == ada.project)
            stored = await session.scalar(statement)
        assert first.json()["key"].encode() not in stored
        assert b"laptop" not in stored

    async def test_gets_and_reading_posts_ignore_the_key(self, ada, runtime):
        assert (await ada.http.get("/api/toys", headers=keyed())).status_code == 200
        assert await rows_of(runtime, ada.project) == 0


class TestConcurrency:
    async def test_a_duplicate_meanwhile_is_a_conflict(self, play, runtime):
        app = toy_app(runtime)
        ada = await play.caller(app=app)
        first = asyncio.create_task(ada.http.post("/api/toys/slow", json=ONE, headers=keyed()))
        await app.fastapi.state.reached.wait()
        second = await ada.http.post("/api/toys/slow", json=ONE, headers=keyed())
        assert second.status_code == 409
        assert second.json()["code"] == "idempotency_key_in_use"
        assert second.headers["retry-after"] == "1"
        app.fastapi.state.gate.set()
        assert (await first).status_code == 201
        third = await ada.http.post("/api/toys/slow", json=ONE, headers=keyed())
        assert third.content == (await first).content

    async def test_of_twenty_at_once_exactly_one_has_an_effect(self, ada):
        answers = await asyncio.gather(*(ada.http.post("/api/toys", json=ONE, headers=keyed()) for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
        assert (await ada.http.get("/api/toys/count/bear")).json() == 1


class TestTime:
    async def test_an_answer_is_forgotten_after_its_time(self, play, runtime):
        ada = await play.caller(Role.ADMIN, app=toy_app(runtime, idempotency_hours=1e-9))
        await ada.http.post("/api/toys", json=ONE, headers=keyed())
        again = await ada.http.post("/api/toys", json={"name": "doll"}, headers=keyed())
        assert again.status_code == 201

    async def test_the_sweep_removes_what_is_past_its_time_and_nothing_else(self, play, runtime):
        old = await play.caller(app=toy_app(runtime, idempotency_hours=1))
        young = await play.caller(app=toy_app(runtime, idempotency_hours=48))
        for caller in (old, young):
            await caller.http.post("/api/toys", json=ONE, headers=keyed())
        clock = FixedClock(runtime.clock.now() + timedelta(hours=2))
        async with runtime.database.write() as session:
            assert await idempotency.sweep(session, clock.now()) >= 1
        assert await rows_of(runtime, old.project) == 0
        assert await rows_of(runtime, young.project) == 1

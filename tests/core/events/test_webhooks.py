"""Deliveries to a real HTTP server that can be made to fail."""

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update

from mlops_platform.core.clock import FixedClock
from mlops_platform.core.crypto.seal import SealBroken, seal, unseal
from mlops_platform.core.events import webhooks as module
from mlops_platform.core.events.outbox import Event, append, new_event_id, place
from mlops_platform.core.events.tables import webhook_deliveries, webhooks
from mlops_platform.core.events.webhooks import MOST_ATTEMPTS, delay_seconds, opened, policy, signature, sweep

HOOKS = "/api/platform/webhooks"


class Receiver:
    """Keeps what it is sent, and answers as it is told."""

    def __init__(self):
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        self.port = 0

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        raw = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.got.append(({name.lower(): value for name, value in raw.items()}, body))
        writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer".encode())
        await writer.drain()
        writer.close()

    def ids(self):
        return [headers["webhook-id"] for headers, _ in self.got]


@pytest.fixture
async def receiver():
    it = Receiver()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    yield it
    server.close()


async def place_all(database):
    """Other tests of this database may have left more events without a position than are placed at once."""
    placed = 1
    while placed:
        async with database.write() as session:
            placed = await place(session)


class Hooks:
    def __init__(self, runtime, receiver, caller):
        self.clock = FixedClock(runtime.clock.now())
        self.runtime = dataclasses.replace(runtime, clock=self.clock)
        self.receiver, self.caller = receiver, caller
        self.allowed = (f"127.0.0.1:{receiver.port}",)

    async def make(self, *types, project=None):
        """Beneath the API, whose own settings allow no internal host."""
        webhook_id, secret = new_event_id(), module.make_secret()
        async with self.runtime.database.write() as session:
            await session.execute(
                webhooks.insert().values(
                    id=webhook_id, project_id=project or self.caller.project, event_types=list(types or ("toy.*",)),
                    url=f"http://127.0.0.1:{self.receiver.port}/hook", created_at=self.clock.now(),
                    secret_sealed=module.seal_secret(self.runtime.auth_keys.sealing, webhook_id, secret),
                )
            )  # fmt: skip
        return webhook_id, secret

    async def emit(self, *kinds):
        events = [Event(new_event_id(), kind, "s", self.caller.project, {"k": kind}, self.clock.now()) for kind in kinds]
        async with self.runtime.database.write() as session:
            await append(session, events)
        await place_all(self.runtime.database)
        return [event.id for event in events]

    async def run(self, *, turns=50, allowed=None):
        key = self.runtime.auth_keys.sealing
        async with opened(self.runtime.database, self.clock, key, self.allowed if allowed is None else allowed) as courier:
            for _ in range(turns):
                if not await courier.turn():
                    return

    async def run_for_days(self, days=4):
        for _ in range(days * 6):
            await self.run()
            self.clock.moment += timedelta(hours=4)

    async def rows(self):
        mine = webhook_deliveries.c.project_id == self.caller.project
        async with self.runtime.database.read() as session:
            return await session.all(select(webhook_deliveries).where(mine).order_by(webhook_deliveries.c.created_at))


@pytest.fixture
async def hooks(runtime, receiver, platform):
    it = Hooks(runtime, receiver, await platform.caller("model-registry"))
    yield it
    async with runtime.database.write() as session:  # what waits here is nobody else's
        await session.execute(update(webhooks).where(webhooks.c.project_id == it.caller.project).values(is_active=False))


class TestDelivery:
    async def test_an_event_arrives_signed_after_the_standard(self, hooks, receiver):
        _, secret = await hooks.make()
        (event_id,) = await hooks.emit("toy.made")
        await hooks.run()
        ((headers, body),) = receiver.got
        assert headers["webhook-id"] == event_id
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{event_id}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert json.loads(body)["type"] == "toy.made"
        assert json.loads(body)["id"] == event_id

    async def test_only_wanted_types_of_the_own_project_arrive_once(self, hooks, receiver, platform):
        await hooks.make("toy.made", "box.*")
        await hooks.make("toy.*", project=await platform.project())
        wanted = await hooks.emit("toy.made", "box.opened")
        await hooks.emit("toy.broken", "boxes.made")
        await asyncio.gather(*(hooks.run() for _ in range(3)))
        assert sorted(receiver.ids()) == sorted(wanted)

    async def test_what_was_before_a_restart_of_the_fan_out_is_not_sent_twice(self, hooks, receiver):
        await hooks.make()
        await hooks.emit("toy.made")
        await hooks.run()
        async with hooks.runtime.database.write() as session:
            await session.execute(text("UPDATE core.event_cursors SET position = 0 WHERE consumer = 'webhooks'"))
        await hooks.run()
        assert len(receiver.got) == 1


class TestFailure:
    async def test_it_is_tried_again_until_it_is_taken(self, hooks, receiver):
        await hooks.make()
        await hooks.emit("toy.made")
        receiver.status = 500
        await hooks.run()
        await hooks.run()
        assert len(receiver.got) == 1  # not before its time
        receiver.status = 200
        hooks.clock.moment += timedelta(seconds=6)
        await hooks.run()
        (row,) = await hooks.rows()
        assert len(set(receiver.ids())) == 1
        assert (row.attempts, row.last_status, row.is_dead, row.delivered_at) == (2, 200, False, hooks.clock.now())

    @pytest.mark.parametrize("status", [199 + 2, 301, 404, 503])
    async def test_nobody_takes_it_for_days_and_it_is_given_up(self, hooks, receiver, status):
        await hooks.make()
        await hooks.emit("toy.made")
        receiver.status = status
        await hooks.run_for_days()
        (row,) = await hooks.rows()
        is_taken = status == 201
        assert row.is_dead is not is_taken
        assert row.attempts == len(receiver.got) == (1 if is_taken else MOST_ATTEMPTS)

    async def test_gone_ends_the_webhook_at_once(self, hooks, receiver):
        webhook_id, _ = await hooks.make()
        await hooks.emit("toy.made")
        receiver.status = 410
        await hooks.run_for_days(1)
        await hooks.emit("toy.made")
        await hooks.run_for_days(1)
        assert len(receiver.got) == 1
        async with hooks.runtime.database.read() as session:
            assert await session.scalar(select(webhooks.c.is_active).where(webhooks.c.id == webhook_id)) is False

    async def test_a_secret_that_cannot_be_read_is_that_webhooks_failure_alone(self, hooks, receiver):
        """As after a change of `API_SECRET_KEY`: the others, and those made since, must not suffer from it."""
        broken_id, _ = await hooks.make()
        async with hooks.runtime.database.write() as session:
            sealed = module.seal_secret(b"x" * 32, broken_id, module.make_secret())
            await session.execute(update(webhooks).where(webhooks.c.id == broken_id).values(secret_sealed=sealed))
        await hooks.make()
        await hooks.emit("toy.made")
        await hooks.run_for_days()
        assert len(receiver.got) == 1
        rows = {row.webhook_id == broken_id: row for row in await hooks.rows()}
        assert rows[False].delivered_at is not None
        assert (rows[True].is_dead, rows[True].attempts) == (True, MOST_ATTEMPTS)
        assert "API_SECRET_KEY" in rows[True].last_error

    async def test_a_crash_between_claim_and_answer_repeats_it(self, hooks, receiver):
        await hooks.make()
        await hooks.emit("toy.made")
        async with opened(hooks.runtime.database, hooks.clock, hooks.runtime.auth_keys.sealing, hooks.allowed) as courier:
            while await courier._fan_out():  # others' events may fill whole rounds
                pass
            assert len(await courier._claim()) == 1
            assert await courier._claim() == []  # held by the one that died
        hooks.clock.moment += timedelta(seconds=61)
        await hooks.run()
        assert len(receiver.got) == 1

    async def test_a_receiver_that_lost_its_permission_to_be_internal_is_not_called(self, hooks, receiver):
        await hooks.make()
        await hooks.emit("toy.made")
        await hooks.run(allowed=())
        (row,) = await hooks.rows()
        assert receiver.got == []
        assert row.last_status is None
        assert "127.0.0.1" not in row.last_error

    async def test_old_deliveries_are_forgotten_and_waiting_ones_are_not(self, hooks, receiver):
        await hooks.make()
        await hooks.emit("toy.made")
        await hooks.run()
        receiver.status = 500
        await hooks.emit("toy.broken")
        await hooks.run()
        async with hooks.runtime.database.write() as session:
            await sweep(session, hooks.clock.now() + timedelta(days=8))
        assert [row.delivered_at for row in await hooks.rows()] == [None]


class TestRules:
    def test_waiting_grows_is_bounded_and_scattered(self):
        assert [delay_seconds(attempt, 1.0) for attempt in (1, 2, 3)] == [5, 20, 80]
        assert delay_seconds(1000, 1.0) == 6 * 3600
        assert delay_seconds(3, 0.0) == 40

    def test_an_allowed_host_is_exactly_what_is_written(self):
        origins = policy(("a.test", "b.test:8080", "[::1]")).internal_origins
        assert origins == {"a.test:80", "a.test:443", "b.test:8080", "[::1]:80", "[::1]:443"}

    def test_a_signature_covers_id_time_and_body(self):
        secret = module.make_secret()
        given = signature(secret, "m", 1, b"b")
        assert given not in {
            signature(secret, "n", 1, b"b"),
            signature(secret, "m", 2, b"b"),
            signature(secret, "m", 1, b"c"),
        }

    def test_a_sealed_secret_opens_only_in_its_place_and_unchanged(self):
        sealed = seal(b"k" * 32, b"secret", b"webhook a")
        assert unseal(b"k" * 32, sealed, b"webhook a") == b"secret"
        assert b"secret" not in sealed
        broken = [
            (b"z" * 32, sealed, b"webhook a"),
            (b"k" * 32, sealed, b"webhook b"),
            (b"k" * 32, sealed[:-1], b"webhook a"),
            (b"k" * 32, b"", b""),
        ]
        for key, content, context in broken:
            with pytest.raises(SealBroken):
                unseal(key, content, context)


class TestRoutes:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1/", "http://localhost:80/", "http://169.254.169.254/latest/meta-data", "http://[::1]/", "http://10.0.0.1/",
            "https://user:pw@example.com/", "http://93.184.216.34:22/", "http://[::ffff:127.0.0.1]/", "http://0/", "http://2130706433/",
        ],
    )  # fmt: skip
    async def test_an_internal_address_is_refused_at_the_door(self, hooks, url):
        response = await hooks.caller.http.post(HOOKS, json={"url": url, "event_types": ["toy.*"]})
        assert response.status_code == 422, response.text
        assert (await hooks.caller.http.get(HOOKS)).json()["items"] == []

    @pytest.mark.parametrize(
        "body", [{"url": "ftp://x.test"}, {"event_types": []}, {"event_types": ["*"]}, {"event_types": ["a.b.c"]}]
    )
    async def test_a_malformed_one_is_refused(self, hooks, body):
        whole = {"url": "https://93.184.216.34/", "event_types": ["toy.*"], **body}
        assert (await hooks.caller.http.post(HOOKS, json=whole)).status_code == 422

    async def test_the_secret_is_shown_once_and_kept_sealed(self, hooks):
        made = (
            await hooks.caller.http.post(HOOKS, json={"url": "https://93.184.216.34/x", "event_types": ["toy.*"]})
        ).json()
        assert made["secret"].startswith("whsec_")
        assert made["secret"] not in (await hooks.caller.http.get(HOOKS)).text
        async with hooks.runtime.database.read() as session:
            sealed = await session.scalar(select(webhooks.c.secret_sealed).where(webhooks.c.id == made["id"]))
        assert made["secret"].encode() not in sealed

    async def test_a_dead_letter_is_listed_and_sent_again_on_request(self, hooks, receiver):
        webhook_id, _ = await hooks.make()
        await hooks.emit("toy.made")
        receiver.status = 500
        await hooks.run_for_days()
        path = f"{HOOKS}/{webhook_id}/deliveries"
        (dead,) = (await hooks.caller.http.get(f"{path}?is_dead=true")).json()["items"]
        assert (dead["event_type"], dead["last_error"], dead["next_attempt_at"]) == ("toy.made", "answered 500", None)
        assert "answer" not in dead["last_error"].replace("answered 500", "")
        again = await hooks.caller.http.post(f"{path}/{dead['id']}/redeliver")
        assert (again.status_code, again.json()["is_dead"]) == (202, False)
        receiver.status = 200
        await hooks.run()
        (taken,) = (await hooks.caller.http.get(path)).json()["items"]
        assert taken["delivered_at"]

    async def test_another_projects_webhook_does_not_exist(self, hooks, platform):
        webhook_id, _ = await hooks.make()
        eve = await platform.caller("model-registry")
        assert (await eve.http.delete(f"{HOOKS}/{webhook_id}")).status_code == 404
        assert (await eve.http.post(f"{HOOKS}/{webhook_id}/test")).status_code == 404
        assert (await eve.http.get(f"{HOOKS}/{webhook_id}/deliveries")).status_code == 404

    async def test_a_test_says_what_came_of_it_and_a_deleted_one_is_sent_nothing(self, hooks, receiver):
        webhook_id, _ = await hooks.make()
        tested = (await hooks.caller.http.post(f"{HOOKS}/{webhook_id}/test")).json()
        assert tested["is_delivered"] is False  # the app's own settings allow no internal host
        await hooks.emit("toy.made")
        assert (await hooks.caller.http.delete(f"{HOOKS}/{webhook_id}")).status_code == 200
        await hooks.run()
        assert receiver.got == []

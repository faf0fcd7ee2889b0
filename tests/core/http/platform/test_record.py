"""The event feed over a real server: nothing is missed or repeated, and it ends when it must."""

import asyncio
import contextlib
import json

import httpx2
import pytest
import uvicorn

from mlops_platform.core.auth.authenticator import Presented
from mlops_platform.core.auth.directory import Directory
from mlops_platform.core.events import outbox
from mlops_platform.core.events.outbox import Event, append, new_event_id, place
from mlops_platform.core.http.platform import record
from mlops_platform.core.identity import Role
from tests.factories.waiting import until

FEED = "/api/platform/events"


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


@pytest.fixture(scope="module")
async def address(toys):
    server = Server(uvicorn.Config(toys, host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    await task


class Feed:
    """One reader of the feed."""

    def __init__(self, address, key):
        self.client = httpx2.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=10)
        self.seen: list[tuple[int, dict]] = []
        self.comments: list[str] = []
        self.status = 0

    async def run(self, query="", **headers):
        async with self.client.stream("GET", FEED + query, headers=headers) as response:
            self.status = response.status_code
            position = 0
            async for line in response.aiter_lines():
                if line.startswith(":"):
                    self.comments.append(line)
                elif line.startswith("id: "):
                    position = int(line[4:])
                elif line.startswith("data: "):
                    self.seen.append((position, json.loads(line[6:])))

    @contextlib.asynccontextmanager
    async def following(self, query="", **headers):
        task = asyncio.create_task(self.run(query, **headers))
        await until(lambda: self.comments or task.done())
        yield self
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.client.aclose()

    async def has(self, wanted):
        await until(lambda: len(self.seen) >= wanted)

    def numbers(self):
        return [event["data"]["n"] for _, event in self.seen]


@pytest.fixture
def emit(runtime):
    async def it(project, *numbers, kind="toy.made"):
        async with runtime.database.write() as session:
            await append(
                session, [Event(new_event_id(), kind, "s", project, {"n": n}, runtime.clock.now()) for n in numbers]
            )
        async with runtime.database.write() as session:
            while await place(session):
                pass
        runtime.signals.send("placed")

    return it


class TestFollowing:
    async def test_it_begins_now_and_brings_what_comes_as_cloud_events(self, ada, address, emit):
        await emit(ada.project, 1)
        async with Feed(address, ada.key).following() as feed:
            await emit(ada.project, 2, 3)
            await until(lambda: len(feed.seen) == 2)
        assert feed.numbers() == [2, 3]
        assert feed.seen[0][1]["specversion"] == "1.0"

    async def test_who_comes_back_with_the_last_id_misses_and_repeats_nothing(self, ada, address, emit):
        got: list[int] = []
        last: dict[str, str] = {}
        for turn in range(4):
            async with Feed(address, ada.key).following("" if last else "?since=0", **last) as feed:
                await emit(ada.project, *range(turn * 10, turn * 10 + 5))
                await feed.has(10 if last else 5)
            await emit(ada.project, *range(turn * 10 + 5, turn * 10 + 10))  # while nobody listens
            got += feed.numbers()
            last = {"Last-Event-ID": str(feed.seen[-1][0])}
        assert got == list(range(35))

    async def test_events_of_other_projects_and_types_do_not_come(self, ada, play, address, emit):
        eve = await play.caller()
        async with Feed(address, ada.key).following("?types=toy.*,box.opened") as feed:
            await emit(eve.project, 1)
            await emit(ada.project, 2, kind="model.made")
            await emit(ada.project, 3, kind="box.opened")
            await emit(ada.project, 4)
            await until(lambda: len(feed.seen) >= 2)
        assert feed.numbers() == [3, 4]

    async def test_silence_is_filled_so_that_proxies_keep_the_connection(self, ada, address, monkeypatch):
        monkeypatch.setattr(record, "_KEEP_ALIVE_SECONDS", 0.1)
        async with Feed(address, ada.key).following() as feed:
            await until(lambda: ": still here" in feed.comments)


class TestEnding:
    async def test_it_ends_with_its_credential(self, ada, address, runtime):
        feed = Feed(address, ada.key)
        task = asyncio.create_task(feed.run())
        await until(lambda: feed.comments)
        principal = await runtime.authenticator.authenticate(Presented(ada.key, None))
        async with runtime.database.write() as session:
            await Directory(session, runtime.auth_keys, runtime.clock.now()).revoke(principal.credential_id)
        await asyncio.wait_for(task, 5)
        await feed.client.aclose()

    async def test_a_reader_who_hangs_up_leaves_nothing_behind(self, ada, address, toys):
        before = toys.edge._in_flight
        async with Feed(address, ada.key).following():
            assert toys.edge._in_flight == before + 1
        await until(lambda: toys.edge._in_flight == before)


class TestRefusals:
    @pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 19, "9" * 40, "\xb2"])
    async def test_an_id_that_is_none_is_named(self, ada, last):
        response = await ada.http.get(FEED, headers={"Last-Event-ID": last.encode("latin-1")})
        assert response.status_code == 422
        assert "Last-Event-ID" in response.text

    @pytest.mark.parametrize("since", ["-1", "x", str(2**63), "9" * 50])
    async def test_a_position_that_is_none_is_named(self, ada, since):
        assert (await ada.http.get(f"{FEED}?since={since}")).status_code == 422

    async def test_what_it_passes_over_is_not_read_again_and_again(self, ada, address, emit, runtime, monkeypatch):
        asked = []
        read_after = outbox.read_after

        async def noting(session, position, **wanted):
            asked.append(position)
            return await read_after(session, position, **wanted)

        monkeypatch.setattr(outbox, "read_after", noting)
        async with Feed(address, ada.key).following("?types=box.opened&since=0"):
            await emit(ada.project, *range(5))
            async with runtime.database.read() as session:
                newest = await outbox.last_position(session)
            await until(lambda: asked and asked[-1] >= newest)

    async def test_who_may_see_some_names_does_not_see_the_events_of_all(self, ada, play):
        bob = await play.caller(Role.ADMIN, project=ada.project, pattern="fraud-*")
        assert (await bob.http.get(FEED)).status_code == 403


class TestAudit:
    async def test_entries_are_listed_newest_first_and_filtered(self, ada):
        for name in ("bear", "doll", "car"):
            await ada.http.post("/api/toys", json={"name": name})
        listed = (await ada.http.get("/api/platform/audit?page_size=2")).json()
        assert [item["resource"] for item in listed["items"]] == ["toy:car", "toy:doll"]
        rest = (await ada.http.get(f"/api/platform/audit?page_token={listed['next_page_token']}")).json()
        assert [item["resource"] for item in rest["items"]] == ["toy:bear"]
        one = (await ada.http.get("/api/platform/audit?resource=toy:doll&action=toy.made")).json()
        assert [item["resource"] for item in one["items"]] == ["toy:doll"]

    async def test_other_projects_entries_are_not_listed(self, ada, play):
        await ada.http.post("/api/toys", json={"name": "bear"})
        eve = await play.caller()
        assert (await eve.http.get("/api/platform/audit")).json()["items"] == []

    async def test_an_admin_who_lists_keys_is_recorded(self, ada):
        await ada.http.get("/api/platform/keys")
        actions = [item["action"] for item in (await ada.http.get("/api/platform/audit")).json()["items"]]
        assert actions == ["key.listed"]

    @pytest.mark.parametrize("anchor", ["x", "1", "1:zz", ":"])
    async def test_a_malformed_anchor_is_named(self, ada, anchor):
        response = await ada.http.get(f"/api/platform/audit/verify?anchor={anchor}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "anchor"

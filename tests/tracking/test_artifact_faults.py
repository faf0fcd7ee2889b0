"""Uploads and downloads when something is wrong: the line, the promise, the disk, the object store."""

import asyncio
import hashlib
import os
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import boto3
import pytest
from pydantic import SecretStr

from mlops_platform.core.errors import StorageFull
from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.local_files import LocalFiles
from mlops_platform.server.catalog import BY_NAME
from mlops_platform.server.runtime import open_runtime
from tests.conftest import Caller, Platform
from tests.core.storage.conftest import CREDENTIALS, running_s3
from tests.factories.serving import serving
from tests.factories.tracking import a_run

SERVICE = "experiment-tracking"
MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB + 777)
FIRST = b"what was there before"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
async def run(ada) -> str:
    return await a_run(ada)


@pytest.fixture
async def address(apps):
    async with serving({SERVICE: apps[SERVICE]}) as urls:
        yield urls["tracking"]


def url(run_id, path="a.bin"):
    return f"/api/runs/{run_id}/artifacts/{path}"


async def begin(caller, run_id, content=CONTENT, path="parts.bin"):
    body = {"path": path, "sha256": digest(content), "size": len(content), "part_bytes": MIB}
    response = await caller.http.post(f"/api/runs/{run_id}/artifact-uploads", json=body)
    assert response.status_code in {200, 201}, response.text
    return f"/api/runs/{run_id}/artifact-uploads/{response.json()['id']}"


async def send(caller, upload, number, content=CONTENT):
    part = content[(number - 1) * MIB : number * MIB]
    return await caller.http.put(f"{upload}/parts/{number}", content=part, headers={"X-Checksum-SHA256": digest(part)})


async def by_hand(address, key, path, *pieces, headers=(), ends=False):
    """A request written byte by byte, after which the line is cut, or its answer when `ends`."""
    place = urlsplit(address)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        head = [f"PUT {path} HTTP/1.1", f"Host: {place.netloc}", f"Authorization: Bearer {key}", *headers, "", ""]
        writer.write("\r\n".join(head).encode())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return (await asyncio.wait_for(reader.read(65536), 20)).decode() if ends else None
    finally:
        writer.transport.abort()


async def eventually(check, what):
    for _ in range(200):
        if check():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what)


def unfinished(platform):
    return list((platform.runtime.settings.home / "blobs" / "incoming").iterdir())


class TestCut:
    async def test_an_upload_that_is_cut_at_any_megabyte_shows_and_leaves_nothing(self, platform, ada, run, address):
        await ada.http.put(url(run), content=FIRST)
        for megabytes in range(4):
            sent = CONTENT[: megabytes * MIB + 100]
            await by_hand(address, ada.key, url(run), sent, headers=[f"Content-Length: {len(CONTENT)}"])
            await eventually(lambda: not unfinished(platform), "the temporary bytes are gone")
            assert (await ada.http.get(url(run))).content == FIRST
        assert (await ada.http.put(url(run), content=CONTENT)).status_code == 200
        assert (await ada.http.get(url(run))).content == CONTENT

    async def test_a_part_that_is_cut_is_not_there_and_the_others_are(self, platform, ada, run, address):
        content = os.urandom(8 * MIB)
        body = {"path": "p", "sha256": digest(content), "size": len(content), "part_bytes": 4 * MIB}
        begun = (await ada.http.post(f"/api/runs/{run}/artifact-uploads", json=body)).json()
        upload = f"/api/runs/{run}/artifact-uploads/{begun['id']}"
        second = content[4 * MIB :]
        headers = {"X-Checksum-SHA256": digest(second)}
        assert (await ada.http.put(f"{upload}/parts/2", content=second, headers=headers)).status_code == 200
        said = [f"Content-Length: {4 * MIB}", f"X-Checksum-SHA256: {digest(content[: 4 * MIB])}"]
        for megabytes in range(4):
            await by_hand(address, ada.key, f"{upload}/parts/1", content[: megabytes * MIB + 5], headers=said)
            await eventually(lambda: not unfinished(platform), "the temporary bytes are gone")
            received = (await ada.http.get(upload)).json()["received"]
            assert [part["number"] for part in received] == [2]
        first = content[: 4 * MIB]
        await ada.http.put(f"{upload}/parts/1", content=first, headers={"X-Checksum-SHA256": digest(first)})
        assert (await ada.http.post(f"{upload}/finish")).status_code == 200
        assert (await ada.http.get(url(run, "p"))).content == content


class TestPromises:
    async def test_a_body_that_is_longer_than_it_said_does_not_get_in(self, ada, run, address):
        said = ["Content-Length: 5", f"X-Checksum-SHA256: {digest(b'0123456789')}"]
        answer = await by_hand(address, ada.key, url(run), b"0123456789", headers=said, ends=True)
        assert answer.split()[1] in {"400", "422"}
        assert (await ada.http.get(url(run))).status_code == 404

    async def test_a_body_that_is_shorter_than_it_said_is_nothing(self, platform, ada, run, address):
        await by_hand(address, ada.key, url(run), b"01234", headers=["Content-Length: 10"])
        await eventually(lambda: not unfinished(platform), "the temporary bytes are gone")
        assert (await ada.http.get(url(run))).status_code == 404

    async def test_two_ways_to_say_the_length_are_refused_or_read_as_chunks(self, ada, run, address):
        said = ["Content-Length: 3", "Transfer-Encoding: chunked"]
        answer = await by_hand(address, ada.key, url(run), b"5\r\n01234\r\n0\r\n\r\n", headers=said, ends=True)
        stored = await ada.http.get(url(run))
        assert " 400 " in answer.splitlines()[0] or stored.content == b"01234"

    async def test_what_says_that_it_is_too_large_is_refused_before_it_comes(self, platform, ada, run, address):
        most = platform.runtime.settings.max_upload_bytes
        answer = await by_hand(address, ada.key, url(run), headers=[f"Content-Length: {most + 1}"], ends=True)
        assert " 413 " in answer.splitlines()[0]

    @pytest.mark.parametrize("name", ["X-Checksum-SHA256", "Content-Digest"])
    async def test_other_content_than_was_promised_is_refused_on_both_wires(self, ada, run, name):
        value = "1" * 64 if name.startswith("X") else "sha-256=:" + "A" * 43 + "=:"
        number = (await ada.http.get(f"/api/runs/{run}")).json()["experiment_id"]
        number = (await ada.http.get(f"/api/experiments/{number}")).json()["number"]
        proxied = f"/api/2.0/mlflow-artifacts/artifacts/{number}/{run}/artifacts/a.bin"
        refused = await ada.http.put(url(run), content=b"x", headers={name: value})
        assert (refused.status_code, refused.json()["code"]) == (422, "checksum_mismatch")
        assert (await ada.http.put(proxied, content=b"x", headers={name: value})).status_code in {400, 422}
        assert (await ada.http.get(url(run))).status_code == 404


class TestFullDisk:
    @pytest.fixture
    def full(self, monkeypatch):
        """The real store of files, on a disk that has this much room."""
        state = {"room": 1 << 60}
        real = LocalFiles.upload

        def upload(self, key, *, largest):
            made = real(self, key, largest=largest)
            write = made.write

            async def measured(pieces):
                state["room"] -= sum(map(len, pieces))
                if state["room"] < 0:
                    raise StorageFull("The object store has no space left.")
                await write(pieces)

            made.write = measured  # type: ignore[method-assign]
            return made

        monkeypatch.setattr(LocalFiles, "upload", upload)
        return state

    async def test_an_upload_that_finds_no_room_is_refused_as_a_whole_and_works_when_there_is(
        self, platform, ada, run, full
    ):
        await ada.http.put(url(run), content=FIRST)
        full["room"] = MIB
        refused = await ada.http.put(url(run), content=CONTENT)
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert refused.headers["content-type"] == "application/problem+json"
        assert unfinished(platform) == []
        assert (await ada.http.get(url(run))).content == FIRST
        assert (await ada.http.post(f"/api/runs/{run}/metrics", json={"loss": 1.0})).status_code == 200
        full["room"] = 1 << 60
        assert (await ada.http.put(url(run), content=CONTENT)).status_code == 200

    async def test_parts_outlive_a_finish_that_finds_no_room(self, platform, ada, run, full):
        upload = await begin(ada, run)
        for number in range(1, 5):
            assert (await send(ada, upload, number)).status_code == 200
        full["room"] = MIB
        refused = await ada.http.post(f"{upload}/finish")
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert unfinished(platform) == []
        assert (await ada.http.get(url(run, "parts.bin"))).status_code == 404
        full["room"] = 1 << 60
        assert (await ada.http.post(f"{upload}/finish")).status_code == 200
        assert (await ada.http.get(url(run, "parts.bin"))).content == CONTENT


class Gate:
    """A line to the object store that can be cut, and mended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self.is_cut = False
        self.cut_after: int | None = None

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self.cut()
            server.close()

    def cut(self):
        self.is_cut = True
        for writer in self._open:
            writer.transport.abort()

    def mend(self):
        self.is_cut, self.cut_after = False, None

    async def _serve(self, reader, writer):
        if self.is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back, counts=True), self._pass(there, writer, counts=False))
        except (ConnectionError, OSError):
            pass
        finally:
            self._open -= {writer, back}
            for each in (writer, back):
                each.transport.abort()

    async def _pass(self, reader, writer, *, counts):
        while data := await reader.read(65536):
            if counts and self.cut_after is not None:
                self.cut_after -= len(data)
                if self.cut_after < 0:
                    self.cut()
                    raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        writer.close()


class TestObjectStoreAway:
    @pytest.fixture
    async def away(self, settings, database):
        """Experiment Tracking over S3, the gate between them, and S3 itself."""
        with running_s3() as (_, endpoint):
            gate, bucket = Gate(urlsplit(endpoint).port), f"bucket-{new_id()}"
            s3 = boto3.client("s3", endpoint_url=endpoint, **CREDENTIALS)
            s3.create_bucket(Bucket=bucket)
            async with AsyncExitStack() as stack:
                changes = {
                    "storage_url": f"s3://{bucket}",
                    "storage_s3_endpoint": await stack.enter_async_context(gate.listening()),
                    "storage_s3_access_key_id": CREDENTIALS["aws_access_key_id"],
                    "minio_root_password": SecretStr(CREDENTIALS["aws_secret_access_key"]),
                }
                runtime = await stack.enter_async_context(
                    open_runtime(settings.model_copy(update=changes), database.app_dsn)
                )
                app = ServiceApp(BY_NAME[SERVICE].service, runtime)
                await stack.enter_async_context(app.running())
                caller = await Platform(runtime, {SERVICE: app}, stack).caller(SERVICE)
                yield caller, gate, lambda: s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
            s3.close()

    async def test_a_store_that_goes_away_in_the_middle_is_503_and_all_goes_on_when_it_is_back(self, away):
        ada, gate, _ = away
        run = await a_run(ada)
        upload = await begin(ada, run)
        for number in (1, 2):
            assert (await send(ada, upload, number)).status_code == 200
        gate.cut_after = MIB // 2
        refused = await send(ada, upload, 3)
        assert (refused.status_code, refused.json()["code"]) == (503, "dependency_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert (await ada.http.put(url(run), content=CONTENT)).status_code == 503
        assert (await ada.http.post(f"/api/runs/{run}/metrics", json={"loss": 1.0})).status_code == 200
        assert [part["number"] for part in (await ada.http.get(upload)).json()["received"]] == [1, 2]
        gate.mend()
        for number in (3, 4):
            assert (await send(ada, upload, number)).status_code == 200
        gate.cut_after = MIB
        assert (await ada.http.post(f"{upload}/finish")).status_code == 503
        assert (await ada.http.get(url(run, "parts.bin"))).status_code == 404
        gate.mend()
        assert (await ada.http.post(f"{upload}/finish")).status_code == 200
        assert (await ada.http.get(url(run, "parts.bin"))).content == CONTENT

    async def test_a_large_upload_that_was_cut_leaves_no_parts_in_the_store_once_it_is_back(self, away):
        ada, gate, unfinished_in_s3 = away
        run = await a_run(ada)
        large = os.urandom(20 * MIB)

        async def slow():
            yield large[: 12 * MIB]
            gate.cut_after = 0
            yield large[12 * MIB :]

        assert (await ada.http.put(url(run), content=slow())).status_code == 503
        gate.mend()
        assert (await ada.http.get(url(run))).status_code == 404
        assert (await ada.http.put(url(run), content=large)).status_code == 200
        assert (await ada.http.get(url(run))).content == large
        assert len(unfinished_in_s3()) <= 1  # what could not be aborted while it was away is for the bucket's own rule


SEGMENT = 65536
RANGED = bytes(range(256)) * 600  # three segments, the last one short


class TestRanges:
    @pytest.fixture(params=[True, False], ids=["encrypted", "plain"])
    async def stored(self, request, platform, ada, run, monkeypatch):
        monkeypatch.setattr(platform.runtime.blobs.store, "_encrypt", request.param)
        assert (await ada.http.put(url(run), content=RANGED)).status_code == 200
        assert (await ada.http.put(url(run, "empty"), content=b"")).status_code == 200
        return run

    @pytest.mark.parametrize(
        ("asked", "start", "end"),
        [
            ("bytes=0-0", 0, 1), ("bytes=0-", 0, None), ("bytes=-1", -1, None), ("bytes=-999999999", 0, None),
            (f"bytes={SEGMENT - 1}-{SEGMENT}", SEGMENT - 1, SEGMENT + 1),
            (f"bytes={SEGMENT}-{SEGMENT}", SEGMENT, SEGMENT + 1),
            (f"bytes={2 * SEGMENT}-", 2 * SEGMENT, None), ("bytes=5-99999999999999999999", 5, None),
            (f"bytes={len(RANGED) - 1}-{len(RANGED) + 5}", -1, None), ("BYTES=1-2", 1, 3),
        ],
    )  # fmt: skip
    async def test_one_range_is_answered_exactly(self, ada, stored, asked, start, end):
        response = await ada.http.get(url(stored), headers={"Range": asked})
        assert response.status_code == 206
        assert response.content == RANGED[start:end]
        first = start % len(RANGED)
        assert response.headers["content-range"] == f"bytes {first}-{first + len(response.content) - 1}/{len(RANGED)}"
        assert int(response.headers["content-length"]) == len(response.content)
        assert "content-digest" not in response.headers

    @pytest.mark.parametrize("asked", [f"bytes={len(RANGED)}-", "bytes=-0", "bytes=99999999999999999999-"])
    async def test_a_range_without_a_byte_is_416_and_says_the_size(self, ada, stored, asked):
        response = await ada.http.get(url(stored), headers={"Range": asked})
        assert (response.status_code, response.headers["content-range"]) == (416, f"bytes */{len(RANGED)}")
        empty = await ada.http.get(url(stored, "empty"), headers={"Range": "bytes=0-"})
        assert (empty.status_code, empty.headers["content-range"]) == (416, "bytes */0")

    @pytest.mark.parametrize(
        "asked",
        ["bytes=0-1,5-6", "bytes=0-1, -1", "bytes=5-2", "bytes=", "bytes=a-b", "items=0-1", "bytes=-", "bytes=0-1;"],
    )
    async def test_several_ranges_and_what_is_none_are_answered_with_the_whole(self, ada, stored, asked):
        response = await ada.http.get(url(stored), headers={"Range": asked})
        assert (response.status_code, response.content) == (200, RANGED)

    async def test_conditions_go_before_ranges(self, ada, stored):
        etag = (await ada.http.get(url(stored))).headers["etag"]
        for given, status in (
            ({"If-Range": etag}, 206), ({"If-Range": '"other"'}, 200), ({"If-Range": f"W/{etag}"}, 200),
            ({"If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200), ({"If-None-Match": etag}, 304),
            ({"If-None-Match": f'"x", W/{etag}'}, 304), ({"If-None-Match": "*"}, 304), ({"If-None-Match": '"x"'}, 206),
        ):  # fmt: skip
            response = await ada.http.get(url(stored), headers={"Range": "bytes=1-3", **given})
            assert response.status_code == status, given
            assert response.content == {206: RANGED[1:4], 200: RANGED, 304: b""}[status]

import asyncio
import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, insert, select, update

from mlops_platform.core.identity import Role
from mlops_platform.core.storage.tables import blob_references, blobs, uploads
from mlops_platform.tracking.service.uploads import forget_old
from mlops_platform.tracking.tables import uploads as of_before
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"
MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB + 12345)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def base(run_id):
    return f"/api/runs/{run_id}/artifact-uploads"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
async def run(ada) -> str:
    return await a_run(ada)


async def begin(caller, run_id, content=CONTENT, path="model/weights.bin", status=201, **fields):
    body = {"path": path, "sha256": digest(content), "size": len(content), "part_bytes": MIB, **fields}
    response = await caller.http.post(base(run_id), json=body)
    assert response.status_code == status, response.text
    return response.json()


async def send(caller, run_id, upload, number, content=CONTENT, sha256=None):
    part = content[(number - 1) * upload["part_bytes"] : number * upload["part_bytes"]]
    headers = {"X-Checksum-SHA256": sha256 or digest(part)}
    return await caller.http.put(f"{base(run_id)}/{upload['id']}/parts/{number}", content=part, headers=headers)


async def finish(caller, run_id, upload):
    return await caller.http.post(f"{base(run_id)}/{upload['id']}/finish")


async def download(caller, run_id, path="model/weights.bin"):
    return await caller.http.get(f"/api/runs/{run_id}/artifacts/{path}")


async def limited_to(platform, ada, pattern, role=Role.CONTRIBUTOR):
    """Somebody of the same project who may touch only the experiments of these names."""
    return await platform.caller(SERVICE, role, project=ada.project, pattern=pattern)


class TestParts:
    async def test_parts_in_any_order_and_at_once_become_the_content(self, ada, run):
        upload = await begin(ada, run)
        assert (upload["parts"], upload["received"], upload["is_known"]) == (4, [], False)
        answers = await asyncio.gather(*(send(ada, run, upload, number) for number in (3, 1, 4, 2)))
        assert {answer.status_code for answer in answers} == {200}
        assert (await download(ada, run)).status_code == 404
        done = await finish(ada, run, upload)
        assert done.status_code == 200, done.text
        assert (done.json()["sha256"], done.json()["size"]) == (digest(CONTENT), len(CONTENT))
        assert (await download(ada, run)).content == CONTENT

    async def test_an_upload_is_found_again_by_its_content_with_what_is_there(self, ada, run):
        upload = await begin(ada, run)
        for number in (1, 4):
            await send(ada, run, upload, number)
        again = await begin(ada, run, status=200)
        assert again["id"] == upload["id"]
        assert [(part["number"], part["size"]) for part in again["received"]] == [(1, MIB), (4, 12345)]
        assert again["received"][0]["sha256"] == digest(CONTENT[:MIB])

    async def test_parts_count_for_another_run_too_since_a_training_begins_again_with_one(self, ada, run):
        upload = await begin(ada, run)
        await send(ada, run, upload, 2)
        other = await a_run(ada, await an_experiment(ada, "other"))
        begun = await begin(ada, other)
        assert begun["id"] != upload["id"]
        assert [part["number"] for part in begun["received"]] == [2]
        await ada.http.delete(f"{base(run)}/{upload['id']}")
        for number in (1, 3, 4):
            await send(ada, other, begun, number)
        assert (await finish(ada, other, begun)).status_code == 200
        assert (await download(ada, other)).content == CONTENT

    async def test_a_part_may_be_sent_again(self, ada, run):
        upload = await begin(ada, run)
        for number in (1, 1, 2, 3, 4, 2):
            assert (await send(ada, run, upload, number)).status_code == 200
        assert (await finish(ada, run, upload)).status_code == 200
        assert (await download(ada, run)).content == CONTENT

    async def test_a_damaged_part_is_refused_and_is_not_there(self, ada, run):
        upload = await begin(ada, run)
        refused = await send(ada, run, upload, 1, sha256="0" * 64)
        assert (refused.status_code, refused.json()["code"]) == (422, "checksum_mismatch")
        no_digest = await ada.http.put(f"{base(run)}/{upload['id']}/parts/1", content=CONTENT[:MIB])
        assert (no_digest.status_code, no_digest.json()["code"]) == (422, "invalid_input")
        seen = await ada.http.get(f"{base(run)}/{upload['id']}")
        assert seen.json()["received"] == []

    @pytest.mark.parametrize("length", [0, 1, MIB - 1, MIB + 1, 2 * MIB])
    async def test_a_part_of_another_length_is_refused(self, ada, run, length):
        upload = await begin(ada, run)
        part = os.urandom(length)
        response = await ada.http.put(
            f"{base(run)}/{upload['id']}/parts/1", content=part, headers={"X-Checksum-SHA256": digest(part)}
        )
        assert response.status_code == 422, response.text
        assert (await ada.http.get(f"{base(run)}/{upload['id']}")).json()["received"] == []

    async def test_a_part_that_there_is_not_is_refused(self, ada, run):
        upload = await begin(ada, run)
        assert (await send(ada, run, {**upload, "part_bytes": 0}, 5)).status_code == 422

    async def test_what_is_missing_is_named(self, ada, run):
        upload = await begin(ada, run)
        await send(ada, run, upload, 2)
        response = await finish(ada, run, upload)
        assert (response.status_code, response.json()["code"]) == (409, "upload_incomplete")
        assert "3 are missing: 1, 3, 4." in response.json()["detail"]
        assert (await download(ada, run)).status_code == 404

    async def test_a_wrong_promise_of_the_whole_ends_the_upload_and_stores_nothing(self, ada, run):
        upload = await begin(ada, run, sha256="1" * 64)
        for number in range(1, 5):
            await send(ada, run, upload, number)
        response = await finish(ada, run, upload)
        assert (response.status_code, response.json()["code"]) == (422, "checksum_mismatch")
        assert (await download(ada, run)).status_code == 404
        assert (await finish(ada, run, upload)).status_code == 404

    async def test_finishing_again_is_the_same_answer_for_who_lost_the_first(self, ada, run):
        upload = await begin(ada, run)
        await asyncio.gather(*(send(ada, run, upload, number) for number in range(1, 5)))
        answers = await asyncio.gather(finish(ada, run, upload), finish(ada, run, upload))
        assert [answer.status_code for answer in answers] == [200, 200]
        key = {"Idempotency-Key": "once"}
        for _ in range(2):
            third = await ada.http.post(f"{base(run)}/{upload['id']}/finish", headers=key)
            assert third.status_code == 200, third.text
            assert third.json()["sha256"] == digest(CONTENT)
        late = await send(ada, run, upload, 1)
        assert (late.status_code, late.json()["code"]) == (409, "upload_finished")

    @pytest.mark.parametrize("content", [b"", b"x", CONTENT[:MIB]])
    async def test_small_content_has_one_part(self, ada, run, content):
        upload = await begin(ada, run, content)
        assert upload["parts"] == 1
        assert (await send(ada, run, upload, 1, content)).status_code == 200
        assert (await finish(ada, run, upload)).status_code == 200
        assert (await download(ada, run)).content == content

    async def test_the_content_type_is_kept(self, ada, run):
        upload = await begin(ada, run, b"a,b", content_type="text/csv")
        await send(ada, run, upload, 1, b"a,b")
        assert (await finish(ada, run, upload)).json()["content_type"] == "text/csv"

    async def test_parts_grow_with_the_content_and_what_is_too_large_is_refused(self, ada, run, platform):
        most = platform.runtime.settings.max_upload_bytes
        large = await begin(ada, run, size=most, part_bytes=None)
        assert large["parts"] <= 10_000
        assert large["parts"] * large["part_bytes"] >= most
        body = {"path": "x", "sha256": "0" * 64, "size": most + 1}
        assert (await ada.http.post(base(run), json=body)).status_code == 413
        body |= {"size": most, "part_bytes": MIB}
        assert (await ada.http.post(base(run), json=body)).status_code == 422

    async def test_an_upload_that_is_given_up_is_gone_with_its_parts(self, platform, ada, run):
        upload = await begin(ada, run)
        await send(ada, run, upload, 1)
        assert await held(platform, upload) == 1
        assert (await ada.http.delete(f"{base(run)}/{upload['id']}")).status_code == 204
        assert await held(platform, upload) == 0
        assert (await send(ada, run, upload, 1)).status_code == 404

    @pytest.mark.parametrize("is_gone", [True, False])
    async def test_a_part_that_rots_in_the_store_is_asked_for_again(self, platform, ada, run, is_gone):
        upload = await begin(ada, run)
        for number in range(1, 5):
            await send(ada, run, upload, number)
        rotten = digest(CONTENT[MIB : 2 * MIB])
        async with platform.runtime.database.read() as session:
            mine = select(blobs).where(blobs.c.sha256 == rotten, blobs.c.project_id == ada.project)
            row = await session.first(mine)
        path = platform.runtime.settings.home / f"blobs/projects/{ada.project}/blobs/{row.id[-2:]}/{row.id}"
        if is_gone:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        response = await finish(ada, run, upload)
        assert (response.status_code, response.json()["code"]) == (409, "upload_incomplete")
        assert "1 are missing: 2." in response.json()["detail"]
        assert [part["number"] for part in (await begin(ada, run, status=200))["received"]] == [1, 3, 4]
        await send(ada, run, upload, 2)
        assert (await finish(ada, run, upload)).status_code == 200
        assert (await download(ada, run)).content == CONTENT

    async def test_what_nobody_goes_on_with_is_swept_and_what_goes_on_is_not(self, platform, ada, run):
        upload, other = await begin(ada, run), await begin(ada, run, b"other", path="other")
        await send(ada, run, upload, 1)
        async with platform.runtime.database.write() as session:
            old = datetime.now(UTC) - timedelta(hours=49)
            await session.execute(update(uploads).where(uploads.c.id == upload["id"]).values(touched_at=old))
        await forget_old(platform.runtime)
        assert await held(platform, upload) == 0
        assert (await send(ada, run, upload, 1)).status_code == 404
        assert (await send(ada, run, other, 1, b"other")).status_code == 200

    async def test_what_the_version_before_began_is_swept_here_only_if_it_was_not_taken_over(self, platform, ada, run):
        taken, other = await begin(ada, run), await begin(ada, run, b"other", path="other")
        for upload, content in ((taken, CONTENT), (other, b"other")):
            await send(ada, run, upload, 1, content)
        old = {"project_id": ada.project, "target": "x", "parts": 4, "created_at": datetime.now(UTC) - timedelta(hours=49)}
        async with platform.runtime.database.write() as session:
            await session.execute(insert(of_before).values([{**old, "id": it["id"]} for it in (taken, other)]))
            await session.execute(delete(uploads).where(uploads.c.id == other["id"]))
        await forget_old(platform.runtime)
        assert (await held(platform, taken), await held(platform, other)) == (1, 0)
        assert (await send(ada, run, taken, 2)).status_code == 200
        async with platform.runtime.database.read() as session:
            mine = of_before.c.project_id == ada.project
            assert await session.scalar(select(func.count()).select_from(of_before).where(mine)) == 0


async def held(platform, upload):
    async with platform.runtime.database.read() as session:
        ours = blob_references.c.holder.startswith(f"upload/{upload['id']}/")
        return await session.scalar(select(func.count()).select_from(blob_references).where(ours))


class TestKnownContent:
    async def store(self, caller, run_id, content=CONTENT, path="there"):
        response = await caller.http.put(f"/api/runs/{run_id}/artifacts/{path}", content=content)
        assert response.status_code == 200

    async def test_what_the_caller_may_read_is_stored_again_without_a_byte(self, ada, run):
        await self.store(ada, run)
        upload = await begin(ada, run)
        assert upload["is_known"]
        done = await finish(ada, run, upload)
        assert done.status_code == 200, done.text
        assert (await download(ada, run)).content == CONTENT

    async def test_a_digest_gives_nobody_what_another_project_has(self, platform, ada, run):
        await self.store(ada, run)
        eve = await platform.caller(SERVICE)
        mine = await a_run(eve)
        upload = await begin(eve, mine)
        assert not upload["is_known"]
        assert (await finish(eve, mine, upload)).json()["code"] == "upload_incomplete"

    async def test_a_digest_gives_nobody_what_lies_in_an_experiment_that_they_may_not_read(self, platform, ada, run):
        hidden = await a_run(ada, await an_experiment(ada, "blue/1"))
        await self.store(ada, hidden)
        mine = await a_run(ada, await an_experiment(ada, "red/1"))
        eve = await limited_to(platform, ada, "red/*")
        upload = await begin(eve, mine)
        assert not upload["is_known"]
        assert (await finish(eve, mine, upload)).json()["code"] == "upload_incomplete"
        assert (await download(eve, mine)).status_code == 404
        # The same to somebody who knows the digest of nothing: the two answers cannot be told apart.
        nothing = await begin(eve, mine, path="nothing", sha256="2" * 64)
        assert {key for key in upload if upload[key] != nothing[key]} <= {
            "id",
            "path",
            "sha256",
            "created_at",
            "forgotten_at",
        }

    async def test_content_that_is_damaged_in_the_store_is_sent_anew_and_mended(self, platform, ada, run):
        await self.store(ada, run)
        async with platform.runtime.database.read() as session:
            row = await session.first(
                select(blobs).where(blobs.c.sha256 == digest(CONTENT), blobs.c.project_id == ada.project)
            )
        path = platform.runtime.settings.home / f"blobs/projects/{ada.project}/blobs/{row.id[-2:]}/{row.id}"
        with path.open("r+b") as file:
            file.seek(200_000)
            file.write(b"rot")
        upload = await begin(ada, run)
        assert (await finish(ada, run, upload)).json()["code"] == "upload_incomplete"
        for number in range(1, 5):
            await send(ada, run, upload, number)
        assert (await finish(ada, run, upload)).status_code == 200
        assert (await download(ada, run)).content == CONTENT
        assert (await download(ada, run, "there")).content == CONTENT


class TestStrangers:
    async def test_only_who_began_an_upload_sees_it_and_goes_on_with_it(self, platform, ada, run):
        upload = await begin(ada, run)
        await send(ada, run, upload, 1)
        bob = await platform.caller(SERVICE, project=ada.project)
        eve = await platform.caller(SERVICE)
        for stranger in (bob, eve):
            answers = [
                await stranger.http.get(f"{base(run)}/{upload['id']}"),
                await send(stranger, run, upload, 2),
                await finish(stranger, run, upload),
                await stranger.http.delete(f"{base(run)}/{upload['id']}"),
            ]
            assert [answer.status_code for answer in answers] == [404] * 4
        assert (await begin(bob, run))["received"] == []
        viewer = await platform.caller(SERVICE, Role.VIEWER, project=ada.project)
        assert (await viewer.http.post(base(run), json={})).status_code == 403

    async def test_an_upload_to_one_run_is_not_found_below_another(self, ada, run):
        upload = await begin(ada, run)
        other = await a_run(ada, await an_experiment(ada, "other"))
        assert (await send(ada, other, upload, 1)).status_code == 404

    async def test_a_run_that_was_deleted_meanwhile_takes_nothing(self, ada, run):
        upload = await begin(ada, run)
        await asyncio.gather(*(send(ada, run, upload, number) for number in range(1, 5)))
        await ada.http.delete(f"/api/runs/{run}")
        assert (await send(ada, run, upload, 1)).status_code == 409
        assert (await finish(ada, run, upload)).status_code == 409
        await ada.http.post(f"/api/runs/{run}/restore")
        assert (await finish(ada, run, upload)).status_code == 200

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a\\b", "."])
    async def test_a_path_that_is_no_plain_name_is_refused(self, ada, run, path):
        await begin(ada, run, path=path, status=422)

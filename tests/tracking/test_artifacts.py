import asyncio
import hashlib

import pytest
from sqlalchemy import func, select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.identity import Role
from mlops_platform.tracking.repository.artifacts import ArtifactReader
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
async def run(ada) -> str:
    return await a_run(ada)


def url(run_id, path):
    return f"/api/runs/{run_id}/artifacts/{path}"


async def put(caller, run_id, path, content=b"content", **headers):
    response = await caller.http.put(url(run_id, path), content=content, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def listing(caller, run_id, path=""):
    page = (await caller.http.get(f"/api/runs/{run_id}/artifacts", params={"path": path})).json()
    return [(entry["path"], entry["is_folder"], entry["size"]) for entry in page["items"]]


async def downloads(platform, caller):
    """How many stand in the audit."""
    async with platform.runtime.database.read() as session:
        found = select(func.count()).select_from(audit_entries)
        where = (audit_entries.c.project_id == caller.project, audit_entries.c.action == "run.artifact_downloaded")
        return await session.scalar(found.where(*where))


class TestArtifacts:
    async def test_what_is_stored_comes_back_byte_for_byte(self, ada, run):
        content = bytes(range(256)) * 1000
        stored = await put(ada, run, "model/weights.bin", content, **{"Content-Type": "application/x-thing"})
        assert (stored["size"], stored["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        response = await ada.http.get(url(run, "model/weights.bin"))
        assert response.content == content
        assert response.headers["content-type"] == "application/x-thing"
        assert response.headers["x-checksum-sha256"] == stored["sha256"]
        assert response.headers["content-disposition"].startswith('attachment; filename="weights.bin"')
        assert response.headers["x-content-type-options"] == "nosniff"

    async def test_a_range_gives_those_bytes(self, ada, run):
        content = bytes(range(256)) * 1000
        await put(ada, run, "a", content)
        for wanted, expected in (("bytes=100000-100009", content[100000:100010]), ("bytes=-5", content[-5:])):
            response = await ada.http.get(url(run, "a"), headers={"Range": wanted})
            assert (response.status_code, response.content) == (206, expected)
        response = await ada.http.get(url(run, "a"), headers={"Range": "bytes=999999-"})
        assert response.status_code == 416

    async def test_an_unchanged_file_is_not_sent_again(self, ada, run, platform):
        await put(ada, run, "a")
        tag = (await ada.http.get(url(run, "a"))).headers["etag"]
        for given in (tag, f"W/{tag}", f'"other", {tag}'):
            assert (await ada.http.get(url(run, "a"), headers={"If-None-Match": given})).status_code == 304
        assert await downloads(platform, ada) == 1

    async def test_each_download_is_audited(self, ada, run, platform):
        await put(ada, run, "a")
        for _ in range(2):
            await ada.http.get(url(run, "a"))
        assert await downloads(platform, ada) == 2

    async def test_a_file_that_is_replaced_during_a_read_is_described_as_what_is_sent(self, ada, run, monkeypatch):
        await put(ada, run, "a", b"one")
        read = ArtifactReader.artifact

        async def read_and_replaced(reader, path):
            row = await read(reader, path)
            monkeypatch.undo()
            await put(ada, run, "a", b"the second")
            return row

        monkeypatch.setattr(ArtifactReader, "artifact", read_and_replaced)
        response = await ada.http.get(url(run, "a"))
        assert response.headers["x-checksum-sha256"] == hashlib.sha256(response.content).hexdigest()
        assert response.headers["etag"] == f'"{response.headers["x-checksum-sha256"]}"'

    async def test_a_part_of_another_content_than_the_client_has_is_the_whole(self, ada, run):
        await put(ada, run, "a", b"0123456789")
        response = await ada.http.get(url(run, "a"), headers={"Range": "bytes=5-", "If-Range": '"other"'})
        assert (response.status_code, response.content) == (200, b"0123456789")

    async def test_a_second_upload_replaces_the_first(self, ada, run):
        await put(ada, run, "a", b"one")
        await put(ada, run, "a", b"two")
        assert (await ada.http.get(url(run, "a"))).content == b"two"
        assert await listing(ada, run) == [("a", False, 3)]

    async def test_an_empty_file_is_a_file(self, ada, run):
        await put(ada, run, "empty", b"")
        assert (await ada.http.get(url(run, "empty"))).content == b""

    async def test_a_listing_is_a_tree(self, ada, run):
        for path in ("a.txt", "plots/loss.png", "plots/deep/acc.png", "plots_x", "ünï/ö %"):
            await put(ada, run, path, b"12345")
        assert await listing(ada, run) == [
            ("a.txt", False, 5), ("plots", True, 10), ("plots_x", False, 5), ("ünï", True, 5),
        ]  # fmt: skip
        assert await listing(ada, run, "plots") == [("plots/deep", True, 5), ("plots/loss.png", False, 5)]
        assert await listing(ada, run, "none") == []
        seen, token = [], None
        while True:
            query = {"page_size": 1, **({"page_token": token} if token else {})}
            page = (await ada.http.get(f"/api/runs/{run}/artifacts", params=query)).json()
            seen += [entry["path"] for entry in page["items"]]
            if (token := page["next_page_token"]) is None:
                break
        assert seen == ["a.txt", "plots", "plots_x", "ünï"]

    async def test_a_folder_is_deleted_with_all_below_it(self, ada, run):
        for path in ("d/a", "d/e/b", "dx"):
            await put(ada, run, path)
        assert (await ada.http.delete(url(run, "d"))).status_code == 204
        assert await listing(ada, run) == [("dx", False, 7)]
        for path in ("d", "d/a"):
            response = await ada.http.get(url(run, path))
            assert (response.status_code, response.json()["code"]) == (404, "artifact_not_found")
        assert (await ada.http.delete(url(run, "d"))).status_code == 404

    @pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")])
    async def test_nothing_is_both_file_and_folder(self, ada, run, first, second):
        await put(ada, run, first)
        response = await ada.http.put(url(run, second), content=b"x")
        assert (response.status_code, response.json()["code"]) == (409, "artifact_path_taken")

    async def test_of_two_at_once_only_one_becomes_file_or_folder(self, ada, run):
        answers = await asyncio.gather(*(ada.http.put(url(run, path), content=b"x") for path in ("a", "a/b") * 5))
        assert {answer.status_code for answer in answers} == {200, 409}

    @pytest.mark.parametrize(
        "path",
        [
            "%2e%2e/x", "a/%2e%2e/b", "a/%2e/b", "%2fetc/passwd", "a//b", "a/", "a%5cb", "a%00b", "a%0ab", "x" * 1025,
            "%ed%a0%80", "%c3%28" + "x" * 1024,
        ],
    )  # fmt: skip
    async def test_a_path_that_is_no_plain_name_is_refused(self, ada, run, path):
        for method in ("PUT", "GET", "DELETE"):
            response = await ada.http.request(method, url(run, path))
            assert response.status_code in {404, 422}, (method, response.text)
            assert response.json()["code"] in {"not_found", "invalid_input"}
        assert await listing(ada, run) == []

    async def test_a_deleted_run_takes_no_artifacts_and_still_gives_them(self, ada, run):
        await put(ada, run, "a")
        await ada.http.delete(f"/api/runs/{run}")
        assert (await ada.http.put(url(run, "b"), content=b"x")).status_code == 409
        assert (await ada.http.delete(url(run, "a"))).status_code == 409
        assert (await ada.http.get(url(run, "a"))).content == b"content"

    async def test_another_project_sees_and_touches_nothing(self, ada, run, platform):
        await put(ada, run, "a")
        eve = await platform.caller(SERVICE)
        answers = [
            await eve.http.get(url(run, "a")),
            await eve.http.put(url(run, "a"), content=b"evil"),
            await eve.http.delete(url(run, "a")),
            await eve.http.get(f"/api/runs/{run}/artifacts"),
        ]
        assert [answer.status_code for answer in answers] == [404] * 4
        viewer = await platform.caller(SERVICE, Role.VIEWER, project=ada.project)
        assert (await viewer.http.put(url(run, "a"), content=b"x")).status_code == 403
        assert (await ada.http.get(url(run, "a"))).content == b"content"

    async def test_both_forms_of_the_path_answer(self, ada):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        await put(ada, run_id, "x/y")
        long = f"/api/experiments/{experiment_id}/runs/{run_id}/artifacts/x/y"
        assert (await ada.http.get(long)).content == b"content"
        other = await an_experiment(ada, "other")
        assert (await ada.http.get(long.replace(experiment_id, other))).status_code == 404

    async def test_a_broken_upload_leaves_nothing(self, ada, run):
        async def breaks():
            yield b"x" * 100_000
            raise ConnectionResetError

        response = await ada.http.put(url(run, "a"), content=breaks())
        assert response.status_code >= 400
        assert await listing(ada, run) == []

    async def test_an_encoded_upload_is_refused_since_it_would_be_stored_encoded(self, ada, run):
        response = await ada.http.put(url(run, "a"), content=b"x", headers={"Content-Encoding": "gzip"})
        assert response.status_code == 415

    async def test_content_that_two_runs_share_outlives_one_of_them(self, ada, run):
        second = await a_run(ada, await an_experiment(ada, "two"))
        await put(ada, run, "a", b"shared" * 1000)
        await put(ada, second, "b", b"shared" * 1000)
        await ada.http.delete(url(run, "a"))
        assert (await ada.http.get(url(second, "b"))).content == b"shared" * 1000

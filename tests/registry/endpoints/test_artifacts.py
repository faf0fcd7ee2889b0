import asyncio
import base64
import hashlib
import io
import pickle
import tarfile
import zipfile
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from mlops_platform.core.identity import Role
from mlops_platform.core.storage.tables import blob_references, blobs
from tests.factories.asgi import exchange, raw_request
from tests.factories.registry import FILES, a_file, a_ready_version, a_version

VERSION = "/api/models/fraud/versions/1"
BAD_PATHS = [
    "..", "../x", "a/../x", "..%2f..%2fetc%2fpasswd", "%2e%2e/x", "%2e%2e%2fx", "a/%2e/b", ".", "a/.", "./a", "a//b", "/a",
    "%2fetc/passwd", "//a", "a/", "", "a%5cb", "..%5c..%5cx", "a%00b", "%00", "a%0a", "a%0d", "a%7f", "a%1b",
    "%252e%252e%252fx", "a%2541", "%c0%ae%c0%ae/x", "%ff", "%ed%a0%80", "C:/x", "c:x", "%e2%80%aegpj.exe", "a%e2%80%8b",
    "e%cc%81", "a" * 1025, "a%e2%80%a8b",
]  # fmt: skip
CONTENT = bytes(range(256)) * 1024  # four segments of the blob format


@pytest.fixture
async def pending(ada):
    await a_version(ada, version="1")
    return ada


class TestUpload:
    async def test_what_was_uploaded_comes_back_with_its_checksum(self, pending):
        stored = await a_file(pending, "weights/a.bin", CONTENT, headers={"content-type": "text/html"})
        digest = hashlib.sha256(CONTENT).hexdigest()
        assert (stored["path"], stored["size"], stored["sha256"]) == ("weights/a.bin", len(CONTENT), digest)
        response = await pending.http.get(f"{FILES}/weights/a.bin")
        assert response.content == CONTENT
        assert response.headers["x-checksum-sha256"] == digest
        assert response.headers["content-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"
        assert response.headers["etag"] == f'"{digest}"'

    async def test_a_browser_neither_guesses_nor_runs_what_it_gets(self, pending):
        await a_file(pending, "x/page.html", b"<script>alert(1)</script>", headers={"content-type": "text/html"})
        headers = (await pending.http.get(f"{FILES}/x/page.html")).headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"].startswith('attachment; filename="page.html"')
        assert "sandbox" in headers["content-security-policy"]

    async def test_the_same_path_again_replaces_the_file_while_pending(self, pending):
        await a_file(pending, "a", b"first, and longer")
        response = await pending.http.put(f"{FILES}/a", content=b"second")
        assert response.status_code == 200
        assert (await pending.http.get(f"{FILES}/a")).content == b"second"
        version = (await pending.http.get(VERSION)).json()
        assert (version["file_count"], version["size"]) == (1, 6)

    @pytest.mark.parametrize("header", ["X-Checksum-SHA256", "Content-Digest", "Repr-Digest"])
    async def test_a_kept_promise_is_accepted(self, pending, header):
        digest = hashlib.sha256(b"content").digest()
        coded = f"sha-512=:AAAA:, sha-256=:{base64.b64encode(digest).decode()}:"
        value = digest.hex().upper() if header.startswith("X") else coded
        await a_file(pending, headers={header: value})

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("X-Checksum-SHA256", "0" * 64),
            ("Content-Digest", f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"),
        ],
    )
    async def test_a_broken_promise_keeps_nothing_and_leaves_what_was_there(self, pending, header, value):
        await a_file(pending, "a", b"good")
        response = await pending.http.put(f"{FILES}/a", content=b"damaged", headers={header: value})
        assert response.status_code == 422
        assert response.json()["code"] == "checksum_mismatch"
        assert (await pending.http.get(f"{FILES}/a")).content == b"good"

    @pytest.mark.parametrize(
        ("header", "value", "status"),
        [
            ("X-Checksum-SHA256", "abc", 422), ("X-Checksum-SHA256", "", 422), ("X-Checksum-SHA256", "g" * 64, 422),
            ("Content-Digest", "sha-256=abc", 422), ("Content-Digest", "sha-256=:AAAA:", 422),
            ("Content-Digest", "sha-256=:=:", 422), ("Content-Encoding", "gzip", 415),
            ("Content-Range", "bytes 0-6/7", 400),
        ],
    )  # fmt: skip
    async def test_a_header_that_cannot_be_honoured_is_refused(self, pending, header, value, status):
        response = await pending.http.put(f"{FILES}/a", content=b"content", headers={header: value})
        assert response.status_code == status, response.text
        assert await paths(pending) == []

    async def test_two_digests_that_contradict_each_other_are_refused(self, pending):
        coded = f"sha-256=:{base64.b64encode(hashlib.sha256(b'content').digest()).decode()}:"
        headers = {"Content-Digest": coded, "X-Checksum-SHA256": "0" * 64}
        assert (await pending.http.put(f"{FILES}/a", content=b"content", headers=headers)).status_code == 422

    async def test_a_body_that_is_said_to_be_too_large_is_refused_unread(self, pending):
        request = raw_request(pending, "PUT", f"{FILES}/a", {"content-length": str(2**60)})
        status, _, problem = await exchange(pending, request, body=None)
        assert (status, problem["code"]) == (413, "content_too_large")

    async def test_nothing_is_accepted_for_a_version_that_is_not_there(self, pending):
        response = await pending.http.put("/api/models/fraud/versions/2/artifacts/a", content=b"x")
        assert response.status_code == 404

    async def test_a_viewer_may_not_upload(self, pending, platform):
        viewer = await platform.caller("model-registry", Role.VIEWER, project=pending.project)
        assert (await viewer.http.put(f"{FILES}/a", content=b"x")).status_code == 403

    async def test_another_project_sees_no_file_and_may_not_add_one(self, pending, platform):
        await a_file(pending, "a")
        eve = await platform.caller("model-registry")
        assert (await eve.http.get(f"{FILES}/a")).status_code == 404
        assert (await eve.http.put(f"{FILES}/b", content=b"x")).status_code == 404
        assert (await eve.http.delete(f"{FILES}/a")).status_code == 404
        assert (await eve.http.head(f"{FILES}/a")).status_code == 404
        assert (await eve.http.get(FILES)).status_code == 404

    async def test_a_path_is_a_file_or_a_folder_but_not_both(self, pending):
        await a_file(pending, "a/b")
        await a_file(pending, "a.b")
        for clash in ("a", "a/b/c"):
            response = await pending.http.put(f"{FILES}/{clash}", content=b"x")
            assert (response.status_code, response.json()["code"]) == (409, "artifact_path_taken")
        assert await paths(pending) == ["a.b", "a/b"]

    async def test_a_version_has_room_for_so_many_files(self, pending, monkeypatch):
        monkeypatch.setattr("mlops_platform.registry.service.artifacts.MAX_FILES", 2)
        await a_file(pending, "a")
        await a_file(pending, "b")
        response = await pending.http.put(f"{FILES}/c", content=b"x")
        assert (response.status_code, response.json()["code"]) == (409, "too_many_artifacts")
        assert (await pending.http.put(f"{FILES}/b", content=b"x")).status_code == 200

    async def test_eight_parallel_uploads_all_arrive(self, pending):
        contents = {f"part-{n}": bytes([n]) * (200_000 + n) for n in range(8)}
        await asyncio.gather(*(a_file(pending, path, content) for path, content in contents.items()))
        answers = await asyncio.gather(*(pending.http.get(f"{FILES}/{path}") for path in contents))
        assert [answer.content for answer in answers] == list(contents.values())
        version = (await pending.http.get(VERSION)).json()
        assert (version["file_count"], version["size"]) == (8, sum(map(len, contents.values())))

    async def test_eight_parallel_uploads_of_one_path_leave_one_whole_file(self, pending):
        contents = [bytes([n]) * (100_000 + n) for n in range(8)]
        await asyncio.gather(*(a_file(pending, "same", content) for content in contents))
        kept = (await pending.http.get(f"{FILES}/same")).content
        assert kept in contents
        version = (await pending.http.get(VERSION)).json()
        assert (version["file_count"], version["size"]) == (1, len(kept))

    async def test_no_transaction_is_open_while_bytes_stream(self, pending, runtime):
        more = asyncio.Event()
        in_transaction = []

        async def body():
            yield b"begun"
            async with runtime.database.read() as session:
                found = await session.all(select(blobs.c.state).where(blobs.c.project_id == pending.project))
                in_transaction.append([row.state for row in found])
            # The row of the version can be locked at once: nobody holds it meanwhile.
            changed = await pending.http.patch(VERSION, json={"description": "changed during the upload"})
            assert changed.status_code == 200
            more.set()
            yield b" ended"

        await a_file(pending, "slow", body())
        assert more.is_set()
        assert in_transaction == [["uploading"]]

    async def test_the_same_content_is_stored_once_in_a_project(self, pending, runtime):
        for path in ("a", "b"):
            await a_file(pending, path, b"the same")
        async with runtime.database.read() as session:
            held = await session.all(select(blob_references).where(blob_references.c.project_id == pending.project))
        assert len(held) == 2
        assert len({row.blob_id for row in held}) == 1


class TestReadersSeeWholeFilesOnly:
    async def test_a_file_is_not_there_before_its_last_byte(self, pending):
        async def body():
            yield b"x" * 3_000_000
            assert (await pending.http.get(f"{FILES}/big")).status_code == 404
            assert await paths(pending) == []
            yield b"y"

        await a_file(pending, "big", body())
        assert await paths(pending) == ["big"]

    async def test_the_old_content_stands_until_the_new_one_is_whole(self, pending):
        await a_file(pending, "a", b"old")

        async def body():
            yield b"new" * 500_000
            assert (await pending.http.get(f"{FILES}/a")).content == b"old"

        await a_file(pending, "a", body())
        assert (await pending.http.get(f"{FILES}/a")).content == b"new" * 500_000

    async def test_a_client_that_goes_away_leaves_nothing_visible_and_nothing_for_ever(self, pending, runtime):
        request = raw_request(pending, "PUT", f"{FILES}/cut", {"content-length": "9000000"})
        status, _, _ = await exchange(pending, request, body=[b"z" * 3_000_000], disconnects=True)
        assert status == 400
        await leaves_nothing(pending, runtime)

    async def test_a_cancelled_upload_leaves_nothing_visible_and_nothing_for_ever(self, pending, runtime):
        begun = asyncio.Event()

        async def body():
            yield b"z" * 3_000_000
            begun.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(pending.http.put(f"{FILES}/cut", content=body()))
        await begun.wait()
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)
        await leaves_nothing(pending, runtime)

    async def test_a_refused_checksum_is_swept_from_the_store(self, pending, runtime):
        await pending.http.put(f"{FILES}/a", content=b"damaged", headers={"X-Checksum-SHA256": "0" * 64})
        await leaves_nothing(pending, runtime)

    async def test_no_plain_text_lies_in_the_store(self, pending, runtime):
        canary = b"canary-" + pending.project.encode()
        await a_file(pending, canary.decode(), canary * 5000)
        files = [file for file in (runtime.settings.home / "blobs").rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if canary in file.read_bytes() or canary.decode() in str(file)]


class TestPaths:
    @pytest.mark.parametrize(
        "path", ["a", "a/b/c.bin", "ünïcode/模型.onnx", "with space", "100%.txt", "..a", "a..", "-", "~"]
    )
    async def test_a_good_path_comes_back_as_it_was_given(self, pending, path):
        response = await pending.http.put(f"{FILES}/{quoted(path)}", content=b"x")
        assert response.json()["path"] == path
        assert (await pending.http.get(f"{FILES}/{quoted(path)}")).content == b"x"
        assert await paths(pending) == [path]

    @pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
    async def test_a_bad_path_is_refused_by_name(self, pending, method):
        for raw in BAD_PATHS:
            status, _, problem = await exchange(pending, raw_request(pending, method, f"{FILES}/{raw}"), body=[b"x"])
            assert (status, raw) == (422, raw)
            if method != "HEAD":
                assert problem["errors"][0]["field"] == "path"
        assert await paths(pending) == []

    async def test_a_line_feed_within_a_path_finds_no_route(self, pending):
        status, _, _ = await exchange(pending, raw_request(pending, "PUT", f"{FILES}/a%0ab"), body=[b"x"])
        assert status == 404

    async def test_the_longest_path_fits(self, pending):
        await a_file(pending, "/".join(["a" * 127] * 8))


class TestGet:
    async def test_if_none_match_spares_the_bytes(self, pending):
        digest = (await a_file(pending, "a"))["sha256"]
        for value in (f'"{digest}"', f'"other", W/"{digest}"', "*"):
            response = await pending.http.get(f"{FILES}/a", headers={"If-None-Match": value})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", f'"{digest}"')
        assert (await pending.http.get(f"{FILES}/a", headers={"If-None-Match": '"other"'})).status_code == 200

    async def test_head_says_what_get_says(self, pending):
        await a_file(pending, "a", CONTENT)
        head = await pending.http.head(f"{FILES}/a")
        get = await pending.http.get(f"{FILES}/a")
        assert head.content == b""
        for name in ("content-length", "etag", "x-checksum-sha256", "content-disposition", "accept-ranges", "repr-digest"):
            assert head.headers[name] == get.headers[name]

    async def test_any_range_is_what_python_would_slice(self, pending):
        await a_file(pending, "a", CONTENT)
        size = len(CONTENT)
        edges = st.sampled_from([0, 1, 65535, 65536, 65537, 131072, size - 1, size, size + 1])
        positions = st.one_of(edges, st.integers(0, size + 10))
        cases: list[tuple[int | None, int | None]] = []

        @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.none() | positions, st.none() | positions)
        def collect(first, last):
            cases.append((first, last))

        collect()
        for first, last in dict.fromkeys(cases):
            header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
            response = await pending.http.get(f"{FILES}/a", headers={"Range": header})
            check_range(response, first, last)

    async def test_a_range_is_of_the_content_that_the_client_has_or_of_none(self, pending):
        digest = (await a_file(pending, "a", b"0123456789"))["sha256"]
        headers = {"Range": "bytes=2-4", "If-Range": f'"{digest}"'}
        part = await pending.http.get(f"{FILES}/a", headers=headers)
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
        assert part.headers["x-checksum-sha256"] == digest
        assert "content-digest" not in part.headers
        whole = await pending.http.get(f"{FILES}/a", headers={**headers, "If-Range": '"old"'})
        assert (whole.status_code, whole.content) == (200, b"0123456789")

    async def test_an_empty_file_is_a_file(self, pending):
        await a_file(pending, "empty", b"")
        response = await pending.http.get(f"{FILES}/empty")
        assert (response.status_code, response.content) == (200, b"")
        assert (await pending.http.get(f"{FILES}/empty", headers={"Range": "bytes=0-0"})).status_code == 416

    async def test_a_download_is_on_the_record_and_an_unchanged_one_is_not(self, pending, platform):
        digest = (await a_file(pending, "a"))["sha256"]
        await pending.http.get(f"{FILES}/a", headers={"If-None-Match": f'"{digest}"'})
        await pending.http.head(f"{FILES}/a")
        assert await actions(pending, "model_version.downloaded") == 0
        await pending.http.get(f"{FILES}/a")
        assert await actions(pending, "model_version.downloaded") == 1

    async def test_pages_of_files_meet_each_once(self, pending):
        for n in range(5):
            await a_file(pending, f"f{n}", bytes([n]))
        first = (await pending.http.get(f"{FILES}?page_size=3")).json()
        token = first["next_page_token"]
        rest = (await pending.http.get(f"{FILES}?page_size=3&page_token={token}")).json()
        assert [file["path"] for file in first["items"] + rest["items"]] == [f"f{n}" for n in range(5)]
        assert rest["next_page_token"] is None

    async def test_a_damaged_blob_is_refused_before_a_byte_of_it_leaves(self, pending, runtime):
        await a_file(pending, "a", CONTENT)
        async with runtime.database.read() as session:
            blob = await session.first(select(blobs).where(blobs.c.project_id == pending.project))
        (stored,) = [file for file in (runtime.settings.home / "blobs").rglob("*") if blob.id in file.name]
        data = bytearray(stored.read_bytes())
        data[2000] ^= 1
        stored.chmod(0o600)
        stored.write_bytes(bytes(data))
        response = await pending.http.get(f"{FILES}/a")
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"


class TestDelete:
    async def test_a_file_can_be_taken_out_while_pending(self, pending, runtime):
        await a_file(pending, "a")
        assert (await pending.http.delete(f"{FILES}/a")).status_code == 204
        assert (await pending.http.delete(f"{FILES}/a")).status_code == 404
        version = (await pending.http.get(VERSION)).json()
        assert (version["file_count"], version["size"]) == (0, 0)
        await leaves_nothing(pending, runtime)


class TestFinalize:
    async def test_a_ready_version_tells_its_manifest(self, ada):
        body = await a_ready_version(ada, {"b": b"22", "a/é": b"1"})
        one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"22"))
        canonical = f'[{{"path":"a/é","sha256":"{one}","size":1}},{{"path":"b","sha256":"{two}","size":2}}]'
        assert body["manifest_digest"] == hashlib.sha256(canonical.encode()).hexdigest()
        assert (body["status"], body["file_count"], body["size"]) == ("ready", 2, 3)
        assert body["finalized_at"] is not None

    async def test_again_is_the_same_answer_and_no_second_event(self, ada):
        body = await a_ready_version(ada, {"a": b"1"})
        again = await ada.http.post(f"{VERSION}/finalize")
        assert (again.status_code, again.json()) == (200, body)
        assert await actions(ada, "model_version.finalized") == 1

    async def test_metadata_alone_can_be_ready(self, ada):
        body = await a_ready_version(ada, {})
        assert (body["status"], body["size"]) == ("ready", 0)

    async def test_a_ready_version_takes_and_loses_no_file(self, ada):
        await a_ready_version(ada, {"a": b"1"})
        for response in (
            await ada.http.put(f"{FILES}/a", content=b"2"),
            await ada.http.put(f"{FILES}/b", content=b"2"),
            await ada.http.delete(f"{FILES}/a"),
        ):
            assert (response.status_code, response.json()["code"]) == (409, "model_version_immutable")
        assert (await ada.http.get(f"{FILES}/a")).content == b"1"

    async def test_an_upload_that_is_under_way_does_not_slip_in(self, pending):
        await a_file(pending, "a", b"1")

        async def body():
            yield b"late"
            assert (await pending.http.post(f"{VERSION}/finalize")).status_code == 200

        response = await pending.http.put(f"{FILES}/late", content=body())
        assert response.status_code == 409
        assert await paths(pending) == ["a"]

    async def test_racing_uploads_are_either_in_the_manifest_or_refused(self, pending):
        uploads = [pending.http.put(f"{FILES}/f{n}", content=bytes([n]) * 1000) for n in range(10)]
        finals = [pending.http.post(f"{VERSION}/finalize") for _ in range(3)]
        answers = await asyncio.gather(*uploads[:5], *finals, *uploads[5:])
        accepted = sum(answer.status_code == 201 for answer in answers)
        assert {answer.status_code for answer in answers} <= {200, 201, 409}
        version = (await pending.http.get(VERSION)).json()
        assert version["status"] == "ready"
        assert version["file_count"] == accepted == len(await paths(pending))
        assert len({a.json()["manifest_digest"] for a in answers if a.status_code == 200}) == 1

    async def test_a_manifest_whose_content_is_not_held_is_refused(self, pending, runtime):
        await a_file(pending, "a")
        async with runtime.database.write() as session:
            await session.execute(update(blobs).where(blobs.c.project_id == pending.project).values(size=1))
        response = await pending.http.post(f"{VERSION}/finalize")
        assert (response.status_code, response.json()["code"]) == (409, "manifest_incomplete")
        assert (await pending.http.get(VERSION)).json()["status"] == "pending"

    async def test_formats_are_recorded_per_file_and_version_and_nothing_is_loaded(self, pending):
        bomb = b"cos\nsystem\n(S'touch /tmp/never'\ntR."
        await a_file(pending, "old.pkl", bomb)
        await a_file(pending, "new.txt", pickle.dumps({"a": 1}))
        await a_file(pending, "notes.pkl", b"only text")
        await a_file(pending, "x.cbm", b"CBM1....")
        files = (await pending.http.get(FILES)).json()["items"]
        assert {file["path"]: file["format"] for file in files} == {
            "old.pkl": "pickle", "new.txt": "pickle", "notes.pkl": "other", "x.cbm": "catboost",
        }  # fmt: skip
        body = (await pending.http.post(f"{VERSION}/finalize")).json()
        assert body["formats"] == ["catboost", "pickle"]


class TestDownload:
    async def test_a_pending_version_is_not_handed_out(self, pending):
        await a_file(pending, "a")
        response = await pending.http.get(f"{VERSION}/download")
        assert (response.status_code, response.json()["code"]) == (409, "model_version_pending")

    async def test_metadata_alone_has_nothing_to_download(self, ada):
        await a_ready_version(ada, {})
        response = await ada.http.get(f"{VERSION}/download")
        assert (response.status_code, response.json()["code"]) == (404, "artifact_not_found")

    async def test_one_file_comes_as_itself(self, ada):
        await a_ready_version(ada, {"model/m.bin": CONTENT})
        response = await ada.http.get(f"{VERSION}/download", headers={"Range": "bytes=1-3"})
        assert (response.status_code, response.content) == (206, CONTENT[1:4])
        whole = await ada.http.get(f"{VERSION}/download")
        assert whole.content == CONTENT
        assert 'filename="m.bin"' in whole.headers["content-disposition"]

    async def test_several_files_come_as_a_zip_that_is_the_same_bytes_each_time(self, ada):
        files = {"b.bin": CONTENT * 6, "a/é.txt": b"1", "empty": b""}
        await a_ready_version(ada, files)
        first, second = [await ada.http.get(f"{VERSION}/download") for _ in range(2)]
        assert first.headers["content-type"] == "application/zip"
        assert 'filename="fraud-1.zip"' in first.headers["content-disposition"]
        assert first.content == second.content
        with zipfile.ZipFile(io.BytesIO(first.content)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == sorted(files)
            assert {name: archive.read(name) for name in archive.namelist()} == files

    async def test_a_tar_on_request_also_of_one_file(self, ada):
        await a_ready_version(ada, {"deep/" * 40 + "m.bin": CONTENT})
        response = await ada.http.get(f"{VERSION}/download?format=tar")
        with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
            (member,) = archive.getmembers()
            assert member.name == "deep/" * 40 + "m.bin"
            content = archive.extractfile(member)
            assert content is not None
            assert content.read() == CONTENT

    async def test_an_archive_that_the_client_has_is_not_sent_again(self, ada):
        await a_ready_version(ada, {"a": b"1", "b": b"2"})
        etag = (await ada.http.get(f"{VERSION}/download")).headers["etag"]
        assert (await ada.http.get(f"{VERSION}/download", headers={"If-None-Match": etag})).status_code == 304
        other = await ada.http.get(f"{VERSION}/download?format=tar", headers={"If-None-Match": etag})
        assert other.status_code == 200

    async def test_an_alias_downloads_what_it_points_to(self, ada):
        await a_ready_version(ada, {"a": b"1"})
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        response = await ada.http.get("/api/models/fraud/aliases/champion/download")
        assert response.content == b"1"
        assert response.headers["content-location"] == f"{VERSION}/download"
        assert (await ada.http.get("/api/models/fraud/aliases/nobody/download")).status_code == 404

    async def test_an_unknown_archive_format_is_refused(self, ada):
        response = await ada.http.get(f"{VERSION}/download?format=rar")
        assert response.status_code == 422


def check_range(response, first, last):
    size = len(CONTENT)
    if first is None and last is None:
        expected = None
    elif first is None:
        expected = CONTENT[max(0, size - last) :] if last else b""
    elif last is not None and last < first:
        expected = None
    else:
        expected = CONTENT[first : None if last is None else last + 1]
    if expected is None:
        assert (response.status_code, response.content) == (200, CONTENT)
    elif expected == b"":
        assert response.status_code == 416
        assert response.headers["content-range"] == f"bytes */{size}"
    else:
        assert (response.status_code, response.content) == (206, expected)


async def leaves_nothing(caller, runtime):
    """No file is listed; after the time that the ledger gives, no blob and no bytes are left of this project."""
    assert await paths(caller) == []
    async with runtime.database.write() as session:
        mine = blobs.c.project_id == caller.project
        assert await session.all(select(blob_references).where(blob_references.c.project_id == caller.project)) == []
        await session.execute(update(blobs).where(mine).values(created_at=runtime.clock.now() - timedelta(days=2)))
    await runtime.blobs.sweep()
    async with runtime.database.read() as session:
        assert await session.all(select(blobs).where(blobs.c.project_id == caller.project)) == []
    left = [file for file in (runtime.settings.home / "blobs").rglob("*") if file.is_file()]
    assert not [file for file in left if caller.project in str(file)]


async def paths(caller):
    return [file["path"] for file in (await caller.http.get(FILES)).json()["items"]]


async def actions(caller, action):
    response = await caller.http.get("/api/platform/audit", params={"page_size": 1000})
    assert response.status_code == 200, response.text
    return sum(entry["action"] == action for entry in response.json()["items"])


def quoted(path):
    return path.replace("%", "%25").replace(" ", "%20")

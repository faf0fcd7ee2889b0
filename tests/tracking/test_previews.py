import asyncio
import io
import json
import os

import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import func, select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.http.content import passive
from mlops_platform.tracking.backends.parquet import NotReadable, ParquetHead
from mlops_platform.tracking.domain.previews import HEAD_BYTES, MOST_COLUMNS, MOST_ROWS, TEXT_BYTES
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run
from tests.factories.waiting import until

SERVICE = "experiment-tracking"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
SCRIPT = b"GIF89a/*" + b" " * 100 + b"*/=1;alert(1)"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
async def run(ada) -> str:
    return await a_run(ada)


async def put(caller, run_id, path, content, content_type="application/octet-stream"):
    url = f"/api/runs/{run_id}/artifacts/{path}"
    response = await caller.http.put(url, content=content, headers={"Content-Type": content_type})
    assert response.status_code == 200, response.text


async def look(caller, run_id, path, content, **options):
    await put(caller, run_id, path, content, **options)
    response = await caller.http.get(f"/api/runs/{run_id}/artifact-previews/{path}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def show(caller, run_id, path, content, **options):
    await put(caller, run_id, path, content, **options)
    return await caller.http.get(f"/api/runs/{run_id}/artifact-images/{path}")


def in_parquet(table, **options):
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, **options)
    return buffer.getvalue()


class TestText:
    async def test_text_is_shown_as_it_is(self, ada, run):
        shown = await look(ada, run, "notes.md", "größe\n<script>".encode())
        assert (shown["kind"], shown["text"], shown["is_cut"]) == ("text", "größe\n<script>", False)

    async def test_long_text_is_cut_at_a_whole_character(self, ada, run):
        shown = await look(ada, run, "long.txt", "ä".encode() * HEAD_BYTES)
        assert shown["is_cut"]
        assert shown["text"] == "ä" * TEXT_BYTES

    async def test_json_is_shown_as_json(self, ada, run):
        shown = await look(ada, run, "config.json", b'{"lr": 1e-3}')
        assert (shown["kind"], shown["text"]) == ("json", '{"lr": 1e-3}')

    @pytest.mark.parametrize("content", [b"\x00\x01", b"\xff\xfe\xfa", b"PK\x03\x04\x00", os.urandom(5000)])
    async def test_what_is_no_text_is_not_shown_whatever_it_is_called(self, ada, run, content):
        shown = await look(ada, run, "a.txt", content, content_type="text/plain")
        assert (shown["kind"], shown["text"]) == ("none", None)
        assert shown["reason"]

    async def test_an_empty_file_is_an_empty_text(self, ada, run):
        assert (await look(ada, run, "empty", b""))["text"] == ""

    async def test_looking_is_audited_and_is_no_download(self, platform, ada, run):
        await look(ada, run, "a.txt", b"secret")
        async with platform.runtime.database.read() as session:
            mine = audit_entries.c.project_id == ada.project
            found = await session.all(
                select(audit_entries.c.action, func.count()).where(mine).group_by(audit_entries.c.action)
            )
        assert dict(map(tuple, found))["run.artifact_previewed"] == 1

    async def test_what_is_not_there_is_not_found(self, ada, run):
        for kind in ("previews", "images"):
            response = await ada.http.get(f"/api/runs/{run}/artifact-{kind}/none")
            assert (response.status_code, response.json()["code"]) == (404, "artifact_not_found")


class TestTables:
    async def test_the_first_line_names_the_columns(self, ada, run):
        shown = await look(ada, run, "t.csv", b'a,b\n1,"x, y"\n2,\n')
        assert [column["name"] for column in shown["columns"]] == ["a", "b"]
        assert (shown["kind"], shown["rows"], shown["is_cut"]) == ("table", [["1", "x, y"], ["2", ""]], False)
        tabs = await look(ada, run, "t.tsv", b"a\tb\n1\t2")
        assert tabs["rows"] == [["1", "2"]]

    async def test_a_large_table_shows_its_first_whole_rows(self, ada, run):
        shown = await look(ada, run, "t.csv", b"n\n" + b"".join(b"%d\n" % number for number in range(200_000)))
        assert (len(shown["rows"]), shown["rows"][-1], shown["is_cut"]) == (MOST_ROWS, [str(MOST_ROWS - 1)], True)
        wide = await look(ada, run, "w.csv", b",".join(b"%d" % number for number in range(5000)))
        assert (len(wide["columns"]), wide["is_cut"]) == (MOST_COLUMNS, True)
        endless = await look(ada, run, "e.csv", b"a,b\n" + b'"' + b"x" * 400_000)
        assert endless["is_cut"] or endless["kind"] == "text"

    async def test_parquet_shows_schema_and_first_rows(self, ada, run):
        table = pa.table({
            "n": pa.array(range(1000), pa.int64()),
            "x": pa.array([float("nan"), float("inf"), 0.5] + [None] * 997),
            "huge": pa.array([2**62] * 1000, pa.int64()),
            "raw": pa.array([b"\x00\xff"] * 1000),
            "deep": pa.array([[{"a": 1}]] * 1000),
        })  # fmt: skip
        shown = await look(ada, run, "t.parquet", in_parquet(table))
        assert (shown["kind"], shown["row_count"], shown["is_cut"], len(shown["rows"])) == ("table", 1000, True, MOST_ROWS)
        assert shown["columns"][0] == {"name": "n", "type": "int64"}
        assert shown["rows"][0] == [0, "NaN", str(2**62), "00ff", "[{'a': 1}]"]
        assert shown["rows"][1][1] == "Infinity"

    async def test_of_a_large_parquet_file_only_the_beginning_is_read(self, ada, run, platform, monkeypatch):
        noise = pa.table({"x": pa.array([os.urandom(8) for _ in range(600_000)])})
        content = in_parquet(noise, row_group_size=20_000, use_dictionary=False)
        read = []
        store = platform.runtime.blobs.store
        real = store.read

        async def watched(blob, *, start=0, end=None):
            read.append((end or blob.size) - start)
            return await real(blob, start=start, end=end)

        await put(ada, run, "large.parquet", content)
        monkeypatch.setattr(store, "read", watched)
        response = await ada.http.get(f"/api/runs/{run}/artifact-previews/large.parquet")
        assert len(response.json()["rows"]) == MOST_ROWS
        assert sum(read) < len(content) / 4

    @pytest.mark.parametrize("damage", ["cut", "noise", "footer"])
    async def test_a_broken_parquet_file_is_not_shown_and_breaks_nothing(self, ada, run, damage):
        content = in_parquet(pa.table({"x": list(range(1000))}))
        broken = {
            "cut": content[: len(content) // 2],
            "noise": b"PAR1" + os.urandom(5000) + b"PAR1",
            "footer": content[:-8] + b"\xff\xff\xff\x7fPAR1",
        }[damage]
        shown = await look(ada, run, "b.parquet", broken)
        assert (shown["kind"], shown["rows"]) == ("none", None)
        assert "Parquet" in shown["reason"]

    async def test_a_bomb_ends_its_own_process_and_not_the_server(self, ada, run):
        # 40 million rows of one value in one row group: a few bytes here, gigabytes for who takes it as it comes.
        bomb = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0] * 4_000_000, pa.int32()), ["y" * 900_000])})
        content = in_parquet(bomb, row_group_size=4_000_000)
        assert len(content) < 5_000_000
        shown = await look(ada, run, "bomb.parquet", content)
        assert shown["kind"] in {"table", "none"}
        assert len(json.dumps(shown)) < 1_000_000
        assert (await look(ada, run, "a.txt", b"still here"))["text"] == "still here"

    async def test_what_nobody_reads_of_an_answer_holds_up_nothing(self, tmp_path, monkeypatch):
        async def overfull(process, size, fetch):
            async def is_full():
                return process.stdout._paused

            await until(is_full)
            raise NotReadable("Too much.")

        async def nothing(start, end):
            return b""

        flood = tmp_path / "flood.py"
        flood.write_text("import sys; sys.stdout.buffer.write(bytes(4_000_000))")
        monkeypatch.setattr("mlops_platform.tracking.backends.parquet._PROGRAM", str(flood))
        monkeypatch.setattr("mlops_platform.tracking.backends.parquet._converse", overfull)
        async with asyncio.timeout(20):
            with pytest.raises(NotReadable, match="Too much"):
                await ParquetHead().read(1000, nothing)

    async def test_a_file_that_takes_too_long_is_given_up(self):
        async def never(start, end):
            await asyncio.sleep(30)
            return b""

        with pytest.raises(NotReadable, match="within"):
            await ParquetHead(seconds=1.0).read(1000, never)
        assert ParquetHead._free.acquire(blocking=False)
        ParquetHead._free.release()


class TestImages:
    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (PNG, "image/png"), (b"\xff\xd8\xff\xe0" + b"x" * 90, "image/jpeg"), (b"GIF89a" + b"x" * 90, "image/gif"),
            (b"RIFF\x00\x00\x00\x00WEBPVP8 " + b"x" * 90, "image/webp"),
        ],
    )  # fmt: skip
    async def test_an_image_is_shown_as_what_its_content_is(self, ada, run, content, kind):
        response = await show(ada, run, "i.html", content, content_type="text/html")
        assert (response.status_code, response.headers["content-type"], response.content) == (200, kind, content)
        shown = await look(ada, run, "i.html", content)
        assert (shown["kind"], shown["media_type"], shown["text"]) == ("image", kind, None)

    @pytest.mark.parametrize("content", [SVG, b"<html><script>alert(1)</script>", b"%PDF-1.7", b"", b"BM", b"RIFF....WAVE"])
    async def test_nothing_else_is_ever_shown_as_an_image(self, ada, run, content):
        response = await show(ada, run, "i.png", content, content_type="image/png")
        assert (response.status_code, response.json()["code"]) == (422, "not_an_image")


class TestNothingRuns:
    """In the origin of the console, whatever somebody has uploaded, and whatever they call it."""

    @pytest.mark.parametrize(
        "declared",
        [
            "text/javascript", "application/javascript", "text/ecmascript", "application/x-javascript", "text/jscript",
            "text/livescript", "text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "text/css",
            "application/wasm", "application/pdf", "text/html; charset=utf-7", "TEXT/JavaScript", "multipart/related",
        ],
    )  # fmt: skip
    async def test_active_content_is_sent_as_bytes_to_be_saved(self, ada, run, declared):
        await put(ada, run, "a.js", b"alert(1)", declared)
        response = await ada.http.get(f"/api/runs/{run}/artifacts/a.js")
        self.is_passive(response)
        assert response.headers["content-type"] == "application/octet-stream"
        listed = (await ada.http.get(f"/api/runs/{run}/artifacts")).json()["items"][0]
        assert listed["content_type"] == declared

    async def test_a_picture_that_is_a_script_too_is_a_picture_to_a_browser(self, ada, run):
        response = await show(ada, run, "poly.gif", SCRIPT, content_type="text/javascript")
        self.is_passive(response)
        assert response.headers["content-type"] == "image/gif"

    async def test_a_range_is_as_passive_as_the_whole(self, ada, run):
        await put(ada, run, "a.html", b"<script>alert(1)</script>", "text/html")
        response = await ada.http.get(f"/api/runs/{run}/artifacts/a.html", headers={"Range": "bytes=0-7"})
        assert response.status_code == 206
        self.is_passive(response)

    @pytest.mark.parametrize("kind", ["image/png", "text/plain", "text/csv", "application/json", "application/x-thing"])
    def test_what_is_passive_keeps_its_type(self, kind):
        assert passive(kind) == kind

    def is_passive(self, response):
        assert response.headers["content-disposition"].startswith("attachment;")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"

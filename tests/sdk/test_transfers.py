"""Files on a bad line: broken off, refused for a while, damaged on the way."""

import hashlib
import os
from typing import Any

import pytest

from mlops_platform.sdk.errors import DigestMismatch, PlatformUnreachable
from mlops_platform.sdk.files import BadPath
from tests.sdk.server import Reply, problem

NOW = "2026-01-01T00:00:00Z"
CONTENT = os.urandom(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
VERSION: dict[str, Any] = {
    "id": "1" * 32, "name": "m", "version": "1", "status": "ready", "framework": None, "metrics": {}, "tags": [],
    "description": "", "params": {}, "aliases": [], "run_id": None, "training_set_id": None, "pipeline_run_id": None,
    "manifest_digest": None, "size": len(CONTENT), "file_count": 1, "formats": [], "created_by": "ada",
    "created_at": NOW, "updated_at": NOW, "finalized_at": NOW,
}  # fmt: skip


def stored(path="model.bin", sha256=DIGEST):
    return {"path": path, "sha256": sha256, "size": len(CONTENT), "format": "other", "stored_at": NOW}


def registry(content, *, path="model.bin"):
    """A registry with one version of one file, whose content `content(range header)` answers."""

    def answer(seen):
        if seen.path.endswith("/artifacts"):
            return Reply(200, {"items": [stored(path)], "next_page_token": None})
        if "/artifacts/" in seen.path:
            return content(seen.headers.get("Range"))
        return Reply(200, VERSION)

    return answer


def from_range(asked):
    start = int(asked.removeprefix("bytes=").rstrip("-"))
    return Reply(206, CONTENT[start:], content_type="application/octet-stream")


class TestDownload:
    def test_a_broken_download_goes_on_where_it_broke(self, connected, tmp_path):
        asked = []

        def content(wanted):
            asked.append(wanted)
            return Reply(200, CONTENT, cut_after=100_000) if wanted is None else from_range(wanted)

        with connected(registry(content)) as (_, platform):
            platform.registry.download("m", "1", to=tmp_path / "down")
        assert (tmp_path / "down" / "model.bin").read_bytes() == CONTENT
        assert asked == [None, "bytes=100000-"]

    def test_a_server_that_ignores_the_range_is_understood(self, connected, tmp_path):
        def content(wanted):
            return Reply(200, CONTENT, cut_after=100_000 if wanted is None else None)

        with connected(registry(content)) as (_, platform):
            platform.registry.download("m", "1", to=tmp_path / "down")
        assert (tmp_path / "down" / "model.bin").read_bytes() == CONTENT

    def test_a_line_that_always_breaks_is_given_up_and_leaves_nothing(self, connected, tmp_path):
        with (
            connected(registry(lambda wanted: Reply(206 if wanted else 200, CONTENT, cut_after=10))) as (_, platform),
            pytest.raises(PlatformUnreachable, match=r"model\.bin"),
        ):
            platform.registry.download("m", "1", to=tmp_path / "down")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_other_bytes_than_promised_are_refused(self, connected, tmp_path):
        with (
            connected(registry(lambda wanted: Reply(200, b"x" * len(CONTENT)))) as (_, platform),
            pytest.raises(DigestMismatch),
        ):
            platform.registry.download("m", "1", to=tmp_path / "down")
        assert not (tmp_path / "down" / "model.bin").exists()

    @pytest.mark.parametrize("path", ["../outside", "/etc/cron.d/x", "a/../../x"])
    def test_a_server_cannot_write_outside_the_directory(self, connected, tmp_path, path):
        with connected(registry(lambda wanted: Reply(200, CONTENT), path=path)) as (_, platform), pytest.raises(BadPath):
            platform.registry.download("m", "1", to=tmp_path / "down")


class TestUpload:
    def test_a_refused_upload_sends_the_whole_file_again(self, connected, tmp_path):
        (tmp_path / "model.bin").write_bytes(CONTENT)
        replies = [problem(503, headers={"Retry-After": "0"}), Reply(201, stored())]
        with connected(lambda seen: replies.pop(0)) as (service, platform):
            (file,) = platform.registry.upload("m", "1", tmp_path / "model.bin")
        assert file.sha256 == DIGEST
        assert [seen.body == CONTENT for seen in service.seen] == [True, True]

    def test_what_was_stored_is_compared_with_what_was_read(self, connected, tmp_path):
        (tmp_path / "model.bin").write_bytes(CONTENT)
        with (
            connected(lambda seen: Reply(201, stored(sha256="0" * 64))) as (_, platform),
            pytest.raises(DigestMismatch, match=r"model\.bin"),
        ):
            platform.registry.upload("m", "1", tmp_path / "model.bin")

    def test_names_with_spaces_and_letters_of_the_world_arrive(self, connected, tmp_path):
        (tmp_path / "d" / "ü é").mkdir(parents=True)
        (tmp_path / "d" / "ü é" / "a b#?.bin").write_bytes(CONTENT)
        with connected(lambda seen: Reply(201, stored())) as (service, platform):
            platform.registry.upload("m", "1", tmp_path / "d")
        assert service.seen[0].path.endswith("/artifacts/%C3%BC%20%C3%A9/a%20b%23%3F.bin")

    def test_of_many_files_one_that_fails_is_said(self, connected, tmp_path):
        for number in range(8):
            (tmp_path / f"{number}.bin").write_bytes(CONTENT)

        def answer(seen):
            return problem(409, "model_version_immutable") if seen.path.endswith("5.bin") else Reply(201, stored())

        with connected(answer) as (_, platform), pytest.raises(Exception, match="model_version_immutable"):
            platform.registry.upload("m", "1", tmp_path)


class TestProgress:
    def test_a_bar_goes_to_standard_error_when_it_is_asked_for(self, connected, tmp_path, capsys):
        (tmp_path / "model.bin").write_bytes(CONTENT)
        with connected(lambda seen: Reply(201, stored())) as (_, platform):
            platform.registry.upload("m", "1", tmp_path / "model.bin", progress=True)
        assert capsys.readouterr().out == ""

    def test_without_a_terminal_there_is_silence(self, connected, tmp_path, capsys):
        (tmp_path / "model.bin").write_bytes(CONTENT * 10)
        with connected(lambda seen: Reply(201, stored(sha256=hashlib.sha256(CONTENT * 10).hexdigest()))) as (_, platform):
            platform.registry.upload("m", "1", tmp_path / "model.bin")
        assert capsys.readouterr() == ("", "")

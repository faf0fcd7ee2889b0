"""Uploads find files, downloads land where they may, and the cache holds what its digests say."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlops_platform.sdk.errors import DigestMismatch
from mlops_platform.sdk.files import BadPath, BlobCache, collect, landing, place

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path):
    return BlobCache(tmp_path / "cache")


def fetch(cache, content=CONTENT, digest=DIGEST):
    download = cache.begin(digest)
    try:
        download.write(content)
        return download.finish()
    finally:
        download.discard()


class TestCollect:
    def test_a_file_goes_by_its_own_name_or_by_the_one_given(self, tmp_path):
        (tmp_path / "m.pkl").write_bytes(b"x")
        assert [file.logical for file in collect(tmp_path / "m.pkl")] == ["m.pkl"]
        assert [file.logical for file in collect(tmp_path / "m.pkl", logical="model/a.pkl")] == ["model/a.pkl"]

    def test_a_directory_goes_with_all_below_it_in_order(self, tmp_path):
        for name in ("b/2.txt", "a.txt", "b/1.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x")
        assert [file.logical for file in collect(tmp_path, logical="m")] == ["m/a.txt", "m/b/1.txt", "m/b/2.txt"]

    def test_links_to_directories_are_not_followed(self, tmp_path):
        (tmp_path / "a.txt").write_text("x")
        (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
        assert [file.logical for file in collect(tmp_path)] == ["a.txt"]

    def test_nothing_to_send_is_said(self, tmp_path):
        with pytest.raises(BadPath):
            collect(tmp_path)
        with pytest.raises(BadPath):
            collect(tmp_path / "absent")


class TestLanding:
    @pytest.mark.parametrize("bad", ["../x", "a/../../x", "/etc/passwd", "a\\..\\x", "", "C:/x", "a\x00b", ".."])
    def test_a_path_that_would_leave_the_directory_is_refused(self, tmp_path, bad):
        with pytest.raises(BadPath):
            landing(tmp_path, bad)

    def test_other_paths_land_below(self, tmp_path):
        assert landing(tmp_path, "a/b.txt") == tmp_path / "a" / "b.txt"


class TestCache:
    def test_what_was_fetched_is_found(self, cache):
        assert cache.find(DIGEST) is None
        fetch(cache)
        assert cache.find(DIGEST).read_bytes() == CONTENT

    def test_other_bytes_than_promised_are_not_kept(self, cache, tmp_path):
        with pytest.raises(DigestMismatch):
            fetch(cache, content=b"other")
        assert cache.find(DIGEST) is None
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    def test_a_blob_that_was_changed_on_the_disk_is_fetched_anew(self, cache):
        fetch(cache).write_bytes(b"tampered")
        assert cache.find(DIGEST) is None
        fetch(cache)
        assert cache.find(DIGEST).read_bytes() == CONTENT

    def test_many_at_once_leave_one_whole_blob(self, cache, tmp_path):
        with ThreadPoolExecutor(8) as threads:
            paths = set(threads.map(lambda _: fetch(cache), range(32)))
        assert len(paths) == 1
        assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [CONTENT]

    @pytest.mark.parametrize("bad", ["", "../../x", "A" * 64, "a" * 63])
    def test_only_a_digest_names_a_blob(self, cache, bad):
        with pytest.raises(BadPath):
            cache.find(bad)

    def test_a_copy_that_is_changed_leaves_the_cache_as_it_was(self, cache, tmp_path):
        blob = fetch(cache)
        place(blob, tmp_path / "out" / "m.pkl")
        (tmp_path / "out" / "m.pkl").write_bytes(b"mine")
        assert cache.find(DIGEST).read_bytes() == CONTENT
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.pkl"]

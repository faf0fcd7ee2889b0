import asyncio
import os
import resource
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_platform.core.errors import DependencyUnavailable, StorageFull
from mlops_platform.core.storage.local_files import LocalFiles
from tests.conformance.object_backend import ObjectBackendConformance, put, some_key


@pytest.fixture
def root(tmp_path):
    return tmp_path / "blobs"


@pytest.fixture
def files(root):
    return LocalFiles(root)


@pytest.fixture
def small_disk(root):
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(root)], check=True)
    yield root
    subprocess.run(["umount", str(root)], check=True)


class TestLocalFiles(ObjectBackendConformance):
    @pytest.fixture
    def backend(self, files):
        return files

    def leftovers(self, backend):
        return list(backend._incoming.iterdir())


class TestDurability:
    async def test_the_file_is_synced_before_it_is_renamed_and_each_directory_after(self, files, root, monkeypatch):
        steps = []
        fsync, rename = os.fsync, os.rename

        def spy_fsync(descriptor):
            steps.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
            fsync(descriptor)

        def spy_rename(source, target, **options):
            steps.append(("rename", str(target)))
            rename(source, target, **options)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "rename", spy_rename)
        key = some_key()
        await put(files, key, b"content")
        final = root / key.path
        moved = steps.index(("rename", str(final)))
        assert steps[0][0] == "sync"
        assert steps[0][1].endswith(".part")
        assert steps[moved + 1 :] == [("sync", str(final.parent))]
        made = [final.parent.parent, final.parent.parent.parent, root / "projects", root]
        assert {("sync", str(directory)) for directory in made} <= set(steps[:moved])

    async def test_files_and_directories_are_for_the_owner_alone(self, files, root):
        await put(files, some_key(), b"content")
        for path in (root, *root.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)

    def test_the_mode_of_a_directory_that_stood_there_is_left_alone(self, root):
        root.mkdir(mode=0o755)
        root.chmod(0o755)
        LocalFiles(root)
        assert stat.S_IMODE(root.stat().st_mode) == 0o755


class TestFaults:
    async def test_a_write_that_the_system_refuses_for_size_is_storage_full_and_leaves_nothing(self, files, root):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        upload = files.upload(some_key(), largest=10**9)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(StorageFull):
                await upload.write([bytes(200_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await upload.abort()
        assert [path for path in root.rglob("*") if path.is_file()] == []

    @pytest.mark.faults
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
    async def test_a_full_disk_is_storage_full_and_what_was_stored_stays(self, small_disk):
        files, key = LocalFiles(small_disk), some_key()
        await put(files, key, bytes(1_000_000))
        upload = files.upload(some_key(), largest=10**9)
        with pytest.raises(StorageFull):
            await upload.write([bytes(3_000_000)])
        await upload.abort()
        assert await files.size(key) == 1_000_000
        await put(files, some_key(), bytes(500_000))

    async def test_a_root_that_went_away_is_unavailable_and_no_missing_blob(self, files, root):
        key = some_key()
        await put(files, key, b"content")
        root.rename(root.with_name("unmounted"))
        for operation in (
            lambda: files.read_range(key, 0, 7),
            lambda: files.size(key),
            files.check,
            lambda: put(files, some_key(), b"more"),
        ):
            with pytest.raises(DependencyUnavailable):
                await operation()

    async def test_a_link_in_the_place_of_a_file_is_not_followed(self, files, root, tmp_path):
        key = some_key()
        await put(files, key, b"content")
        (tmp_path / "secret").write_bytes(b"secret")
        (root / key.path).unlink()
        (root / key.path).symlink_to(tmp_path / "secret")
        with pytest.raises(DependencyUnavailable):
            await files.read_range(key, 0, 6)

    async def test_an_abort_waits_for_the_step_that_still_runs_in_its_thread(self, files, root):
        upload = files.upload(some_key(), largest=10**9)
        steps = [asyncio.create_task(upload.write([bytes(4 * 1024 * 1024)])) for _ in range(5)]
        await asyncio.sleep(0)
        for step in steps:
            step.cancel()
        await upload.abort()
        await asyncio.gather(*steps, return_exceptions=True)
        assert [path for path in root.rglob("*") if path.is_file()] == []


class TestSweep:
    async def test_stale_parts_go_and_fresh_ones_stay(self, files, root):
        stale, fresh = root / "incoming" / "a.part", root / "incoming" / "b.part"
        now = datetime.now(UTC)
        for path, age in ((stale, timedelta(hours=30)), (fresh, timedelta(hours=1))):
            path.write_bytes(b"half")
            os.utime(path, ((now - age).timestamp(),) * 2)
        assert await files.sweep(now - timedelta(hours=24)) == 1
        assert [path.name for path in (root / "incoming").iterdir()] == ["b.part"]

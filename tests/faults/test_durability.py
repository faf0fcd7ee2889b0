"""Promises 1 and 7, held against processes that are killed, a database that is away, and a disk that is full."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import httpx2
import psutil
import pytest

from mlops_platform.sdk.settings import Service
from tests.factories.running import RunningPlatform, eventually, free_ports, platform_home, running
from tests.factories.writers import Writers, is_ready

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

RECOVERY_SECONDS = 10


class TestKilled:
    def test_nothing_acknowledged_is_lost_when_the_server_is_killed(self):
        with platform_home() as home:
            ports = free_ports()
            with running(home, ports) as platform, Writers(platform) as writers:
                writers.wait_for(each=20)
                platform.stop(signal.SIGKILL)
            assert all(log.refused for log in writers.logs.values())
            with running(home, ports) as after:
                writers.check(after)

    def test_nothing_acknowledged_is_lost_when_the_database_is_killed_and_all_goes_on_by_itself(self):
        with platform_home() as home, running(home) as platform:
            with Writers(platform) as writers:
                writers.wait_for(each=20)
                killed = platform.postmaster()
                killed.kill()
                writers.wait_for(each=20)
                assert platform.postmaster().pid != killed.pid
            writers.check(platform)


@pytest.fixture(scope="module")
def platform():
    with platform_home() as home, running(home) as started:
        yield started


class TestSilent:
    """A database that is stopped (SIGSTOP) keeps its connections and never answers: the worst way to be away."""

    @pytest.fixture
    def silenced(self, platform):
        # The postmaster first: a backend that it forks after its children were listed would go on answering.
        postmaster = platform.postmaster()
        postmaster.suspend()
        eventually(lambda: postmaster.status() == psutil.STATUS_STOPPED, seconds=5, what="the postmaster stopped")
        frozen = [postmaster, *postmaster.children(recursive=True)]
        for process in frozen[1:]:
            process.suspend()
        try:
            yield lambda: thaw(frozen)
        finally:
            thaw(frozen)
            eventually(lambda: is_ready(platform), seconds=30, what="ready again")

    def test_reads_and_writes_are_refused_with_503_and_the_platform_recovers_by_itself(self, platform, silenced):
        with caller(platform) as http:
            for method, path, body in (
                ("GET", "/api/models", None),
                ("POST", "/api/models", {"name": "m", "version": "1"}),
            ):
                refused = http.request(method, path, json=body)
                assert refused.status_code == 503, refused.text
                assert int(refused.headers["Retry-After"]) > 0
                assert refused.json()["code"] == "dependency_unavailable"
            unready = http.get("/ready")
            assert unready.status_code == 503
            assert unready.json()["dependencies"]["database"] != "ok"
            silenced()
            eventually(lambda: is_ready(platform), seconds=RECOVERY_SECONDS, what="ready again")
            assert http.get("/api/models").status_code == 200


def thaw(frozen: list[psutil.Process]) -> None:
    for process in frozen:
        if process.is_running():
            process.resume()


class TestFull:
    """No room for what is written: refused as a whole, said clearly, and over when there is room."""

    def test_a_file_that_may_not_grow_is_refused_and_leaves_nothing(self):
        with platform_home() as home, running(home) as platform, caller(platform) as http:
            # What the server's user would meet on a full disk or under a quota, for its own process alone.
            resource.prlimit(platform.process.pid, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
            self.refuses_an_upload_and_recovers(
                http,
                home,
                lambda: resource.prlimit(
                    platform.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                ),
            )

    def test_a_full_disk_is_refused_and_leaves_nothing(self, small_disk):
        with running(small_disk / "home") as platform, caller(platform) as http:
            filler = small_disk / "filler"
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free - 4 * 2**20)
            self.refuses_an_upload_and_recovers(http, small_disk / "home", filler.unlink)

    def refuses_an_upload_and_recovers(self, http: httpx2.Client, home: Path, make_room) -> None:
        made = http.post("/api/models", json={"name": "large", "version": "1"})
        assert made.status_code == 201, made.text
        before = stored_files(home)
        url = "/api/models/large/versions/1/artifacts/weights.bin"
        refused = http.put(url, content=os.urandom(8 * 2**20))
        assert refused.status_code in {503, 507}, refused.text
        assert "space" in refused.json()["detail"]
        assert stored_files(home) == before
        assert http.get(url).status_code == 404
        make_room()
        eventually(lambda: http.put(url, content=b"small").status_code == 201, seconds=RECOVERY_SECONDS, what="room")
        assert http.get(url).content == b"small"


@pytest.fixture
def small_disk():
    """A file system of its own that fills up soon."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts; the limit on file sizes shows the same without")
    with tempfile.TemporaryDirectory(prefix="mlops-disk-") as base:
        Path(base).chmod(0o711)
        disk = Path(base) / "disk"
        disk.mkdir(mode=0o711)
        mount = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=711", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"this machine lets nobody mount: {mounted.stderr.decode().strip()}")
        try:
            (disk / "user").mkdir(mode=0o700)
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


def stored_files(home: Path) -> set[Path]:
    return {path for path in (home / "blobs").rglob("*") if path.is_file()}


def caller(platform: RunningPlatform) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {platform.key()}"}
    return httpx2.Client(base_url=platform.url(Service.REGISTRY), headers=headers, timeout=30)

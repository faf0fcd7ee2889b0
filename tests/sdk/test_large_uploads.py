"""Large files in parts, against the real service: cut, killed, changed, and known from before."""

import asyncio
import hashlib
import os
import random
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import httpx2
import pytest

from mlops_platform.sdk import Platform
from mlops_platform.sdk.errors import DigestMismatch, MlopsError
from mlops_platform.sdk.settings import ClientSettings, Service
from tests.factories.serving import serving

MIB = 1024 * 1024
CONTENT = random.Random(5).randbytes(50 * MIB + 17)  # 4 parts of the server's own size
TRACKING = "experiment-tracking"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(CONTENT)
    return path


class Watched(httpx2.HTTPTransport):
    """A connection that counts what goes out in parts, and is cut after so many bytes."""

    def __init__(self, cut_after: int | None = None) -> None:
        super().__init__()
        self.cut_after = cut_after
        self.sent = 0
        self.requests: list[str] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if "/parts/" in request.url.path:
            request.stream = _Counted(request.stream, self)
        return super().handle_request(request)

    def count(self, length: int) -> None:
        with self._lock:
            self.sent += length
            if self.cut_after is not None and self.sent > self.cut_after:
                raise httpx2.WriteError("the line was cut")


class _Counted(httpx2.SyncByteStream):
    def __init__(self, inner, line):
        self._inner, self._line = inner, line

    def __iter__(self):
        for chunk in self._inner:
            self._line.count(len(chunk))
            yield chunk


@pytest.fixture
async def address(apps):
    async with serving({TRACKING: apps[TRACKING]}) as urls:
        yield urls["tracking"]


@pytest.fixture
async def key(platform):
    made, _ = await platform.key(await platform.project())
    return made


@pytest.fixture
def client(address, key, tmp_path):
    """A client in a thread of its own, as scripts have it."""

    def make(line=None):
        settings = ClientSettings(urls=dict.fromkeys(Service, address), credential=key, home=tmp_path, retries=1)
        settings = replace(settings, parts_above_bytes=16 * MIB)
        return Platform(settings=settings, transport=line or Watched())

    return make


async def in_thread(function, *arguments):
    return await asyncio.to_thread(function, *arguments)


def log(platform, source, run_id=None):
    run = platform.tracking.start_run("large") if run_id is None else platform.tracking.resume_run(run_id)
    return run, run.log_artifact(source, "model/weights.bin")


async def test_a_large_file_goes_in_parts_and_comes_back_the_same(client, source, tmp_path):
    line = Watched()

    def work():
        with client(line) as platform:
            run, (stored,) = log(platform, source)
            landed = platform.tracking.download_artifacts(run.id, "model", to=tmp_path / "down")
            return stored, next(path for path in landed.rglob("*.bin")).read_bytes() == CONTENT

    stored, is_same = await in_thread(work)
    assert is_same
    assert (stored.size, stored.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert sum("/parts/" in request for request in line.requests) == 4
    assert line.sent == len(CONTENT)


async def test_a_cut_upload_goes_on_with_what_is_missing_in_another_run_too(client, source):
    # Two parts and a half of the first attempt: at least what was acknowledged is not sent again.
    cut = Watched(cut_after=40 * MIB)

    def attempt(line):
        with client(line) as platform:
            return log(platform, source)

    with pytest.raises(MlopsError):
        await in_thread(attempt, cut)
    line = Watched()
    _, (stored,) = await in_thread(attempt, line)
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    again = sum("/parts/" in request for request in line.requests)
    assert 1 <= again < 4
    assert line.sent < len(CONTENT)


async def test_what_the_server_knows_is_not_sent_at_all(client, source):
    line = Watched()

    def twice():
        with client() as platform:
            log(platform, source)
        with client(line) as platform:
            return log(platform, source)

    _, (stored,) = await in_thread(twice)
    assert stored.size == len(CONTENT)
    assert line.sent == 0


async def test_a_file_that_changes_while_it_goes_is_refused(client, source):
    class Changing(Watched):
        def count(self, length):
            with source.open("r+b") as file:
                file.seek(len(CONTENT) - 1)
                file.write(os.urandom(1))

    def work():
        with client(Changing()) as platform, pytest.raises(DigestMismatch, match="not what it was"):
            log(platform, source)

    await in_thread(work)


async def test_progress_counts_each_byte_once(client, source, monkeypatch):
    counted: list[int] = []
    monkeypatch.setattr("mlops_platform.sdk._sync.artifacts.transfer", lambda *_, **__: _bar(counted), raising=True)

    def work():
        with client() as platform:
            log(platform, source)
            log(platform, source)

    await in_thread(work)
    assert sum(counted) == 2 * len(CONTENT)


class _bar:  # noqa: N801  # a context manager in the place of a function
    def __init__(self, counted):
        self._counted = counted

    def __enter__(self):
        return self._counted.append

    def __exit__(self, *_):
        return None


async def test_a_process_that_is_killed_in_the_middle_leaves_nothing_behind_and_the_next_goes_on(
    client, address, key, source, tmp_path
):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from mlops_platform.sdk import Platform
        from mlops_platform.sdk._sync import uploads
        real = uploads.backend.for_each
        def one_part_then_die(items, function, *, at_once):
            if items and hasattr(items[0], "start"):
                function(items[0])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(items, function, at_once=at_once)
        uploads.backend.for_each = one_part_then_die
        with Platform() as platform:
            platform.tracking.start_run("large").log_artifact(sys.argv[1], "model/weights.bin")
        """
    )
    environment = {
        **os.environ, "MLOPS_EXPERIMENT_TRACKING_URL": address, "MLOPS_API_KEY": key, "MLOPS_HOME": str(tmp_path / "other"),
        "MLOPS_PARTS_ABOVE_MB": "16",
    }  # fmt: skip
    died = await in_thread(lambda: subprocess.run([sys.executable, "-c", script, source], env=environment, check=False))
    assert died.returncode == -9
    kept = [path for path in (tmp_path / "other").rglob("*") if path.is_file()]
    assert not any(key.encode() in path.read_bytes() for path in kept)
    line = Watched()

    def work():
        with client(line) as platform:
            return log(platform, source)

    _, (stored,) = await in_thread(work)
    assert stored.size == len(CONTENT)
    assert sum("/parts/" in request for request in line.requests) == 3


async def test_small_files_stay_one_request(client, tmp_path):
    small = tmp_path / "small.bin"
    small.write_bytes(b"x" * 16 * MIB)
    line = Watched()

    def work():
        with client(line) as platform:
            log(platform, small)

    await in_thread(work)
    assert [request.split()[0] for request in line.requests if "artifact" in request] == ["PUT"]

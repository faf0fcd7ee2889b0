"""Uploads that die: the client, the process, the object store."""

import asyncio
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from mlops_platform.core.crypto.blob_format import BlobOpener, BlobSealer
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.local_files import LocalFiles
from mlops_platform.core.storage.object_store import ObjectStore
from tests.core.storage.conftest import CREDENTIALS, running_s3, s3_store

MEBIBYTE = 1024 * 1024
PROJECT = ProjectId(new_id())
RING = KeyRing([bytes(range(32))])

UPLOAD_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.local_files import LocalFiles

async def content():
    for number in range(10**9):
        if number == 20:
            sys.stdout.write("on its way\\n")
            sys.stdout.flush()
        yield bytes(1024 * 1024)
        if number > 40:
            await asyncio.Event().wait()

store = BlobStore(LocalFiles(Path(sys.argv[1])), KeyRing([bytes(32)]))
asyncio.run(store.write("a" * 32, content(), max_bytes=10**12))
"""


@pytest.fixture
def killed_upload(tmp_path):
    """The directory in which a process was killed in the middle of an upload."""
    root = tmp_path / "blobs"
    path = os.pathsep.join(part for part in sys.path if part)
    program = [sys.executable, "-c", UPLOAD_FOR_EVER, str(root)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as uploading:
        assert uploading.stdout is not None
        assert uploading.stdout.readline() == b"on its way\n"
        uploading.kill()
    return root


async def test_a_killed_upload_is_never_visible_and_its_rest_is_swept(killed_upload):
    assert files_in(killed_upload / "projects") == []
    assert len(files_in(killed_upload / "incoming")) == 1
    assert await LocalFiles(killed_upload).sweep(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert files_in(killed_upload) == []


@pytest.mark.parametrize("pieces", [4, 30])
async def test_a_cancelled_upload_leaves_neither_object_nor_parts_in_s3(s3_endpoint, s3_client, pieces):
    bucket = f"bucket-{new_id()}"
    s3_client.create_bucket(Bucket=bucket)
    waiting = asyncio.Event()

    async def stalled():
        for _ in range(pieces):
            yield bytes(MEBIBYTE)
        waiting.set()
        await asyncio.Event().wait()

    store = BlobStore(ObjectStore(s3_store(s3_endpoint, bucket)), RING)
    writing = asyncio.create_task(store.write(PROJECT, stalled(), max_bytes=10**9))
    await waiting.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert s3_client.list_objects_v2(Bucket=bucket).get("Contents", []) == []


@pytest.mark.parametrize("pieces", [4, 30, 60])
async def test_an_object_store_that_dies_during_an_upload_is_unavailable(pieces):
    with running_s3() as (server, endpoint):
        client = boto3.client("s3", endpoint_url=endpoint, **CREDENTIALS)
        client.create_bucket(Bucket="bucket")
        client.close()

        async def outliving():
            for number in range(80):
                if number == pieces:
                    server.kill()
                    server.wait(10)
                yield bytes(MEBIBYTE)

        store = BlobStore(ObjectStore(s3_store(endpoint, "bucket")), RING)
        before = asyncio.all_tasks()
        async with asyncio.timeout(20):
            with pytest.raises(DependencyUnavailable):
                await store.write(PROJECT, outliving(), max_bytes=10**9)
        assert asyncio.all_tasks() <= before


async def test_neither_sealing_nor_opening_many_bytes_happens_on_the_event_loop(tmp_path, monkeypatch):
    here, threads = threading.get_ident(), set()
    update, open_segments = BlobSealer.update, BlobOpener.open

    def spy_update(self, content):
        threads.add(threading.get_ident())
        return update(self, content)

    def spy_open(self, first, sealed):
        threads.add(threading.get_ident())
        return open_segments(self, first, sealed)

    monkeypatch.setattr(BlobSealer, "update", spy_update)
    monkeypatch.setattr(BlobOpener, "open", spy_open)

    async def content():
        for _ in range(50):
            yield bytes(100_000)

    store = BlobStore(LocalFiles(tmp_path), RING)
    blob = await store.write(PROJECT, content(), max_bytes=10**8)
    async for _ in await store.read(blob):
        pass
    assert threads
    assert here not in threads


def files_in(root: Path):
    return [path for path in root.rglob("*") if path.is_file()]

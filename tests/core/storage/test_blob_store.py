import pytest

from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.local_files import LocalFiles

RING = KeyRing([bytes(range(32))])


async def stream(*parts):
    for part in parts:
        yield part


async def collect(chunks):
    return b"".join([chunk async for chunk in chunks])


@pytest.fixture
def store(tmp_path):
    return BlobStore(LocalFiles(tmp_path / "blobs"), RING)


async def test_round_trip(store):
    content = bytes(range(256)) * 20_000
    blob = await store.write(ProjectId(new_id()), stream(content[:100], content[100:]), max_bytes=10**8)
    assert await collect(await store.read(blob)) == content
    assert await collect(await store.read(blob, start=70_000, end=3_000_000)) == content[70_000:3_000_000]

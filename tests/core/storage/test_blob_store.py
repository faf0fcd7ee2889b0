import asyncio
import hashlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from mlops_platform.core.crypto.blob_format import SEGMENT_BYTES, BlobAddress, BlobId
from mlops_platform.core.crypto.errors import BlobCorrupt, BlobKeyUnavailable
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.errors import ContentTooLarge, DependencyUnavailable
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.backend import ObjectKey
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.errors import BlobMissing
from mlops_platform.core.storage.local_files import LocalFiles
from mlops_platform.core.storage.object_store import ObjectStore
from tests.core.crypto.reference_blob import pattern
from tests.core.storage.conftest import s3_store

RING = KeyRing([bytes(range(32))])
PROJECT = ProjectId(new_id())
CONTENT = pattern(5_000_000)


async def stream(content, piece=300_000):
    for at in range(0, len(content), piece):
        yield content[at : at + piece]


async def collect(chunks, into=None):
    into = [] if into is None else into
    async for chunk in chunks:
        into.append(chunk)  # what came before an error must be seen
    return b"".join(into)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "blobs"


@pytest.fixture
def local(root):
    return BlobStore(LocalFiles(root), RING)


@pytest.fixture(params=["files", "files, plain", "s3", "memory"])
def store(request, root):
    match request.param:
        case "files":
            return BlobStore(LocalFiles(root), RING)
        case "files, plain":
            return BlobStore(LocalFiles(root), None, encrypt=False)
        case "memory":
            return BlobStore(ObjectStore(MemoryStore()), RING)
    client, bucket = request.getfixturevalue("s3_client"), f"bucket-{new_id()}"
    client.create_bucket(Bucket=bucket)
    endpoint = request.getfixturevalue("s3_endpoint")
    return BlobStore(ObjectStore(s3_store(endpoint, bucket)), RING)


def files_in(root):
    return [path for path in root.rglob("*") if path.is_file()]


class TestRoundTrip:
    @pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES, 5_000_000, 20_000_000])
    async def test_content_comes_back_with_its_digest_and_size(self, store, size):
        content = pattern(size)
        blob = await store.write(PROJECT, stream(content), max_bytes=size)
        assert (blob.size, blob.sha256) == (size, hashlib.sha256(content).hexdigest())
        assert await collect(await store.read(blob)) == content
        assert await store.exists(blob.address)

    @pytest.mark.parametrize(
        ("start", "end"), [(0, 0), (0, 1), (4_999_999, 5_000_000), (65_535, 65_537), (70_000, 4_600_000), (5_000_000, None)]
    )
    async def test_a_range_comes_back(self, store, start, end):
        blob = await store.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        assert await collect(await store.read(blob, start=start, end=end)) == CONTENT[start:end]

    @given(data=st.data())
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_any_range_in_any_pieces_comes_back(self, local, data):
        size = data.draw(st.integers(0, 3_000_000))
        content = CONTENT[:size]
        blob = await local.write(PROJECT, stream(content, data.draw(st.integers(1000, 10**6))), max_bytes=size)
        start = data.draw(st.integers(0, size))
        end = data.draw(st.integers(start, size))
        assert await collect(await local.read(blob, start=start, end=end)) == content[start:end]

    async def test_content_that_drips_in_a_few_bytes_at_a_time_comes_back(self, local):
        content = CONTENT[:200_001]
        blob = await local.write(PROJECT, stream(content, 3), max_bytes=len(content))
        assert await collect(await local.read(blob)) == content

    async def test_a_deleted_blob_is_missing(self, store):
        blob = await store.write(PROJECT, stream(b"content"), max_bytes=100)
        await store.delete(blob.address)
        assert not await store.exists(blob.address)
        with pytest.raises(BlobMissing):
            await store.read(blob)

    async def test_the_key_is_made_of_minted_ids_alone(self, local, root):
        blob = await local.write(PROJECT, stream(b"content"), max_bytes=100)
        assert blob.key.path == f"projects/{PROJECT}/blobs/{blob.blob_id[-2:]}/{blob.blob_id}"
        assert files_in(root) == [root / blob.key.path]

    async def test_sealed_files_do_not_hold_the_content(self, local, root):
        blob = await local.write(PROJECT, stream(b"needle in the hay" * 1000), max_bytes=10**6)
        assert b"needle" not in (root / blob.key.path).read_bytes()

    async def test_sealed_blobs_stay_readable_when_encryption_is_switched_off(self, local, root):
        blob = await local.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        plain = BlobStore(LocalFiles(root), RING, encrypt=False)
        assert await collect(await plain.read(blob)) == CONTENT
        assert not (await plain.write(PROJECT, stream(b"new"), max_bytes=3)).is_encrypted


class TestNothingIsVisible:
    @pytest.mark.parametrize("size", [101, 3_000_000, 20_000_000])
    async def test_after_content_over_the_limit(self, store, size, root):
        with pytest.raises(ContentTooLarge, match=str(size - 1)):
            await store.write(PROJECT, stream(pattern(size)), max_bytes=size - 1)
        assert files_in(root) == []

    async def test_after_a_client_that_breaks_off(self, local, root):
        async def broken():
            yield CONTENT
            raise ConnectionResetError("gone")

        with pytest.raises(ConnectionResetError):
            await local.write(PROJECT, broken(), max_bytes=10**8)
        assert files_in(root) == []

    @pytest.mark.parametrize("pieces", [0, 1, 4, 20])
    async def test_after_a_cancelled_upload(self, store, root, pieces):
        waiting = asyncio.Event()

        async def stalled():
            for _ in range(pieces):
                yield bytes(1024 * 1024)
            waiting.set()
            await asyncio.Event().wait()

        writing = asyncio.create_task(store.write(PROJECT, stalled(), max_bytes=10**9))
        await waiting.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert files_in(root) == []


class TestDamage:
    async def test_damage_in_the_first_bytes_is_known_before_anything_is_given_out(self, local, root):
        blob = await local.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        flip(root / blob.key.path, 2000)
        with pytest.raises(BlobCorrupt):
            await local.read(blob)

    @pytest.mark.parametrize("at", [1_200_000, 4_000_000, -1])
    async def test_only_true_bytes_leave_before_damage_further_on(self, local, root, at):
        blob = await local.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        flip(root / blob.key.path, at)
        given: list[bytes] = []
        with pytest.raises(BlobCorrupt):
            await collect(await local.read(blob), into=given)
        content = b"".join(given)
        assert content == CONTENT[: len(content)]
        assert len(content) < len(CONTENT)

    async def test_a_cut_blob_is_refused_even_for_a_range_that_is_left(self, local, root):
        blob = await local.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        path = root / blob.key.path
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BlobCorrupt, match="cut"):
            await local.read(blob, start=0, end=10)

    async def test_the_file_of_another_blob_or_project_is_refused(self, local, root):
        mine = await local.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        for project in (PROJECT, ProjectId(new_id())):
            other = await local.write(project, stream(CONTENT), max_bytes=10**7)
            (root / mine.key.path).write_bytes((root / other.key.path).read_bytes())
            with pytest.raises(BlobCorrupt):
                await local.read(mine)

    async def test_a_plain_blob_cannot_take_the_place_of_a_sealed_one(self, local, root):
        blob = await local.write(PROJECT, stream(b"true"), max_bytes=10)
        plain = BlobStore(LocalFiles(root), None, encrypt=False)
        forged = await plain.write(PROJECT, stream(b"fake"), max_bytes=10)
        (root / blob.key.path).write_bytes((root / forged.key.path).read_bytes())
        with pytest.raises(BlobCorrupt, match="replaced"):
            await local.read(blob)

    async def test_another_key_does_not_open(self, local, root):
        blob = await local.write(PROJECT, stream(b"content"), max_bytes=10)
        with pytest.raises(BlobKeyUnavailable):
            await BlobStore(LocalFiles(root), KeyRing([bytes([7]) * 32])).read(blob)

    async def test_a_size_that_the_database_has_wrong_is_refused(self, local):
        blob = await local.write(PROJECT, stream(b"content"), max_bytes=10)
        with pytest.raises(BlobCorrupt):
            await local.read(replace(blob, size=6))


class TestReaders:
    async def test_a_reader_that_leaves_early_leaves_nothing_running(self, store):
        blob = await store.write(PROJECT, stream(pattern(20_000_000)), max_bytes=10**8)
        before = asyncio.all_tasks()
        chunks = await store.read(blob)
        await anext(chunks)
        await chunks.aclose()
        assert asyncio.all_tasks() <= before

    async def test_many_readers_at_once_see_the_same(self, store):
        blob = await store.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        found = await asyncio.gather(*[collect_all(store, blob) for _ in range(5)])
        assert set(found) == {CONTENT}

    async def test_the_store_going_away_in_mid_stream_is_unavailable(self, local, root):
        blob = await local.write(PROJECT, stream(CONTENT), max_bytes=10**7)
        chunks = await local.read(blob)
        root.rename(root.with_name("unmounted"))
        with pytest.raises(DependencyUnavailable):
            await collect(chunks)


class TestKeys:
    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/etc/passwd",
            f"projects/{'a' * 32}/blobs/aa/../{'a' * 32}",
            f"projects/{'a' * 32}/blobs/aa/{'a' * 32}\n",
            f"projects/{'A' * 32}/blobs/aa/{'a' * 32}",
            f"/projects/{'a' * 32}/blobs/aa/{'a' * 32}",
            f"projects/{'a' * 32}/blobs/aa/{'a' * 31}\x00",
        ],
    )
    def test_no_other_text_is_a_key(self, path):
        with pytest.raises(ValueError, match="not a storage key"):
            ObjectKey(path)

    def test_an_address_makes_its_key(self):
        address = BlobAddress(ProjectId("a" * 32), BlobId("b" * 30 + "0f"))
        assert ObjectKey.of(address).path == f"projects/{'a' * 32}/blobs/0f/{'b' * 30}0f"


async def collect_all(store, blob):
    return await collect(await store.read(blob))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)

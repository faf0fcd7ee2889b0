"""What every `ObjectBackend` must pass: subclass, and give a `backend` that nothing else uses."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mlops_platform.core.crypto.blob_format import BlobAddress, BlobId
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.backend import ObjectBackend, ObjectKey
from mlops_platform.core.storage.errors import BlobMissing

MEBIBYTE = 1024 * 1024
# More than one part of a multipart upload.
LARGE = 20 * MEBIBYTE


def some_key():
    return ObjectKey.of(BlobAddress(ProjectId(new_id()), BlobId(new_id())))


async def put(backend, key, *pieces):
    upload = backend.upload(key, largest=10**9)
    for piece in pieces:
        await upload.write([piece])
    await upload.commit()


class ObjectBackendConformance:
    @pytest.fixture
    def backend(self) -> ObjectBackend:
        raise AssertionError("Each implementation gives its own.")

    def leftovers(self, backend):
        """What unfinished uploads have left, as the store itself sees it."""
        raise AssertionError("Each implementation looks for itself.")

    @pytest.mark.parametrize("size", [0, 1, MEBIBYTE, LARGE])
    async def test_what_was_written_is_read(self, backend, size):
        key, content = some_key(), bytes(range(256)) * (size // 256) + bytes(size % 256)
        await put(backend, key, *(content[at : at + MEBIBYTE] for at in range(0, size, MEBIBYTE)))
        found = await backend.read_range(key, 0, size) if size else None
        assert found is None or (found.data, found.object_size) == (content, size)
        assert await backend.size(key) == size

    async def test_many_small_pieces_are_written_in_their_order(self, backend):
        key, pieces = some_key(), [bytes([i % 256]) * (i % 7) for i in range(3000)]
        upload = backend.upload(key, largest=10**9)
        await upload.write(pieces[:1700])
        await upload.write([])
        await upload.write(pieces[1700:])
        await upload.commit()
        assert (await backend.read_range(key, 0, 10**6)).data == b"".join(pieces)

    async def test_a_range_is_read_with_the_size_of_the_whole(self, backend):
        key = some_key()
        await put(backend, key, b"0123456789")
        found = await backend.read_range(key, 3, 7)
        assert (found.data, found.object_size) == (b"3456", 10)

    async def test_a_range_over_the_end_is_cut(self, backend):
        key = some_key()
        await put(backend, key, b"0123456789")
        found = await backend.read_range(key, 7, 100)
        assert (found.data, found.object_size) == (b"789", 10)

    async def test_a_range_behind_the_end_is_empty(self, backend):
        key = some_key()
        await put(backend, key, b"0123456789")
        found = await backend.read_range(key, 50, 100)
        assert (found.data, found.object_size) == (b"", 10)

    async def test_an_absent_object_is_missing(self, backend):
        with pytest.raises(BlobMissing):
            await backend.read_range(some_key(), 0, 10)
        assert await backend.size(some_key()) is None

    async def test_a_deleted_object_is_gone_and_deleting_again_is_quiet(self, backend):
        key = some_key()
        await put(backend, key, b"content")
        await backend.delete(key)
        await backend.delete(key)
        assert await backend.size(key) is None

    @pytest.mark.parametrize("size", [0, 10, LARGE])
    async def test_nothing_is_visible_before_the_commit(self, backend, size):
        key = some_key()
        upload = backend.upload(key, largest=10**9)
        for _ in range(-(-size // MEBIBYTE)):
            await upload.write([bytes(min(size, MEBIBYTE))])
        assert await backend.size(key) is None
        await upload.abort()

    @pytest.mark.parametrize("pieces", [0, 1, 9, 20])
    async def test_an_aborted_upload_leaves_nothing(self, backend, pieces):
        key = some_key()
        upload = backend.upload(key, largest=10**9)
        for _ in range(pieces):
            await upload.write([bytes(MEBIBYTE)])
        await upload.abort()
        assert await backend.size(key) is None
        assert self.leftovers(backend) == []

    @pytest.mark.parametrize("pieces", [1, 20])
    async def test_an_upload_aborted_after_its_commit_leaves_nothing(self, backend, pieces):
        key = some_key()
        upload = backend.upload(key, largest=10**9)
        for _ in range(pieces):
            await upload.write([bytes(MEBIBYTE)])
        await upload.commit()
        await upload.abort()
        assert await backend.size(key) is None
        assert self.leftovers(backend) == []

    @pytest.mark.parametrize("turns", [0, 1, 3])
    @pytest.mark.parametrize("step", [0, 8, 9, 10, 15, 20])
    async def test_an_upload_cancelled_in_any_step_and_aborted_leaves_nothing(self, backend, step, turns):
        key, reached = some_key(), asyncio.Event()
        upload = backend.upload(key, largest=10**9)

        async def work():
            for number in range(20):
                if number == step:
                    reached.set()
                await upload.write([bytes(MEBIBYTE)])
            reached.set()
            await upload.commit()

        working = asyncio.create_task(work())
        await reached.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await upload.abort()
        assert await backend.size(key) is None
        assert self.leftovers(backend) == []

    async def test_two_uploads_at_once_do_not_mix(self, backend):
        one, other = some_key(), some_key()
        await asyncio.gather(put(backend, one, *[b"a" * MEBIBYTE] * 12), put(backend, other, *[b"b" * MEBIBYTE] * 12))
        assert set((await backend.read_range(one, 0, 12 * MEBIBYTE)).data) == {ord("a")}
        assert set((await backend.read_range(other, 0, 12 * MEBIBYTE)).data) == {ord("b")}

    async def test_a_sweep_spares_what_is_stored(self, backend):
        key = some_key()
        await put(backend, key, b"content")
        await backend.sweep(datetime.now(UTC) + timedelta(days=1))
        assert await backend.size(key) == 7

    async def test_a_usable_store_passes_its_check(self, backend):
        await backend.check()

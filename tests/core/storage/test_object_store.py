import asyncio

import pytest
from obstore.store import MemoryStore

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import new_id
from mlops_platform.core.storage.object_store import ObjectStore
from tests.conformance.object_backend import ObjectBackendConformance, put, some_key
from tests.core.storage.conftest import NO_RETRY, s3_store


class TestS3(ObjectBackendConformance):
    @pytest.fixture
    def bucket(self, s3_client):
        name = f"bucket-{new_id()}"
        s3_client.create_bucket(Bucket=name)
        return name

    @pytest.fixture
    def backend(self, s3_endpoint, s3_client, bucket):
        self.client, self.bucket_name = s3_client, bucket
        return ObjectStore(s3_store(s3_endpoint, bucket))

    def leftovers(self, backend):
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket_name).get("Uploads", [])
        return [upload["Key"] for upload in uploads]

    async def test_objects_lie_under_the_prefix_of_the_url(self, backend):
        key = some_key()
        await put(backend, key, b"content")
        listed = self.client.list_objects_v2(Bucket=self.bucket_name)["Contents"]
        assert [item["Key"] for item in listed] == [f"some/prefix/{key.path}"]


class TestMemory(ObjectBackendConformance):
    @pytest.fixture
    def backend(self):
        return ObjectStore(MemoryStore())

    def leftovers(self, backend):
        return []


async def everything(backend):
    key = some_key()
    for operation in (
        lambda: backend.read_range(key, 0, 10),
        lambda: backend.size(key),
        lambda: backend.delete(key),
        backend.check,
        lambda: put(backend, key, b"small"),
        lambda: put(backend, key, *[bytes(1024 * 1024)] * 20),
    ):
        yield operation


async def test_a_store_that_is_away_is_unavailable_whatever_is_asked():
    async for operation in everything(ObjectStore(s3_store("http://127.0.0.1:1", "some-bucket", retry_config=NO_RETRY))):
        with pytest.raises(DependencyUnavailable) as caught:
            await operation()
        assert caught.value.headers["Retry-After"]
        assert "127.0.0.1" not in caught.value.detail


async def test_a_bucket_that_does_not_exist_is_unavailable_and_named_as_such(s3_endpoint):
    backend = ObjectStore(s3_store(s3_endpoint, "no-such-bucket"))
    with pytest.raises(DependencyUnavailable, match="bucket"):
        await put(backend, some_key(), b"small")
    with pytest.raises(DependencyUnavailable, match="bucket"):
        await backend.read_range(some_key(), 0, 10)
    with pytest.raises(DependencyUnavailable, match="bucket"):
        await backend.check()


@pytest.mark.parametrize(
    ("status", "told"), [(403, "credentials"), (401, "credentials"), (500, "does not answer"), (503, "does not answer")]
)
async def test_a_store_that_refuses_or_fails_is_unavailable_and_its_words_are_kept_from_users(status, told):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        backend = ObjectStore(s3_store(address, "bucket", retry_config=NO_RETRY))
        for operation in (lambda: backend.read_range(some_key(), 0, 10), lambda: put(backend, some_key(), b"small")):
            with pytest.raises(DependencyUnavailable, match=told) as caught:
                await operation()
            assert "secret" not in caught.value.detail

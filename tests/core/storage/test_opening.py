import asyncio

import pytest

from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.errors import ConfigurationError, DependencyUnavailable
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.settings import Settings
from mlops_platform.core.storage.local_files import LocalFiles
from mlops_platform.core.storage.object_store import ObjectStore
from mlops_platform.core.storage.opening import open_blob_store
from tests.core.storage.conftest import CREDENTIALS

RING = KeyRing([bytes(range(32))])


async def round_trip(store):
    async def content():
        yield b"content"

    blob = await store.write(ProjectId(new_id()), content(), max_bytes=100)
    return b"".join([chunk async for chunk in await store.read(blob)])


async def test_without_a_url_blobs_lie_under_the_home(tmp_path):
    store = open_blob_store(Settings(home=tmp_path), RING)
    assert await round_trip(store) == b"content"
    assert len(list((tmp_path / "blobs" / "projects").rglob("*/blobs/*/*"))) == 1


async def test_a_file_url_names_a_directory_with_escapes(tmp_path):
    store = open_blob_store(Settings(home=tmp_path, storage_url=f"file://{tmp_path}/with%20space"), RING)
    assert await round_trip(store) == b"content"
    assert (tmp_path / "with space" / "projects").is_dir()


async def test_an_s3_url_with_an_endpoint_and_keys_works(tmp_path, s3_endpoint, s3_client):
    bucket = f"bucket-{new_id()}"
    s3_client.create_bucket(Bucket=bucket)
    settings = Settings(
        home=tmp_path,
        storage_url=f"s3://{bucket}/deep/prefix",
        storage_s3_endpoint=s3_endpoint,
        storage_s3_access_key_id=CREDENTIALS["aws_access_key_id"],
        minio_root_password=CREDENTIALS["aws_secret_access_key"],
    )
    store = open_blob_store(settings, RING)
    await store.check()
    assert await round_trip(store) == b"content"
    (found,) = s3_client.list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Key"].startswith("deep/prefix/projects/")


async def test_a_store_that_is_away_is_said_to_be_within_seconds(tmp_path):
    settings = Settings(
        home=tmp_path,
        storage_url="s3://bucket",
        storage_s3_endpoint="http://127.0.0.1:1",
        storage_s3_access_key_id="key",
        minio_root_password="secret",
    )
    async with asyncio.timeout(10):
        with pytest.raises(DependencyUnavailable):
            await open_blob_store(settings, RING).check()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/path",
        "file://",
        "file:///",
        "file://host/path",
        "s3://",
        "http://bucket/x",
        "memory://",
        "gs:bucket",
        "ftp://a/b",
    ],
)
def test_any_other_url_is_refused_by_name(tmp_path, url):
    with pytest.raises(ConfigurationError, match="MLOPS_STORAGE_URL"):
        open_blob_store(Settings(home=tmp_path, storage_url=url), RING)


def test_half_a_pair_of_s3_keys_is_refused(tmp_path):
    settings = Settings(home=tmp_path, storage_url="s3://bucket", storage_s3_access_key_id="key", minio_root_password=None)
    with pytest.raises(ConfigurationError, match="MINIO_ROOT_PASSWORD"):
        open_blob_store(settings, RING)


def test_encryption_without_a_key_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="MLOPS_STORAGE_KEY"):
        open_blob_store(Settings(home=tmp_path), None)


async def test_encryption_can_be_switched_off(tmp_path):
    store = open_blob_store(Settings(home=tmp_path, storage_encryption=False), None)
    assert await round_trip(store) == b"content"


def test_cloud_urls_choose_their_store(tmp_path):
    for url in ("gs://bucket/prefix", "s3://bucket"):
        store = open_blob_store(Settings(home=tmp_path, storage_url=url), RING)
        assert isinstance(store._backend, ObjectStore)
    assert isinstance(open_blob_store(Settings(home=tmp_path), RING)._backend, LocalFiles)

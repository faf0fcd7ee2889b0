"""Which object store the settings mean."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.settings import Settings
from mlops_platform.core.storage.backend import ObjectBackend
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.local_files import LocalFiles
from mlops_platform.core.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config  # these exist for type checkers alone

# A store that is away must be said so within seconds, not after the minutes that are the library's default.
_RETRY: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}


def open_blob_store(settings: Settings, key_ring: KeyRing | None) -> BlobStore:
    """The blob store that the settings name. Without `storage_encryption` the ring still opens what was sealed before."""
    if settings.storage_encryption and key_ring is None:
        raise ConfigurationError("MLOPS_STORAGE_KEY is not set, and MLOPS_STORAGE_ENCRYPTION is on.")
    return BlobStore(_open_backend(settings), key_ring, encrypt=settings.storage_encryption)


def _open_backend(settings: Settings) -> ObjectBackend:
    if settings.storage_url is None:
        return LocalFiles(settings.home / "blobs")
    url = urlsplit(settings.storage_url)
    prefix = url.path.strip("/") or None
    match url.scheme:
        case "file":
            return LocalFiles(_local_root(url))
        case "s3" if url.netloc:
            return ObjectStore(_s3(settings, url.netloc, prefix))
        case "gs" if url.netloc:
            return ObjectStore(GCSStore(url.netloc, prefix=prefix, client_options=_client(None), retry_config=_RETRY))
        case "az" if url.netloc:
            return ObjectStore(AzureStore(url.netloc, prefix=prefix, client_options=_client(None), retry_config=_RETRY))
        case _:
            raise ConfigurationError(
                f"MLOPS_STORAGE_URL: {settings.storage_url!r} is not file:///path, s3://bucket/prefix, "
                "gs://bucket/prefix or az://container/prefix."
            )


def _local_root(url: SplitResult) -> Path:
    root = Path(unquote(url.path))
    if url.netloc not in {"", "localhost"} or not root.is_absolute() or root == Path("/"):
        raise ConfigurationError(f"MLOPS_STORAGE_URL: {url.geturl()!r} must name an absolute directory, as file:///path.")
    return root


def _s3(settings: Settings, bucket: str, prefix: str | None) -> S3Store:
    endpoint, secret = settings.storage_s3_endpoint, settings.minio_root_password
    key_id = settings.storage_s3_access_key_id
    if (key_id is None) != (secret is None):
        raise ConfigurationError("MLOPS_STORAGE_S3_ACCESS_KEY_ID and MINIO_ROOT_PASSWORD go together: set both or none.")
    config: S3Config = {"region": settings.storage_s3_region}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if key_id is not None and secret is not None:
        config["access_key_id"], config["secret_access_key"] = key_id, secret.get_secret_value()
    return S3Store(bucket, prefix=prefix, config=config, client_options=_client(endpoint), retry_config=_RETRY)


def _client(endpoint: str | None) -> "ClientConfig":
    return {
        "allow_http": endpoint is not None and endpoint.lower().startswith("http://"),
        "connect_timeout": "3s",
        "timeout": "60s",
    }

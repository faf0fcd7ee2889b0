"""What can go wrong when stored bytes are opened."""

from mlops_platform.core.errors import PlatformError


class BlobCorrupt(PlatformError):
    """Stored bytes are not what was written: changed, cut, extended, reordered, or put in another's place."""

    status = 500
    code = "blob_corrupt"
    title = "Stored content is damaged"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, hint="None of the damaged bytes were sent. Restore the content from a backup.")


class BlobKeyUnavailable(PlatformError):
    """The key-encryption key that a blob names is not in the ring of this process."""

    status = 500
    code = "blob_key_unavailable"
    title = "The key of stored content is not available"

"""What can go wrong between the database and the object store."""

from mlops_platform.core.errors import Conflict, PlatformError


class BlobMissing(PlatformError):
    """The database knows the blob and the object store does not."""

    status = 500
    code = "blob_missing"
    title = "Stored content is missing"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The object store has no object {key!r}, which the database refers to.",
            hint="Restore the object store from the backup that belongs to the database.",
        )


class BlobExpired(Conflict):
    """Content that was uploaded and not used within the sweeper's grace."""

    code = "upload_expired"

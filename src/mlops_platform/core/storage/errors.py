"""What can go wrong between the database and the object store."""

from mlops_platform.core.errors import Conflict, InvalidInput, NotFound, PlatformError


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


class ChecksumMismatch(InvalidInput):
    """The content is not what its digest promised."""

    code = "checksum_mismatch"
    title = "The content does not match its checksum"

    @classmethod
    def between(cls, promised: str, actual: str) -> "ChecksumMismatch":
        """The one sentence for it."""
        return cls(
            f"The content has the SHA-256 {actual}, and {promised} was promised: it was damaged on the way.",
            hint="Nothing was kept. Upload it again.",
        )


class UploadNotFound(NotFound):
    """No upload in parts with this id is under way for the caller."""

    code = "upload_not_found"
    title = "Upload not found"

    @classmethod
    def of(cls, upload_id: str) -> "UploadNotFound":
        """The one sentence for it."""
        return cls(f"No upload {upload_id[:60]!r} is under way.", hint="Begin it again: parts that were sent are found.")


class UploadIncomplete(Conflict):
    """Parts are missing."""

    code = "upload_incomplete"
    title = "The upload is not complete"


class UploadFinished(Conflict):
    """The parts have become one content already."""

    code = "upload_finished"
    title = "The upload is finished"

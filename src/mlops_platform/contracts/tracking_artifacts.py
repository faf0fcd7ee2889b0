"""Wire types of artifacts beyond one request each: uploads in parts, and previews."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlops_platform.contracts.common import Answer, Contract, Id, JsonValue, Timestamp

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 in 64 lowercase hex digits.")]
LEAST_PART_BYTES = 1024 * 1024
MOST_PART_BYTES = 1024 * 1024 * 1024


class ArtifactUploadCreate(Contract):
    """What is to be stored, and where. The server chooses the size of the parts unless `part_bytes` says it."""

    path: Annotated[str, Field(min_length=1, max_length=1024, examples=["model/weights.bin"])]
    sha256: Annotated[Sha256, Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]
    size: Annotated[int, Field(ge=0, lt=2**62, examples=[104_857_600])]
    content_type: Annotated[str, Field(max_length=200, examples=["application/octet-stream"])] | None = None
    part_bytes: Annotated[int, Field(ge=LEAST_PART_BYTES, le=MOST_PART_BYTES)] | None = None


class UploadedPart(Answer):
    """A part that the server has."""

    number: int
    size: int
    sha256: str


class ArtifactUpload(Answer):
    """An upload in parts. Part `n` is the bytes from `(n - 1) * part_bytes`; only the last may be shorter.

    `is_known`: the project holds this content where the caller may read it, so that no part needs to be sent.
    """

    id: Id
    path: str
    sha256: str
    size: int
    content_type: str
    part_bytes: int
    parts: int
    received: list[UploadedPart]
    is_known: bool = False
    is_finished: bool = False
    created_at: Timestamp
    forgotten_at: Timestamp


class PreviewKind(StrEnum):
    """What can be shown of a file without opening it: `none` says that nothing can."""

    TEXT = "text"
    JSON = "json"
    TABLE = "table"
    IMAGE = "image"
    NONE = "none"


class PreviewColumn(Answer):
    """A column of a table; the type is null where the format has none."""

    name: str
    type: str | None = None


class ArtifactPreview(Answer):
    """The beginning of a file, as what it is by its content. `is_cut`: there is more than is shown."""

    path: str
    size: int
    sha256: str
    kind: PreviewKind
    is_cut: bool = False
    text: str | None = None
    columns: list[PreviewColumn] | None = None
    rows: list[list[JsonValue]] | None = None
    row_count: int | None = None
    media_type: str | None = None
    reason: str | None = None

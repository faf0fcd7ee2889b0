"""What the blob store asks of a place that keeps bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mlops_platform.core.crypto.blob_format import BlobAddress

_KEY = re.compile(r"projects/[0-9a-f]{32}/blobs/[0-9a-f]{2}/[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Where an object lies. Minted from ids of the server; no text that a client gave can become one."""

    path: str

    def __post_init__(self) -> None:
        if _KEY.fullmatch(self.path) is None:
            raise ValueError(f"{self.path!r} is not a storage key.")

    @classmethod
    def of(cls, address: BlobAddress) -> "ObjectKey":
        """The key of a blob. Folders go by the end of the id: its beginning is the time, alike for years."""
        return cls(f"projects/{address.project_id}/blobs/{address.blob_id[-2:]}/{address.blob_id}")


@dataclass(frozen=True, slots=True)
class StoredRange:
    """Bytes of an object, and the size of the whole object at that moment."""

    data: bytes
    object_size: int


class Upload(Protocol):
    """One object on its way in. Invisible until `commit` returns; `abort` leaves nothing, whatever happened before."""

    async def write(self, pieces: Sequence[bytes]) -> None: ...

    async def commit(self) -> None: ...

    async def abort(self) -> None: ...


class ObjectBackend(Protocol):
    """A place that keeps objects. `tests/conformance/object_backend.py` is what each one must pass.

    A store that is away is `DependencyUnavailable`, one that is full `StorageFull`, an absent object `BlobMissing`.
    """

    @property
    def window_bytes(self) -> int:
        """How much one `read_range` should ask for: larger where each request costs a round trip."""
        ...

    def upload(self, key: ObjectKey, *, largest: int) -> Upload:
        """Begin an object that will not exceed `largest` bytes."""
        ...

    async def read_range(self, key: ObjectKey, start: int, end: int) -> StoredRange:
        """Bytes `start` up to, not including, `end`; fewer when the object ends before."""
        ...

    async def size(self, key: ObjectKey) -> int | None:
        """The size of an object, or None when it is absent."""
        ...

    async def delete(self, key: ObjectKey) -> None:
        """Remove an object; an absent one is no error."""
        ...

    async def sweep(self, before: datetime) -> int:
        """Remove what uploads that died before that moment have left, and say how many."""
        ...

    async def check(self) -> None:
        """Raise when the store cannot be used now."""
        ...

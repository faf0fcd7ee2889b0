"""The `Range` request header (RFC 9110, section 14): one range of bytes."""

import re
from dataclasses import dataclass

from mlops_platform.core.errors import RangeNotSatisfiable

# Longer than any range that names two 64-bit positions; what is longer is not worth looking at.
_MAX_LENGTH = 64
_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Content bytes `start` up to, not including, `end`, of `size`."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        """The value of the `Content-Range` header of a 206."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range that a request asks for, or None when the whole content is to be sent.

    A header that is absent, malformed, in another unit or names several ranges is ignored, as RFC 9110 allows: the answer
    is then a 200. A well-formed range without a single byte of the content is `RangeNotSatisfiable`.
    """
    if header is None or len(header) > _MAX_LENGTH:
        return None
    found = _ONE_RANGE.fullmatch(header)
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiable(
            f"The range {header!r} names no byte of content that has {size} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return ByteRange(start, end, size)

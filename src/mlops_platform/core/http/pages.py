"""Keyset pages: a token says where the last page ended, so page 1,000 costs what page 1 costs."""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Query, Request

from mlops_platform.contracts.common import Page
from mlops_platform.core.errors import InvalidInput

DEFAULT_PAGE_SIZE = 100
_TAG_BYTES = 8

Row = TypeVar("Row")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """How many items, and the keys after which they start (None for the first page)."""

    size: int
    after: tuple[Any, ...] | None
    key: bytes

    def answer(
        self,
        rows: Sequence[Row],
        to_item: Callable[[Row], Item],
        keys: Callable[[Row], tuple[Any, ...]],
    ) -> Page[Item]:
        """The page out of `size + 1` rows: the extra row only says that there is another page."""
        shown = rows[: self.size]
        last = keys(shown[-1]) if len(rows) > self.size else None
        return Page(items=[to_item(row) for row in shown], next_page_token=self.token(last))

    def token(self, last: tuple[Any, ...] | None) -> str | None:
        """What leads to the items after these keys; None when there are no more."""
        return None if last is None else encode_token(self.key, last)


def pages_of(most: int | None = None) -> Callable[..., Awaitable[PageRequest]]:
    """The dependency that reads `page_size` and `page_token`; `most` for lists of items so small that more are fine."""

    async def page_request(
        request: Request,
        page_size: Annotated[
            int, Query(ge=1, description="Items per page; the server may have a lower limit.")
        ] = DEFAULT_PAGE_SIZE,
        page_token: Annotated[
            str | None, Query(max_length=2000, description="`next_page_token` of the page before.")
        ] = None,
    ) -> PageRequest:
        runtime = request.app.state.runtime
        limit = most or runtime.settings.max_page_size
        if page_size > limit and "page_size" not in request.query_params:
            page_size = limit
        if page_size > limit:
            raise InvalidInput.of("page_size", f"must be at most {limit}", page_size)
        # Bound to the list: the keys of one list mean nothing in another, and may not even be of its types.
        key = hmac.digest(runtime.auth_keys.pepper, b"page of " + request.url.path.encode(), "sha256")
        return PageRequest(page_size, decode_token(key, page_token) if page_token else None, key)

    return page_request


PageOf = Annotated[PageRequest, Depends(pages_of())]


def encode_token(key: bytes, values: tuple[Any, ...]) -> str:
    """An opaque token. Signed, so that nobody builds one by hand and depends on its form."""
    payload = msgspec.msgpack.encode(values)
    return base64.urlsafe_b64encode(_tag(key, payload) + payload).rstrip(b"=").decode()


def decode_token(key: bytes, token: str) -> tuple[Any, ...]:
    """The values of a token of ours; `InvalidInput` for anything else."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        tag, payload = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if hmac.compare_digest(tag, _tag(key, payload)):
            return tuple(msgspec.msgpack.decode(payload))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        pass
    raise InvalidInput.of(
        "page_token", "is not a token of this list", token[:40], hint="Use next_page_token as it was given."
    )


def _tag(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, b"page" + payload, "sha256")[:_TAG_BYTES]

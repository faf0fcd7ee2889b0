# Generated from sdk/_async/listing.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""A list that the server gives page by page: read as it is consumed, shown in a notebook, or taken whole as a table."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

from mlops_platform.contracts import notebook
from mlops_platform.sdk import frames
from mlops_platform.sdk._sync import backend

T = TypeVar("T")
SHOWN = 20


class Listing(Generic[T]):
    """Found things, in order. Iterating reads page by page, once; `all` and the tables read anew from the beginning."""

    def __init__(self, pages: Callable[[], Iterator[T]]) -> None:
        self._pages = pages
        self._iterator = pages()
        self._shown: list[T] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self._iterator.__next__()
        if len(self._shown) < SHOWN:
            self._shown.append(item)
        return item

    def all(self) -> list[T]:
        """Everything, as a list."""
        return self.head(None)

    def head(self, count: int | None = SHOWN) -> list[T]:
        """The first ones."""
        found: list[T] = []
        if count is not None and count < 1:
            return found
        for item in self._pages():
            found.append(item)
            if len(found) == count:
                break
        return found

    def to_arrow(self) -> Any:
        """Everything as a table of pyarrow; nested values become columns such as `params.lr` and `metrics.loss`."""
        return frames.as_arrow(frames.to_columns(self.all()))

    def to_pandas(self) -> Any:
        """Everything as a frame of pandas."""
        return frames.as_pandas(frames.to_columns(self.all()))

    def to_polars(self) -> Any:
        """Everything as a frame of polars."""
        return frames.as_polars(frames.to_columns(self.all()))

    def _repr_html_(self) -> str:
        rows = self._shown or backend.now(self.head) or []
        note = f"the first {SHOWN}" if len(rows) >= SHOWN else "" if rows else "nothing has been read yet"
        return notebook.table([frames.flat(item) for item in rows], note=note)

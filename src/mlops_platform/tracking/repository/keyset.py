"""The one condition of keyset pages."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, literal, tuple_


def beyond(columns: Sequence[ColumnElement[Any]], place: Sequence[Any], *, descending: bool = False) -> ColumnElement[bool]:
    """Rows that come after a place: a comparison of rows, which an index on the columns serves as one range."""
    # A tuple gives its elements no types of its own, and the driver would guess.
    given = tuple_(*(literal(value, column.type) for value, column in zip(place, columns, strict=True)))
    condition: ColumnElement[bool] = tuple_(*columns) < given if descending else tuple_(*columns) > given
    return condition

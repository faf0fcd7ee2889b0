"""What a filter may speak of: the attributes and collections of one kind of thing, and the type of each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from mlops_platform.core.query.tree import Comparator, Value

EARLIEST_MILLISECOND = 0
LATEST_MILLISECOND = 253_402_300_799_999


class Type(StrEnum):
    """The type of a field, worded for messages."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    ID = "id"
    ANY = "value of any type"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; `choices` closes the set of texts it may be compared with (any case)."""

    type: Type
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """A set of free keys, all of one type. `summaries` are figures kept for each key beside its value.

    A key of a collection that `takes_labels` may name a context, as in `loss{split=val}`. `keys` closes the set. A thing
    has several values of each key of a collection that is `many`: one of them has to match, and they give no order.
    """

    type: Type
    summaries: tuple[str, ...] = ()
    takes_labels: bool = False
    keys: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names of one kind of thing. `aliases` map other spellings of a name to it."""

    attributes: Mapping[str, Attribute]
    collections: Mapping[str, Collection]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def known(self) -> str:
        """What may stand at the start of a comparison, for messages."""
        return ", ".join([*sorted(self.attributes), *(f"{name}.<key>" for name in sorted(self.collections))])


class Mismatch(ValueError):
    """A value or a comparison that does not fit the field. The parser adds the place."""


def fit(value: Value, attribute: Attribute, comparator: Comparator | None = None) -> Value:
    """The literal as the field wants it, or `Mismatch`."""
    if isinstance(value, float) and math.isnan(value) and comparator not in {None, Comparator.EQ, Comparator.NE}:
        raise Mismatch("NaN has no order; only = and != compare with it")
    match attribute.type:
        case Type.NUMBER:
            return _number(value)
        case Type.TIME:
            return _time(value)
        case Type.TEXT | Type.ID:
            return _text(value, attribute)
        case Type.ANY:
            if isinstance(value, bool) and comparator not in {None, Comparator.EQ, Comparator.NE}:
                raise Mismatch("true and false have no order; only = and != compare with them")
            return value


def _number(value: Value) -> Value:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mismatch(f"is compared with a number, not with {_spell(value)}")
    return float(value)


def _text(value: Value, attribute: Attribute) -> Value:
    if not isinstance(value, str):
        raise Mismatch(f"is compared with a text in quotes, not with {_spell(value)}")
    if not attribute.choices:
        return value
    for choice in attribute.choices:
        if choice.upper() == value.upper():
            return choice
    raise Mismatch(f"is one of {', '.join(attribute.choices)}, never {_spell(value)}")


def _time(value: Value) -> Value:
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
        except ValueError:
            raise Mismatch(f"is compared with a time such as '2026-01-31T09:00:00Z', not with {_spell(value)}") from None
        try:
            return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
        except OverflowError:
            raise Mismatch(f"is compared with a time that lies outside the calendar: {_spell(value)}") from None
    if isinstance(value, int) and not isinstance(value, bool) and EARLIEST_MILLISECOND <= value <= LATEST_MILLISECOND:
        return datetime.fromtimestamp(value / 1000, UTC)
    raise Mismatch(f"is compared with a time in quotes or in milliseconds since 1970, not with {_spell(value)}")


def _spell(value: Value) -> str:
    return repr(value if not isinstance(value, str) else value[:60])

"""The tree that a filter is parsed into. Values only: each service turns it into its own SQL."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

Value = str | int | float | bool | datetime
"""A literal, already of the type that its field wants."""


class Comparator(StrEnum):
    """The six comparisons."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclass(frozen=True, slots=True)
class Field:
    """What is compared or ordered by: an attribute (`collection` is None), or one key of a collection.

    `summary` names one of the figures kept for the key (`metrics.loss.min`); None is the plain value.
    `column` is where it stands in the text, from 1.
    """

    name: str
    collection: str | None = None
    summary: str | None = None
    column: int = 1

    @property
    def identity(self) -> tuple[str | None, str, str | None]:
        """What makes two mentions the same field, wherever they stand."""
        return self.collection, self.name, self.summary


@dataclass(frozen=True, slots=True)
class Compare:
    """`field comparator value`."""

    field: Field
    comparator: Comparator
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """`field [NOT] IN (values)`."""

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    """`field [NOT] LIKE pattern`, with `%` and `_`; ILIKE ignores case."""

    field: Field
    pattern: str
    ignores_case: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsNull:
    """`field IS [NOT] NULL`: the key or the attribute is absent."""

    field: Field
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """The complement: `NOT a = 1` also holds where `a` is absent."""

    term: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    """All of at least two terms. A chain is one node, so that depth counts parentheses and not words."""

    terms: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of at least two terms."""

    terms: tuple["Expression", ...]


Expression = Compare | OneOf | Like | IsNull | Not | And | Or


@dataclass(frozen=True, slots=True)
class Order:
    """One key of an ordering."""

    field: Field
    descending: bool = False


def fields_of(expression: Expression | None) -> list[Field]:
    """Every field that an expression mentions, in reading order."""
    match expression:
        case None:
            return []
        case And(terms) | Or(terms):
            return [field for term in terms for field in fields_of(term)]
        case Not(term):
            return fields_of(term)
        case _:
            return [expression.field]

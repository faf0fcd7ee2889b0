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

    `labels` tell series of one key apart (`metrics.loss{split=val}`), by name. `summary` names one of the figures kept for
    the key (`metrics.loss.min`); None is the plain value. `column` is where it stands in the text, from 1.
    """

    name: str
    collection: str | None = None
    summary: str | None = None
    column: int = 1
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def identity(self) -> tuple[str | None, str, str | None, tuple[tuple[str, str], ...]]:
        """What makes two mentions the same field, wherever they stand."""
        return self.collection, self.name, self.summary, self.labels


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


class Operator(StrEnum):
    """The four operations."""

    PLUS = "+"
    MINUS = "-"
    TIMES = "*"
    DIVIDE = "/"


@dataclass(frozen=True, slots=True)
class Number:
    """A number within an arithmetic expression."""

    value: float


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left operator right`. Absent when a part is, or when the right side of a division is zero."""

    operator: Operator
    left: "Term"
    right: "Term"


Term = Field | Number | Arithmetic
"""What has a number as its value."""


@dataclass(frozen=True, slots=True)
class CompareTerms:
    """`term comparator term`: an arithmetic expression, or two fields, compared as numbers."""

    left: Term
    comparator: Comparator
    right: Term


@dataclass(frozen=True, slots=True)
class TermIsNull:
    """`term IS [NOT] NULL` of an arithmetic expression."""

    term: Term
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


Expression = Compare | OneOf | Like | IsNull | CompareTerms | TermIsNull | Not | And | Or


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
        case CompareTerms(left, _, right):
            return fields_of_term(left) + fields_of_term(right)
        case TermIsNull(number):
            return fields_of_term(number)
        case _:
            return [expression.field]


def fields_of_term(term: Term) -> list[Field]:
    """Every field of an arithmetic expression, in reading order."""
    match term:
        case Field():
            return [term]
        case Arithmetic(_, left, right):
            return fields_of_term(left) + fields_of_term(right)
        case _:
            return []

"""Filters, orders and keyset pages over things that are few: experiments, logged models. Runs have `repository.search`."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, false, or_, true

from mlops_platform.core.query.tree import And, Comparator, Compare, Expression, Field, IsNull, Like, OneOf, Order
from mlops_platform.tracking.domain.search import METRICS, PARAMS, TAGS

Column = ColumnElement[Any]
Condition = ColumnElement[bool]
Leaf = Compare | OneOf | Like | IsNull
_COMPARE: Mapping[Comparator, Callable[[Any, Any], Any]] = {
    Comparator.EQ: operator.eq,
    Comparator.NE: operator.ne,
    Comparator.LT: operator.lt,
    Comparator.LE: operator.le,
    Comparator.GT: operator.gt,
    Comparator.GE: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a table's rows are found and ordered by. Tags and parameters are JSON objects of the row."""

    columns: Mapping[str, Column]
    tags: Column
    params: Column | None = None
    # How a comparison with a metric, and the value that an order is by, are written where there are metrics.
    on_metric: Callable[[str, Callable[[Column], Condition]], Condition] | None = None
    metric: Callable[[str], Column] | None = None

    def condition(self, tree: Expression | None) -> Condition:
        """The whole filter: comparisons, all of which must hold. What is absent never matches."""
        match tree:
            case None:
                return true()
            case And(terms):
                return and_(*(self.condition(term) for term in terms))
            case Compare() | OneOf() | Like() | IsNull():
                return self._leaf(tree)
            case _:
                return false()

    def page(
        self, statement: Select[Any], order: Sequence[Order], *, limit: int, after: Sequence[Any] | None = None
    ) -> Select[Any]:
        """The next rows. Each row carries where it is in the order as `k0`, `k1`, ...; what is absent comes last."""
        keys = [(self._column(each.field), each.descending) for each in order]
        statement = statement.add_columns(*(column.label(f"k{number}") for number, (column, _) in enumerate(keys)))
        for column, descending in keys:
            is_absent = case((column.is_(None), 1), else_=0)
            statement = statement.order_by(is_absent, column.desc() if descending else column.asc())
        if after is not None:
            statement = statement.where(_beyond(keys, after))
        return statement.limit(limit)

    def _leaf(self, leaf: Leaf) -> Condition:
        if leaf.field.collection == METRICS:
            return (
                false() if self.on_metric is None else self.on_metric(leaf.field.name, lambda value: matches(leaf, value))
            )
        column = self._column(leaf.field)
        if isinstance(leaf, IsNull):
            return column.is_not(None) if leaf.negated else column.is_(None)
        return and_(column.is_not(None), matches(leaf, column))

    def _column(self, of: Field) -> Column:
        if of.collection == TAGS:
            return _member(self.tags, of.name)
        if of.collection == PARAMS and self.params is not None:
            return _member(self.params, of.name)
        if of.collection == METRICS and self.metric is not None:
            return self.metric(of.name)
        return self.columns[of.name]


def matches(leaf: Leaf, column: Column) -> Condition:
    """A comparison with a value that is there."""
    found: Condition
    match leaf:
        case Compare(_, comparator, value):
            found = _COMPARE[comparator](column, value)
            return found
        case OneOf(_, values, negated):
            return column.not_in(values) if negated else column.in_(values)
        case Like(_, pattern, ignores_case, _):
            return column.ilike(pattern, escape="") if ignores_case else column.like(pattern, escape="")
        case _:
            return column.is_not(None)


def place_of(row: Any) -> tuple[Any, ...]:
    """Where a row is in the order of its page."""
    keys = [name for name in row._fields if name[0] == "k" and name[1:].isdigit()]
    return tuple(getattr(row, name) for name in keys)


def _member(column: Column, key: str) -> Column:
    member: Column = column[key].astext
    return member


def _beyond(keys: Sequence[tuple[Column, bool]], after: Sequence[Any]) -> Condition:
    (column, descending), value = keys[0], after[0]
    rest = _beyond(keys[1:], after[1:]) if len(keys) > 1 else false()
    if value is None:
        return and_(column.is_(None), rest)
    further: Condition = column < value if descending else column > value
    return or_(column.is_(None), further, and_(column == value, rest))

"""The tree of a filter as SQL conditions on `runs`. Two-valued: a comparison with what is absent is false, never NULL."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    FromClause,
    Text,
    and_,
    case,
    cast,
    exists,
    extract,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from mlops_platform.core.identity import Principal
from mlops_platform.core.query.tree import (
    And,
    Arithmetic,
    Comparator,
    Compare,
    CompareTerms,
    Expression,
    Field,
    IsNull,
    Like,
    Not,
    Number,
    OneOf,
    Operator,
    Or,
    Term,
    TermIsNull,
    Value,
)
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.domain.search import BEST, DATASETS, METRICS, PARAMS, TAGS, metric_key
from mlops_platform.tracking.tables import (
    SORTED_LENGTH,
    datasets,
    experiments,
    run_inputs,
    run_metrics,
    run_params,
    run_tags,
    runs,
)

NAN = math.nan
SUMMARY_COLUMNS = {"last": "last_value", "min": "min_value", "max": "max_value", "count": "count"}
Column = ColumnElement[Any]
Condition = ColumnElement[bool]
Leaf = Compare | OneOf | Like | IsNull

ATTRIBUTES: Mapping[str, Column] = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "status": runs.c.status,
    "user": runs.c.user_name,
    "start_time": runs.c.start_time,
    "end_time": runs.c.end_time,
    "created_at": runs.c.created_at,
    "updated_at": runs.c.updated_at,
    "duration_seconds": cast(extract("epoch", runs.c.end_time - runs.c.start_time), Double),
    "parent_run_id": runs.c.parent_run_id,
    "experiment_id": runs.c.experiment_id,
    "group": runs.c.group_name,
    "artifact_uri": select(
        func.coalesce(experiments.c.artifact_location, func.concat("mlflow-artifacts:/", experiments.c.number))
        + literal("/")
        + func.replace(cast(runs.c.id, Text), "-", "")
        + literal("/artifacts")
    )
    .where(experiments.c.id == runs.c.experiment_id)
    .correlate(runs)
    .scalar_subquery(),
}
NEVER_NULL = frozenset({"run_id", "run_name", "status", "created_at", "updated_at", "experiment_id", "artifact_uri"})
IDS = frozenset({"run_id", "parent_run_id", "experiment_id"})
OPERATORS: Mapping[Comparator, Callable[[Any, Any], Any]] = {
    Comparator.EQ: operator.eq,
    Comparator.NE: operator.ne,
    Comparator.LT: operator.lt,
    Comparator.LE: operator.le,
    Comparator.GT: operator.gt,
    Comparator.GE: operator.ge,
}
_FUNCTIONS = func.tracking
TABLES: Mapping[str, Any] = {METRICS: run_metrics, PARAMS: run_params, TAGS: run_tags}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a condition is written for.

    `key_ids` are the numbers of the metric keys; `goals` say for each name and experiment which values are better. `joined`
    holds the tables that the statement joins for one key already (None: it takes only runs that lack the key), so that a
    condition on that key needs no look-up of its own.
    """

    principal: Principal
    key_ids: Mapping[str, int]
    joined: Mapping[tuple[str, str], FromClause | None] = field(default_factory=dict)
    goals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def place_of(self, field: Field) -> tuple[str, str]:
        """Collection and key; the key of a metric holds its context."""
        return str(field.collection), metric_key(field) if field.collection == METRICS else field.name

    def row_of(self, collection: str, key: str, table: FromClause) -> Condition:
        """The condition that a row of a collection's table is the one of this run and key."""
        same_key = table.c.key_id == self.key_ids.get(key, 0) if collection == METRICS else table.c.key == key
        return and_(
            table.c.project_id == self.principal.project,
            table.c.experiment_id == runs.c.experiment_id,
            same_key,
            table.c.run_id == runs.c.id,
        )


def condition(tree: Expression | None, scope: Scope) -> Condition:
    """The whole filter."""
    match tree:
        case None:
            return true()
        case And(terms):
            return and_(*(condition(term, scope) for term in terms))
        case Or(terms):
            return or_(*(condition(term, scope) for term in terms))
        case Not(term):
            return not_(condition(term, scope))
        case CompareTerms() | TermIsNull():
            return _on_terms(tree, scope)
        case _:
            return _leaf(tree, scope)


def term_value(term: Term, scope: Scope) -> Column:
    """The number that an arithmetic expression is for a run, or NULL. Its functions never fail: see migration 0008."""
    match term:
        case Number(value):
            return literal(value, Double)
        case Arithmetic(operator, left, right):
            return _compute(operator, term_value(left, scope), term_value(right, scope))
        case _:
            return _number_of(term, scope)


def _compute(operator: Operator, left: Column, right: Column) -> Column:
    match operator:
        case Operator.PLUS:
            return _FUNCTIONS.plus(left, right, type_=Double)
        case Operator.MINUS:
            return _FUNCTIONS.plus(left, -right, type_=Double)
        case Operator.TIMES:
            return _FUNCTIONS.times(left, right, type_=Double)
        case Operator.DIVIDE:
            return _FUNCTIONS.divide(left, right, type_=Double)


def _number_of(field: Field, scope: Scope) -> Column:
    if field.collection is None:
        return ATTRIBUTES[field.name]
    place = scope.place_of(field)
    if place in scope.joined:
        table = scope.joined[place]
        return literal(None, Double) if table is None else _number_in(field, table, scope)
    table = TABLES[place[0]].alias()
    # One row at most, since run and key are the primary key.
    return select(_number_in(field, table, scope)).where(scope.row_of(*place, table)).scalar_subquery()


def _number_in(field: Field, table: FromClause, scope: Scope) -> Column:
    if field.collection != METRICS:
        return table.c.number
    value = value_of(field, table, scope)
    return cast(value, Double) if field.summary == "count" else value


def _on_terms(tree: CompareTerms | TermIsNull, scope: Scope) -> Condition:
    """NaN equals itself and has no order. What is absent satisfies nothing."""
    if isinstance(tree, TermIsNull):
        value = term_value(tree.term, scope)
        return value.is_not(None) if tree.negated else value.is_(None)
    left, right = term_value(tree.left, scope), term_value(tree.right, scope)
    compared = OPERATORS[tree.comparator](left, right)
    if tree.comparator not in {Comparator.EQ, Comparator.NE}:
        compared = and_(compared, left < NAN, right < NAN)
    return func.coalesce(compared, false())


def value_of(field: Field, table: FromClause, scope: Scope) -> Column:
    """What a key of a collection is compared by: the value, or the summary that was asked for."""
    if field.summary == BEST:
        return _best(scope.goals.get(field.name, {}), table)
    if field.collection != METRICS:
        return table.c.value if field.collection == TAGS else table.c.text
    if field.summary == "mean":
        return table.c.total / func.nullif(table.c.count - table.c.nan_count, 0)
    return table.c[SUMMARY_COLUMNS[field.summary or "last"]]


def _leaf(leaf: Leaf, scope: Scope) -> Condition:
    if isinstance(leaf, IsNull) and not leaf.negated:
        return not_(_leaf(IsNull(leaf.field, negated=True), scope))
    if leaf.field.collection is None:
        return _on_attribute(leaf)
    if leaf.field.collection == DATASETS:
        return _on_dataset(leaf, scope)
    place = scope.place_of(leaf.field)
    if place in scope.joined:
        table = scope.joined[place]
        return false() if table is None else _on_row(leaf, table, scope)
    table = TABLES[leaf.field.collection].alias()
    return exists().where(scope.row_of(*place, table), _on_row(leaf, table, scope))


def _best(goals: Mapping[str, str], table: FromClause) -> Column:
    """The smallest or the greatest value, by the goal of the run's experiment; absent where none is declared."""
    columns = (("minimize", table.c.min_value), ("maximize", table.c.max_value))
    return case(
        *(
            (table.c.experiment_id.in_([id_ for id_, goal in goals.items() if goal == wanted]), column)
            for wanted, column in columns
        )
    )


def _on_dataset(leaf: Leaf, scope: Scope) -> Condition:
    """Any of the datasets that the run read."""
    read, data = run_inputs.alias(), datasets.alias()
    column = read.c.context if leaf.field.name == "context" else data.c[leaf.field.name]
    matches = column.is_not(None) if isinstance(leaf, IsNull) else _on_value(leaf, column)
    both = read.join(data, data.c.id == read.c.dataset_id)
    mine = and_(read.c.project_id == scope.principal.project, read.c.run_id == runs.c.id)
    return exists(select(read.c.run_id).select_from(both).where(mine, matches).correlate(runs))


def _on_attribute(leaf: Leaf) -> Condition:
    column = ATTRIBUTES[leaf.field.name]
    if isinstance(leaf, IsNull):
        return true() if leaf.field.name in NEVER_NULL else column.is_not(None)
    found = _on_id(leaf, column) if leaf.field.name in IDS else _on_value(leaf, column)
    return found if leaf.field.name in NEVER_NULL else and_(column.is_not(None), found)


def _on_id(leaf: Compare | OneOf | Like, column: Column) -> Condition:
    values = leaf.values if isinstance(leaf, OneOf) else (leaf.value,) if isinstance(leaf, Compare) else ("",)
    if all(is_id(str(value)) for value in values):
        return _on_value(leaf, column)
    return _on_value(leaf, func.replace(cast(column, Text), "-", ""))


def _on_row(leaf: Leaf, table: FromClause, scope: Scope) -> Condition:
    column = value_of(leaf.field, table, scope)
    if isinstance(leaf, IsNull):
        return column.is_not(None)
    match leaf.field.collection:
        case "metrics":
            return and_(column.is_not(None), _on_number(leaf, column))
        case "params":
            return _on_param(leaf, table)
        case _:
            return _on_text(leaf, column)


def _on_param(leaf: Compare | OneOf | Like, table: FromClause) -> Condition:
    if isinstance(leaf, OneOf):
        matches = or_(*(_equals_param(value, table) for value in leaf.values))
        return not_(matches) if leaf.negated else matches
    if isinstance(leaf, Like):
        return _on_text(leaf, table.c.text)
    if leaf.comparator in {Comparator.EQ, Comparator.NE}:
        matches = _equals_param(leaf.value, table)
        return matches if leaf.comparator is Comparator.EQ else not_(matches)
    if isinstance(leaf.value, str):
        return and_(table.c.number.is_(None), _on_text(leaf, table.c.text))
    return and_(table.c.number.is_not(None), _compare(leaf, table.c.number))


def _equals_param(value: Value, table: FromClause) -> Condition:
    if isinstance(value, bool):
        return and_(table.c.kind == "bool", _same_text(table.c.text, "true" if value else "false"))
    if isinstance(value, int | float):
        return and_(table.c.number.is_not(None), table.c.number == float(value))
    return _same_text(table.c.text, str(value))


def _same_text(column: Column, value: str) -> Condition:
    """Equality, with its first characters beside it, which is what the index holds."""
    return and_(func.left(column, SORTED_LENGTH) == value[:SORTED_LENGTH], column == value)


def _on_text(leaf: Compare | OneOf | Like, column: Column) -> Condition:
    match leaf:
        case Compare(_, Comparator.EQ, value):
            return _same_text(column, str(value))
        case OneOf(_, values, negated=False):
            return or_(*(_same_text(column, str(value)) for value in values))
        case _:
            return _on_value(leaf, column)


def _on_number(leaf: Compare | OneOf | Like, column: Column) -> Condition:
    """PostgreSQL sorts NaN above everything; here it is neither greater nor less than a number."""
    found = _on_value(leaf, column)
    if isinstance(leaf, Compare) and leaf.comparator in {Comparator.GT, Comparator.GE}:
        return and_(found, column < NAN)
    return found


def _on_value(leaf: Compare | OneOf | Like, column: Column) -> Condition:
    match leaf:
        case Compare():
            return _compare(leaf, column)
        case OneOf(_, values, negated):
            return column.not_in(values) if negated else column.in_(values)
        case Like(_, pattern, ignores_case, negated):
            # ESCAPE '' : a backslash is a backslash, so that no pattern can end in half an escape.
            found = column.ilike(pattern, escape="") if ignores_case else column.like(pattern, escape="")
            return not_(found) if negated else found


def _compare(leaf: Compare, column: Column) -> Condition:
    compared: Condition = OPERATORS[leaf.comparator](column, leaf.value)
    return compared

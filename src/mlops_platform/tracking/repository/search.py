"""Run search: which runs, in which order, from which place on. Answers ids; `repository.runs` reads the rows.

A page starts at one place of one index. What an order is by may be absent or NaN, and those come last in both
directions: an outer join cannot walk an index in that order, so the first key of an order is asked for in sections
(values, then NaN or texts, then the runs without it), each a plain range of an index, one after the other until the page
is full. Later keys only break ties and are sorted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)

from mlops_platform.contracts.tracking import DeletedFilter
from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.identity import Principal
from mlops_platform.core.query.tree import Field, Order
from mlops_platform.tracking.domain.search import AS_TEXT, METRICS, PARAMS, Question, metric_key
from mlops_platform.tracking.repository.conditions import ATTRIBUTES, NAN, NEVER_NULL, TABLES, Scope, condition, value_of
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, current, readable
from mlops_platform.tracking.repository.keyset import beyond
from mlops_platform.tracking.repository.metrics import key_ids
from mlops_platform.tracking.tables import SORTED_LENGTH, experiments, runs

Column = ColumnElement[Any]
Condition = ColumnElement[bool]
VALUES, SPECIALS, ABSENT = 0, 1, 2
TEXT_ATTRIBUTES = frozenset({"run_name"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the section and value of each key of the order, and the run."""

    keys: tuple[tuple[int, Any], ...]
    run_id: str

    def wire(self) -> tuple[Any, ...]:
        """Flat, for a token."""
        return (self.run_id, *(part for key in self.keys for part in key))

    @classmethod
    def read(cls, values: Sequence[Any]) -> "Place":
        """The other way round."""
        return cls(tuple(zip(values[1::2], values[2::2], strict=True)), values[0])


@dataclass(frozen=True, slots=True)
class Search:
    """Everything that decides which runs are found."""

    question: Question
    experiment_ids: tuple[str, ...] = ()
    goals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    deleted: DeletedFilter = DeletedFilter.EXCLUDE
    # Experiments whose runs all count as deleted, whatever is said of each.
    deleted_experiments: tuple[str, ...] = ()


_CUSTOM_PLANS = select(func.set_config("plan_cache_mode", "force_custom_plan", true()))


async def find(
    session: ReadSession, principal: Principal, search: Search, *, limit: int, after: Place | None = None
) -> list[Place]:
    """The next `limit` runs."""
    scope = Scope(principal, await key_ids(session, principal, search.question.metric_keys), goals=search.goals)
    found: list[Place] = []
    first = after.keys[0][0] if after and after.keys else VALUES
    async with session.together():
        # A plan for any parameters, on which PostgreSQL would settle, does not know how rare these ones are.
        await session.scalar(_CUSTOM_PLANS)
        for section in _sections(search.question.order, scope):
            if section < first or len(found) >= limit:
                continue
            place = after if section == first else None
            statement = _Page(search, scope, section).statement(limit - len(found), place)
            found += [_place(row) for row in await session.all(statement)]
    return found


def _place(row: Row[Any]) -> Place:
    run_id, parts = row[0], row[1:]
    keys: Iterator[tuple[int, Any, Any]] = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return Place(tuple((section, special if section == SPECIALS else value) for section, value, special in keys), run_id)


def _sections(order: tuple[Order, ...], scope: Scope) -> tuple[int, ...]:
    if not order:
        return (VALUES,)
    field = order[0].field
    if field.collection is None:
        return (VALUES,) if field.name in NEVER_NULL else (VALUES, ABSENT)
    if field.collection == METRICS and metric_key(field) not in scope.key_ids:
        return (ABSENT,)
    has_specials = field.collection == METRICS or _is_typed(field)
    return (VALUES, SPECIALS, ABSENT) if has_specials else (VALUES, ABSENT)


def _is_typed(field: Field) -> bool:
    """A parameter whose numbers come first, in their order, and then its texts."""
    return field.collection == PARAMS and field.summary != AS_TEXT


class _Key:
    """One key of the order: its table, if it has one, and how its section and value are read."""

    def __init__(self, order: Order, number: int, scope: Scope) -> None:
        self.scope = scope
        self.field = order.field
        self.descending = order.descending
        self.is_first = number == 0
        self.table: FromClause | None = None
        if self.field.collection is not None:
            self.table = TABLES[self.field.collection].alias(f"o{number}")

    def section(self) -> Column:
        """The section of a row, when the key is not the first."""
        if self.table is None:
            return case((ATTRIBUTES[self.field.name].is_(None), ABSENT), else_=VALUES)
        if _is_typed(self.field):
            return case((self.table.c.key.is_(None), ABSENT), (self.table.c.number.is_(None), SPECIALS), else_=VALUES)
        value = value_of(self.field, self.table, self.scope)
        if self.field.collection == METRICS:
            return case((value.is_(None), ABSENT), (value == NAN, SPECIALS), else_=VALUES)
        return case((value.is_(None), ABSENT), else_=VALUES)

    def value(self, section: int) -> Column | None:
        """What a section is ordered by; None when all of it is alike."""
        if section == ABSENT or (section == SPECIALS and not _is_typed(self.field)):
            return None
        if self.table is None:
            return _attribute(self.field)
        if _is_typed(self.field):
            return self.table.c.number if section == VALUES else self._param_text(self.table)
        value = value_of(self.field, self.table, self.scope)
        return value if self.field.collection == METRICS else func.left(value, SORTED_LENGTH)

    def _param_text(self, table: FromClause) -> Column:
        """Numbers have a text as well, by which 1 and 1.0 would be no tie; the first key's section holds none."""
        found = func.left(table.c.text, SORTED_LENGTH)
        return found if self.is_first else case((table.c.number.is_(None), found))

    def belongs(self, section: int) -> Condition:
        """The condition that a row, joined inside, lies in a section. Written so that an index range can serve it."""
        if self.table is None:
            column = ATTRIBUTES[self.field.name]
            if self.field.name in NEVER_NULL:
                return true()
            return column.is_(None) if section == ABSENT else column.is_not(None)
        if _is_typed(self.field):
            return self.table.c.number.is_not(None) if section == VALUES else self.table.c.number.is_(None)
        if self.field.collection == METRICS:
            value = value_of(self.field, self.table, self.scope)
            return value < NAN if section == VALUES else value == NAN
        return true()

    def directed(self, column: Column) -> ColumnElement[Any]:
        return column.desc() if self.descending else column.asc()

    def beyond(self, column: Column, value: Any) -> Condition:
        further: Condition = column < value if self.descending else column > value
        return further


def _attribute(field: Field) -> Column:
    # Ids sort by the time of their making, and there is an index on them.
    if field.name == "created_at":
        return runs.c.id
    column = ATTRIBUTES[field.name]
    return func.left(column, SORTED_LENGTH) if field.name in TEXT_ATTRIBUTES else column


class _Page:
    """One statement: the runs of one section of the first key."""

    def __init__(self, search: Search, scope: Scope, section: int) -> None:
        self.search = search
        self.section = section
        self.keys = [_Key(order, number, scope) for number, order in enumerate(search.question.order)]
        self.scope = replace(scope, joined=self._joined(scope))

    def _joined(self, scope: Scope) -> dict[tuple[str, str], FromClause | None]:
        """The first key's table stands for conditions on the same key, too: inside, or known to be absent."""
        first = self.keys[0] if self.keys else None
        if first is None or first.field.collection is None:
            return {}
        place = scope.place_of(first.field)
        if self.section != ABSENT:
            return {place: first.table}
        # A summary can be absent (every value was NaN) where the key is present.
        return {} if first.field.summary else {place: None}

    @property
    def descending(self) -> bool:
        """The tie-break follows the last key, so that one key and the run are one range of an index."""
        return self.keys[-1].descending if self.keys else True

    @property
    def tie(self) -> Column:
        """The run, named by the table whose index gives the order: a range cannot begin at a column of another table."""
        first = self.keys[0].table if self.keys else None
        return runs.c.id if first is None or self.section == ABSENT else first.c.run_id

    def statement(self, limit: int, after: Place | None) -> Select[Any]:
        """The page, over one experiment directly, over several by asking each for its own page."""
        ids = self.search.experiment_ids
        if len(ids) == 1 and self.scope.principal.name_patterns(EXPERIMENTS_READ) is None:
            return self._within(literal(ids[0], runs.c.experiment_id.type), limit, after)
        several = visible_to(self.scope.principal, experiments).with_only_columns(experiments.c.id)
        several = several.where(readable(self.scope.principal))
        several = several.where(experiments.c.id.in_(ids)) if ids else several.where(*current())
        outer = several.subquery("several")
        inner = self._within(outer.c.id, limit, after).lateral("inner_page")
        statement = select(*inner.c).select_from(outer.join(inner, true()))
        return statement.order_by(*self._order_of(inner)).limit(limit)

    def _within(self, experiment: Column, limit: int, after: Place | None) -> Select[Any]:
        statement = (
            select(runs.c.id.label("id"), *self._columns())
            .select_from(self._tables())
            .where(
                in_project(self.scope.principal, runs), runs.c.experiment_id == experiment, *self._conditions(experiment)
            )
        )
        if after is not None:
            statement = statement.where(self._after(after))
        return statement.order_by(*self._order()).limit(limit)

    def _tables(self) -> FromClause:
        joined: FromClause = runs
        for number, key in enumerate(self.keys):
            if key.table is None or (number == 0 and self.section == ABSENT):
                continue
            on = self.scope.row_of(*self.scope.place_of(key.field), key.table)
            joined = joined.join(key.table, on, isouter=number > 0)
        return joined

    def _conditions(self, experiment: Column) -> list[Condition]:
        wanted = [condition(self.search.question.tree, self.scope)]
        match self.search.deleted:
            case DeletedFilter.EXCLUDE:
                wanted.append(runs.c.deleted_at.is_(None))
            case DeletedFilter.ONLY:
                gone = runs.c.experiment_id.in_(self.search.deleted_experiments)
                wanted.append(or_(runs.c.deleted_at.is_not(None), gone))
        if self.keys:
            wanted.append(self._in_section(self.keys[0], experiment))
        return wanted

    def _in_section(self, first: _Key, experiment: Column) -> Condition:
        if first.table is None:
            return first.belongs(self.section)
        if self.section != ABSENT:
            # Said of this table as well, although the join implies it, since the index begins with it.
            return and_(first.belongs(self.section), first.table.c.experiment_id == experiment)
        field = first.field
        if field.collection == METRICS and metric_key(field) not in self.scope.key_ids:
            return true()
        place = self.scope.place_of(field)
        other = TABLES[place[0]].alias("absent")
        present = exists().where(self.scope.row_of(*place, other), value_of(field, other, self.scope).is_not(None))
        return not_(present)

    def _columns(self) -> list[Column]:
        """Three a key: its section, its value there, and what takes the value's place in the section of specials."""
        columns: list[Column] = []
        for number, key in enumerate(self.keys):
            section = literal(self.section) if number == 0 else key.section()
            values = [key.value(each) if number > 0 or each == self.section else None for each in (VALUES, SPECIALS)]
            columns.append(section.label(f"s{number}"))
            columns += [
                (literal(None) if value is None else value).label(f"{name}{number}")
                for name, value in zip("vw", values, strict=True)
            ]
        return columns

    def _order(self) -> list[ColumnElement[Any]]:
        order: list[ColumnElement[Any]] = []
        for number, key in enumerate(self.keys):
            if number > 0:
                order.append(key.section().asc())
            sections = [self.section] if number == 0 else [VALUES, SPECIALS]
            values = [key.value(section) for section in sections]
            order += [key.directed(value) for value in values if value is not None]
        return [*order, self.tie.desc() if self.descending else self.tie.asc()]

    def _order_of(self, inner: FromClause) -> list[ColumnElement[Any]]:
        order: list[ColumnElement[Any]] = []
        for number, key in enumerate(self.keys):
            order.append(inner.c[f"s{number}"].asc())
            order += [key.directed(inner.c[f"{name}{number}"]) for name in "vw"]
        return [*order, inner.c.id.desc() if self.descending else inner.c.id.asc()]

    def _after(self, place: Place) -> Condition:
        """Strictly after the place, key by key."""
        if not self.keys:
            return self.tie < place.run_id
        value = self.keys[0].value(self.section)
        if value is None:
            return self._after_rest(1, place)
        at = place.keys[0][1]
        if len(self.keys) == 1:
            return beyond((value, self.tie), (at, place.run_id), descending=self.descending)
        # The first condition follows from the second; it is what an index range can start at.
        reached = value <= at if self.keys[0].descending else value >= at
        further = self.keys[0].beyond(value, at)
        return and_(reached, or_(further, and_(value == at, self._after_rest(1, place))))

    def _after_rest(self, number: int, place: Place) -> Condition:
        if number == len(self.keys):
            return self.tie < place.run_id if self.descending else self.tie > place.run_id
        key = self.keys[number]
        section, at = place.keys[number]
        value = key.value(section)
        rest = self._after_rest(number + 1, place)
        alike = rest if value is None else or_(key.beyond(value, at), and_(value == at, rest))
        return or_(key.section() > section, and_(key.section() == section, alike))

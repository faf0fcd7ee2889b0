"""What a search over runs may speak of, and where a page of it ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.core.query.errors import QueryError
from mlops_platform.core.query.parser import parse_filter, parse_order
from mlops_platform.core.query.tree import Expression, Field, Order, fields_of
from mlops_platform.core.query.vocabulary import Attribute, Collection, Type, Vocabulary
from mlops_platform.tracking.domain.keys import make_key

METRICS = "metrics"
PARAMS = "params"
TAGS = "tags"
DATASETS = "datasets"
AS_TEXT = "text"
"""A parameter's text, where an order is by texts even of those that are numbers."""
BEST = "best"
SUMMARIES = ("last", "min", "max", "mean", "count", BEST)

RUNS = Vocabulary(
    attributes={
        "run_id": Attribute(Type.ID),
        "run_name": Attribute(Type.TEXT),
        "status": Attribute(Type.TEXT, choices=tuple(RunStatus)),
        "user": Attribute(Type.TEXT),
        "start_time": Attribute(Type.TIME),
        "end_time": Attribute(Type.TIME),
        "created_at": Attribute(Type.TIME),
        "updated_at": Attribute(Type.TIME),
        "duration_seconds": Attribute(Type.NUMBER),
        "parent_run_id": Attribute(Type.ID),
        "experiment_id": Attribute(Type.ID),
        "group": Attribute(Type.TEXT),
    },
    collections={
        METRICS: Collection(Type.NUMBER, summaries=SUMMARIES, takes_labels=True),
        PARAMS: Collection(Type.ANY),
        TAGS: Collection(Type.TEXT),
        DATASETS: Collection(Type.TEXT, keys=("name", "digest", "context"), many=True),
    },
    aliases={
        "metric": METRICS,
        "param": PARAMS,
        "parameter": PARAMS,
        "parameters": PARAMS,
        "tag": TAGS,
        "dataset": DATASETS,
        "id": "run_id",
        "name": "run_name",
        "user_id": "user",
        "created": "start_time",
        "duration": "duration_seconds",
        "parent": "parent_run_id",
        "run_group": "group",
    },
)


@dataclass(frozen=True, slots=True)
class Question:
    """A search that has been read: the tree of its filter, and its order."""

    tree: Expression | None
    order: tuple[Order, ...]
    texts: tuple[str, ...] = ()
    """The filter and each key of the order as they were written, for messages."""

    @property
    def mentioned(self) -> list[tuple[Field, int]]:
        """Every field, and in which of the texts it stands."""
        ordering = [(key.field, number) for number, key in enumerate(self.order, start=1)]
        return [*((field, 0) for field in fields_of(self.tree)), *ordering]

    @property
    def metric_keys(self) -> set[str]:
        """The metrics that the search mentions."""
        return {metric_key(field) for field, _ in self.mentioned if field.collection == METRICS}

    @property
    def names_with_goal(self) -> set[str]:
        """The metrics whose best value is asked for."""
        return {field.name for field, _ in self.mentioned if field.summary == BEST}


def metric_key(field: Field) -> str:
    """The key of a metric as it is stored."""
    return make_key(field.name, field.labels)


def check_goals(question: Question, declared: Mapping[str, Mapping[str, str]]) -> None:
    """Raise `QueryError` at a best value of which nobody said what is better."""
    for field, number in question.mentioned:
        if field.summary == BEST and not declared.get(field.name):
            raise QueryError(
                f"{field.name!r} has no best value, because no experiment that is searched declares its goal: "
                f'PUT /api/experiments/{{id}}/metrics/{field.name}/goal {{"goal": "minimize"}}, or ask for .min or .max',
                text=question.texts[number],
                column=field.column,
                source="filter" if number == 0 else f"order_by[{number - 1}]",
            )


def read_question(text: str, order_by: Sequence[str]) -> Question:
    """Parse both parts. Raises `QueryError` with the column."""
    order = tuple(parse_order(key, RUNS, source=f"order_by[{index}]") for index, key in enumerate(order_by))
    seen: set[Any] = set()
    for index, key in enumerate(order):
        if key.field.identity in seen:
            raise QueryError("orders by the same field twice", text=order_by[index], column=1, source=f"order_by[{index}]")
        seen.add(key.field.identity)
    return Question(parse_filter(text, RUNS), order, (text, *order_by))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which parameters, metrics and tags a search answers. None of a kind is everything of it."""

    params: frozenset[str] | None = None
    metrics: frozenset[str] | None = None
    tags: frozenset[str] | None = None


def read_selection(fields: Sequence[str] | None) -> Selection:
    """`metrics.accuracy` keeps one key, `metrics` all of them; kinds that are not named are left out.

    >>> read_selection(["metrics.accuracy", "params"])
    Selection(params=None, metrics=frozenset({'accuracy'}), tags=frozenset())
    """
    if fields is None:
        return Selection()
    kept: dict[str, set[str]] = {PARAMS: set(), METRICS: set(), TAGS: set()}
    whole: set[str] = set()
    for index, text in enumerate(fields):
        kind = RUNS.aliases.get(text.lower(), text.lower())
        if kind in kept:
            whole.add(kind)
            continue
        field = parse_order(text, RUNS, source=f"fields[{index}]").field
        if field.collection in kept:
            kept[field.collection].add(_plain_key(field))
    return Selection(*(None if kind in whole else frozenset(kept[kind]) for kind in (PARAMS, METRICS, TAGS)))


def _plain_key(field: Field) -> str:
    if field.labels:
        return metric_key(field)
    return f"{field.name}.{field.summary}" if field.summary else field.name

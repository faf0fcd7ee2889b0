"""What a search over runs may speak of, and where a page of it ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.core.query.errors import QueryError
from mlops_platform.core.query.parser import parse_filter, parse_order
from mlops_platform.core.query.tree import Expression, Field, Order, fields_of
from mlops_platform.core.query.vocabulary import Attribute, Collection, Type, Vocabulary

METRICS = "metrics"
PARAMS = "params"
TAGS = "tags"
DATASETS = "datasets"
AS_TEXT = "text"
"""A parameter's text, where an order is by texts even of those that are numbers."""
SUMMARIES = ("last", "min", "max", "mean", "count")

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
    },
    collections={
        METRICS: Collection(Type.NUMBER, summaries=SUMMARIES),
        PARAMS: Collection(Type.ANY),
        TAGS: Collection(Type.TEXT),
    },
    aliases={
        "metric": METRICS,
        "param": PARAMS,
        "parameter": PARAMS,
        "parameters": PARAMS,
        "tag": TAGS,
        "id": "run_id",
        "name": "run_name",
        "user_id": "user",
        "created": "start_time",
        "duration": "duration_seconds",
        "parent": "parent_run_id",
    },
)


@dataclass(frozen=True, slots=True)
class Question:
    """A search that has been read: the tree of its filter, and its order."""

    tree: Expression | None
    order: tuple[Order, ...]

    @property
    def metric_keys(self) -> set[str]:
        """The metrics that the search mentions."""
        mentioned = [*fields_of(self.tree), *(key.field for key in self.order)]
        return {field.name for field in mentioned if field.collection == METRICS}


def read_question(text: str, order_by: Sequence[str]) -> Question:
    """Parse both parts. Raises `QueryError` with the column."""
    order = tuple(parse_order(key, RUNS, source=f"order_by[{index}]") for index, key in enumerate(order_by))
    seen: set[tuple[str | None, str, str | None]] = set()
    for index, key in enumerate(order):
        if key.field.identity in seen:
            raise QueryError("orders by the same field twice", text=order_by[index], column=1, source=f"order_by[{index}]")
        seen.add(key.field.identity)
    return Question(parse_filter(text, RUNS), order)


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
    return f"{field.name}.{field.summary}" if field.summary else field.name

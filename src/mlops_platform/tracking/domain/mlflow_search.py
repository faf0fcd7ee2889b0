"""MLflow's filters and orders, read into the tree of our own search.

The grammar is a subset: comparisons joined by AND, keys in back-ticks or double quotes, values in quotes. What MLflow
means by them stays: a text is compared with texts, also where a parameter reads as a number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from mlops_platform.core.query.lexer import Token, TokenKind, tokenize
from mlops_platform.core.query.tree import And, Comparator, Compare, Expression, Field, IsNull, Like, OneOf, Order, Value
from mlops_platform.tracking.domain.mlflow_rules import INTEGERS, LATEST_MILLISECOND, PARENT_RUN, RUN_NAME
from mlops_platform.tracking.domain.search import AS_TEXT, DATASETS, METRICS, PARAMS, TAGS, Question
from mlops_platform.tracking.errors import MlflowInvalid

MAX_TERMS = 200
MAX_ORDER_KEYS = 10
MAX_VALUES = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SYMBOLS = {"<>": Comparator.NE, **{str(each): each for each in Comparator}}
_NUMERIC = frozenset({">", ">=", "=", "!=", "<", "<="})
_EQUAL = frozenset({"=", "!="})
_TEXTS = _EQUAL | {"LIKE", "ILIKE"}
_LISTS = frozenset({"IN", "NOT IN"})
_NULLS = frozenset({"IS NULL", "IS NOT NULL"})


class Kind(Enum):
    """How a field's values are written and compared."""

    NUMBER = auto()
    TIME = auto()
    INTEGER_TEXT = auto()
    TEXT = auto()


@dataclass(frozen=True, slots=True)
class Target:
    """What a name of MLflow's stands for: a field of ours, and the comparisons that MLflow knows for it."""

    name: str
    kind: Kind
    comparators: frozenset[str]


_TEXT = _TEXTS | _LISTS
_COLLECTIONS: Mapping[str, Target] = {
    METRICS: Target(METRICS, Kind.NUMBER, _NUMERIC),
    PARAMS: Target(PARAMS, Kind.TEXT, _TEXTS | _NULLS),
    TAGS: Target(TAGS, Kind.TEXT, _TEXTS | _NULLS),
}
_DATASET_KEYS = ("context", "digest", "name")
_PREFIXES = {
    **dict.fromkeys(("metric", "metrics"), METRICS),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), PARAMS),
    **dict.fromkeys(("tag", "tags"), TAGS),
    **dict.fromkeys(("dataset", "datasets"), DATASETS),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), ""),
}


@dataclass(frozen=True, slots=True)
class Language:
    """What may be asked of one kind of thing."""

    attributes: Mapping[str, Target]
    collections: frozenset[str]
    # Keys of collections that are fields of ours.
    own: Mapping[tuple[str, str], str]


RUNS = Language(
    attributes={
        "run_id": Target("run_id", Kind.TEXT, _TEXT),
        **dict.fromkeys(("run_name", "run name", "Run name", "Run Name"), Target("run_name", Kind.TEXT, _TEXTS)),
        "status": Target("status", Kind.TEXT, _TEXTS),
        "user_id": Target("user", Kind.TEXT, _TEXTS),
        "artifact_uri": Target("artifact_uri", Kind.TEXT, _TEXTS),
        **dict.fromkeys(("start_time", "created", "Created"), Target("start_time", Kind.TIME, _NUMERIC)),
        "end_time": Target("end_time", Kind.TIME, _NUMERIC),
    },
    collections=frozenset({METRICS, PARAMS, TAGS, DATASETS}),
    own={(TAGS, PARENT_RUN): "parent_run_id", (TAGS, RUN_NAME): "run_name"},
)
EXPERIMENTS = Language(
    attributes={
        "name": Target("name", Kind.TEXT, _TEXTS),
        "experiment_id": Target("number", Kind.INTEGER_TEXT, _EQUAL | _LISTS),
        "creation_time": Target("created_at", Kind.TIME, _NUMERIC),
        "last_update_time": Target("updated_at", Kind.TIME, _NUMERIC),
    },
    collections=frozenset({TAGS}),
    own={},
)
MODELS = Language(
    attributes={
        "name": Target("name", Kind.TEXT, _TEXT),
        "model_id": Target("model_id", Kind.TEXT, _TEXT),
        "model_type": Target("model_type", Kind.TEXT, _TEXT),
        "status": Target("status", Kind.TEXT, _TEXT),
        "source_run_id": Target("source_run_id", Kind.TEXT, _TEXT),
        **dict.fromkeys(
            ("creation_time", "creation_timestamp", "creation_timestamp_ms"), Target("created_at", Kind.TIME, _NUMERIC)
        ),
        **dict.fromkeys(("last_updated_timestamp", "last_updated_timestamp_ms"), Target("updated_at", Kind.TIME, _NUMERIC)),
    },
    collections=frozenset({METRICS, PARAMS, TAGS}),
    own={},
)
_NEWEST_START = Order(Field("start_time"), descending=True)


def read_runs(text: str, order_by: Sequence[str]) -> Question:
    """A search over runs. What the given order leaves open, the time of the start decides, newest first."""
    order = read_order(order_by, RUNS)
    if not any(key.field.identity == _NEWEST_START.field.identity for key in order):
        order = (*order, _NEWEST_START)
    return Question(read_filter(text, RUNS), order)


def read_filter(text: str, language: Language) -> Expression | None:
    """The tree of a filter; None for an empty one."""
    reader = _Reader(text, language, "filter")
    if reader.is_at_end():
        return None
    terms = [reader.comparison()]
    while not reader.is_at_end():
        if reader.next().keyword != "AND":
            raise reader.clause(reader.tokens[reader.position - 1])
        terms.append(reader.comparison())
        if len(terms) > MAX_TERMS:
            raise MlflowInvalid(f"Invalid filter: it holds more than {MAX_TERMS} comparisons.")
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def read_order(clauses: Sequence[str], language: Language) -> tuple[Order, ...]:
    """Each is `field [ASC | DESC]`."""
    if len(clauses) > MAX_ORDER_KEYS:
        raise MlflowInvalid(f"`order_by` has {len(clauses)} fields; at most {MAX_ORDER_KEYS} are possible.")
    order = tuple(_order(clause, language) for clause in clauses)
    if len({key.field.identity for key in order}) < len(order):
        raise MlflowInvalid(f"`order_by` contains duplicate fields: {list(clauses)}")
    return order


def _order(clause: str, language: Language) -> Order:
    reader = _Reader(clause, language, "order_by")
    field, _ = reader.field()
    if field.collection == DATASETS:
        raise MlflowInvalid(f"Invalid order_by clause '{clause[:200]}': datasets give no order.")
    if field.collection == PARAMS:
        field = Field(field.name, PARAMS, summary=AS_TEXT)
    direction = reader.here.keyword
    if direction in {"ASC", "DESC"}:
        reader.next()
    if not reader.is_at_end():
        raise MlflowInvalid(f"Invalid order_by clause '{clause[:200]}'. Could not be parsed.")
    return Order(field, descending=direction == "DESC")


def _signed(tokens: list[Token]) -> list[Token]:
    """MLflow has no arithmetic: a sign right before a number is the number's."""
    found: list[Token] = []
    for token in tokens:
        sign = found.pop() if found else None
        if sign is None or not _is_sign_of(sign, token):
            found += [token] if sign is None else [sign, token]
            continue
        value = sign.value.removeprefix("+") + token.value
        found.append(Token(TokenKind.NUMBER, value, sign.written + token.written, sign.column))
    return found


def _is_sign_of(sign: Token, number: Token) -> bool:
    is_sign = sign.kind is TokenKind.ARITHMETIC and sign.value in {"+", "-"}
    return is_sign and number.kind is TokenKind.NUMBER and sign.column + 1 == number.column


class _Reader:
    """One text, token by token."""

    def __init__(self, text: str, language: Language, source: str) -> None:
        self.language = language
        self.source = source
        self.tokens = _signed(tokenize(text, source=source))
        self.position = 0

    @property
    def here(self) -> Token:
        return self.tokens[self.position]

    def is_at_end(self) -> bool:
        return self.here.kind is TokenKind.END

    def next(self) -> Token:
        token = self.here
        if token.kind is not TokenKind.END:
            self.position += 1
        return token

    def clause(self, token: Token) -> MlflowInvalid:
        return MlflowInvalid(
            f"Invalid clause(s) in filter string: '{token.written[:60]}' at column {token.column}. "
            "Comparisons are joined by AND; OR, NOT and parentheses are not part of MLflow's language."
        )

    def comparison(self) -> Expression:
        start = self.here
        if start.kind is not TokenKind.WORD or start.keyword:
            raise self.clause(start)
        field, target = self.field()
        comparator = self.comparator()
        if comparator not in target.comparators:
            raise MlflowInvalid(
                f"Invalid comparator '{comparator}' not one of '{sorted(target.comparators)}' at column {start.column}"
            )
        if comparator in _NULLS:
            return IsNull(field, negated=comparator == "IS NOT NULL")
        if comparator in _LISTS:
            return OneOf(field, self.values(field, target), negated=comparator == "NOT IN")
        value = self.value(field, target)
        if comparator in {"LIKE", "ILIKE"}:
            return Like(field, str(value), ignores_case=comparator == "ILIKE")
        return Compare(field, Comparator(comparator), value)

    def comparator(self) -> str:
        token = self.next()
        if token.kind is TokenKind.OPERATOR:
            if token.value not in _SYMBOLS:
                raise MlflowInvalid(f"Invalid comparator '{token.value}' at column {token.column}")
            return str(_SYMBOLS[token.value])
        words = [token.keyword]
        if token.keyword == "IS":
            words += [self.next().keyword]
            words += [self.next().keyword] if words[-1] == "NOT" else []
        elif token.keyword == "NOT":
            words += [self.next().keyword]
        found = " ".join(word or "?" for word in words)
        if found not in _NULLS | _LISTS | {"LIKE", "ILIKE"}:
            raise MlflowInvalid(
                f"Invalid comparison clause. Expected comparison found '{token.written[:60]}' at column {token.column}"
            )
        return found

    def field(self) -> tuple[Field, Target]:
        start = self.next()
        if start.kind not in {TokenKind.WORD, TokenKind.KEY, TokenKind.QUOTED}:
            raise MlflowInvalid(f"Invalid identifier {start.written[:60]!r} at column {start.column}.")
        if self.here.value != "." or self.here.kind is not TokenKind.PUNCTUATION:
            return self.attribute(start.value)
        self.next()
        prefix = _PREFIXES.get(start.value)
        if prefix is None or (prefix and prefix not in self.language.collections):
            raise MlflowInvalid(
                f"Invalid entity type '{start.value[:60]}'. Valid values are "
                f"{['attribute', *sorted(each.removesuffix('s') for each in self.language.collections)]}"
            )
        key = self.key()
        if prefix == "":
            return self.attribute(key)
        return self.keyed(prefix, key)

    def keyed(self, collection: str, key: str) -> tuple[Field, Target]:
        if collection == DATASETS:
            if key not in _DATASET_KEYS:
                raise MlflowInvalid(f"Invalid dataset key '{key[:60]}' specified. Valid keys are '{_DATASET_KEYS}'")
            return Field(key, DATASETS), Target(key, Kind.TEXT, _TEXT)
        own = self.language.own.get((collection, key))
        return (Field(own) if own else Field(key, collection)), _COLLECTIONS[collection]

    def attribute(self, name: str) -> tuple[Field, Target]:
        target = self.language.attributes.get(name)
        if target is None:
            raise MlflowInvalid(
                f"Invalid attribute key '{name[:60]}' specified. Valid keys are '{sorted(self.language.attributes)}'"
            )
        return Field(target.name), target

    def key(self) -> str:
        token = self.next()
        if token.kind in {TokenKind.KEY, TokenKind.QUOTED}:
            return token.value
        parts = [self.part(token)]
        while self.here.kind is TokenKind.PUNCTUATION and self.here.value == ".":
            self.next()
            parts.append(self.part(self.next()))
        return ".".join(parts)

    def part(self, token: Token) -> str:
        if token.kind is TokenKind.WORD or (token.kind is TokenKind.NUMBER and token.value.isdigit()):
            return token.value
        raise MlflowInvalid(
            f"Invalid identifier: expected a key at column {token.column}, found {token.written[:60]!r}; "
            "put keys with other characters in back-ticks."
        )

    def values(self, field: Field, target: Target) -> tuple[Value, ...]:
        if field.collection is None and target.name == "run_name":
            raise MlflowInvalid("Only ['run_id'] attributes support comparison with a list of quoted string values.")
        opening = self.next()
        found: list[Value] = []
        while opening.value == "(" and (not found or self.here.value == ","):
            if found:
                self.next()
            found.append(self.value(field, target))
            if len(found) > MAX_VALUES:
                raise MlflowInvalid(f"A list of values holds more than {MAX_VALUES}.")
        if not found or self.next().value != ")":
            raise MlflowInvalid(
                "While parsing a list in the query, expected a non-empty list of string values in parentheses at column "
                f"{opening.column}"
            )
        return tuple(found)

    def value(self, field: Field, target: Target) -> Value:
        token = self.next()
        return _VALUES[target.kind](token, field.name)


def _number(token: Token, name: str) -> Value:
    if token.kind is not TokenKind.NUMBER:
        raise MlflowInvalid(
            f"Expected numeric value type for metric or numeric attribute: {name[:60]}. Found "
            f"{token.written[:60]} at column {token.column}"
        )
    return float(token.value)


def _time(token: Token, name: str) -> Value:
    given = float(_number(token, name))  # type: ignore[arg-type]  # a number is what it gives
    return _EPOCH + timedelta(milliseconds=min(max(given, -1.0), float(LATEST_MILLISECOND)))


def _text(token: Token, name: str) -> Value:
    if token.kind is not TokenKind.QUOTED:
        raise MlflowInvalid(
            f"Expected a quoted string value for {name[:60]} (e.g. 'my-value'). Got value {token.written[:60]} at column "
            f"{token.column}"
        )
    return token.value


def _integer(token: Token, name: str) -> Value:
    text = str(_text(token, name))
    if not text.isascii() or not text.isdigit() or int(text[:20]) not in INTEGERS:
        raise MlflowInvalid(f"Invalid experiment ID '{text[:60]}'. Experiment ID must be a valid integer.")
    return int(text)


_VALUES: Mapping[Kind, Callable[[Token, str], Value]] = {
    Kind.NUMBER: _number,
    Kind.TIME: _time,
    Kind.TEXT: _text,
    Kind.INTEGER_TEXT: _integer,
}


def quoted_field(name: str, language: Language) -> Field:
    """A field as an order of logged models names it: a metric's key stands as it is, whatever is in it."""
    prefix, dot, key = name.partition(".")
    if not dot:
        target = language.attributes.get(name)
        if target is None:
            raise MlflowInvalid(f"Invalid order by field name: {name[:100]}")
        return Field(target.name)
    collection = _PREFIXES.get(prefix)
    if collection is None or collection not in language.collections:
        raise MlflowInvalid(f"Invalid order by field name: {name[:100]}. Only metrics are supported.")
    return Field(key, collection)

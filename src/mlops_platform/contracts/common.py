"""What every wire type shares: strictness, names, ids, times, pages, problems."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
)
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ID_PATTERN = r"^[0-9a-f]{32}$"
MAX_INTEGER = 2**63 - 1
MAX_JSON_DEPTH = 16
MAX_JSON_ITEMS = 10_000
LONG_LIST = 100


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004  # pydantic turns ValueError into a 422
    return value


def _hardened(schema: Any) -> Any:
    """Number fields that do not take true for 1, and long lists that are given up at the first wrong item.

    Strictness would refuse true as well, but also the digits of a query string. A complaint about each of 10,000 items
    costs seconds to write, and nobody reads it.
    """
    if schema["type"] in {"int", "float"} and not schema.get("strict"):
        return core_schema.no_info_before_validator_function(_no_truth, schema)
    if schema["type"] == "model-fields":
        fields = {name: {**field, "schema": _hardened(field["schema"])} for name, field in schema["fields"].items()}
        return {**schema, "fields": fields}
    inner: dict[str, Any] = {part: _hardened(schema[part]) for part in _NESTED if isinstance(schema.get(part), dict)}
    if schema["type"] == "list" and (schema.get("max_length") or LONG_LIST) >= LONG_LIST:
        inner["fail_fast"] = True
    return {**schema, **inner}


_NESTED = ("schema", "items_schema", "values_schema")


class Contract(BaseModel):
    """Base of all wire types: unknown fields are refused, NaN, infinities and truths are no numbers, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        hardened: CoreSchema = _hardened(handler(source))
        return hardened


class Answer(Contract):
    """Base of what the server answers: clients ignore what they do not know, so that the API can grow."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


def _no_control(value: str) -> str:
    """PostgreSQL stores no NUL, and no encoder writes a lone surrogate: refuse both where they come in."""
    if "\x00" in value:
        raise ValueError("must not contain the NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain a lone surrogate") from None
    return value


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("must carry a time zone, for example 2026-01-31T09:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time in the years 1 to 9999, in UTC too") from None


def wire_time(value: datetime) -> str:
    """A time as every answer has it: RFC 3339 in UTC, with microseconds."""
    # Not strftime: its year 206 has three digits.
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _not_a_bare_number(value: object) -> object:
    # pydantic would read 0 as 1970 and 20240101 as a second of that year: a silent wrong date.
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()):
        raise ValueError("must be an RFC 3339 time, for example 2026-01-31T09:00:00Z")
    return value


Text = Annotated[str, AfterValidator(_no_control)]
"""Any text that can be stored."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=128, examples=["my-classifier-v1"])]
"""A name that stands in URLs: letters, digits, `.`, `_`, `-`; starts with a letter or digit; at most 128."""

Label = Annotated[Text, Field(min_length=1, max_length=250)]
"""A short human text: run names, tag keys."""

Description = Annotated[Text, Field(max_length=10_000)]
"""A longer human text."""

Id = Annotated[str, Field(pattern=ID_PATTERN, examples=["0198c0ffee00700080000000deadbeef"])]
"""A UUIDv7 as 32 lowercase hex digits."""

Timestamp = Annotated[
    datetime,
    BeforeValidator(_not_a_bare_number),
    AfterValidator(_utc),
    PlainSerializer(wire_time, return_type=str, when_used="json"),
    Field(examples=["2026-01-31T09:00:00.000000Z"]),
]
"""RFC 3339 in UTC with microseconds."""

Integer = Annotated[int, Field(ge=-(2**63), le=MAX_INTEGER)]
"""A 64-bit signed integer."""


def read_float(value: object) -> object:
    """Accept the three strings that stand for what JSON numbers cannot say."""
    if isinstance(value, str):
        special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value)
        if special is None:
            raise ValueError('must be a number, or one of "NaN", "Infinity", "-Infinity"')
        return special
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004  # pydantic turns ValueError into a 422
    return value


def write_float(value: float) -> float | str:
    """The other way round: what JSON numbers cannot say becomes a string."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


AnyFloat = Annotated[
    float,
    Field(allow_inf_nan=True, examples=[0.95]),
    BeforeValidator(read_float),
    PlainSerializer(write_float, when_used="json"),
]
"""A float that may be NaN or infinite, for metric values and float features only; those travel as strings."""


def check_json(value: Any, *, depth: int = 0) -> Any:
    """Refuse what no column or other parser would keep: NaN, infinities, NUL, integers past 64 bits, deep nesting."""
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_JSON_DEPTH} levels")
    match value:
        case str():
            _no_control(value)
        case bool() | None:
            pass
        case int() | float():
            _check_number(value)
        case Mapping():
            _check_items([*value.keys(), *value.values()], depth)
        case Sequence():
            _check_items(value, depth)
    return value


def _check_number(value: float) -> None:
    if isinstance(value, int) and not -(2**63) <= value <= MAX_INTEGER:
        raise ValueError(f"holds the integer {str(value)[:24]}, which does not fit in 64 bits")
    if not math.isfinite(value):
        raise ValueError("holds NaN or an infinity, which JSON does not have")


def _check_items(values: Sequence[Any], depth: int) -> None:
    if len(values) > MAX_JSON_ITEMS:
        raise ValueError(f"holds {len(values)} items, more than {MAX_JSON_ITEMS}")
    for value in values:
        check_json(value, depth=depth + 1)


JsonValue = Annotated[Any, AfterValidator(check_json)]
"""Any JSON value that can be stored and read back unchanged."""

JsonObject = Annotated[dict[str, Any], AfterValidator(check_json)]
"""A JSON object that can be stored and read back unchanged."""

Tags = Annotated[list[Label], Field(max_length=100, examples=[["production", "healthcare"]])]
"""A set of labels, as a list."""


class Page(Answer, Generic[T]):
    """One page of a list. `next_page_token` is absent (null) on the last one."""

    items: list[T]
    next_page_token: str | None = None


class ProblemField(Answer):
    """One offending field of a request."""

    field: str
    message: str
    value: Any = None


class Problem(Answer):
    """RFC 9457 problem details, as every error answers."""

    type: str = Field(examples=["https://mlops-platform.example/problems/not_found"])
    title: str
    status: int
    code: str = Field(examples=["not_found"])
    detail: str
    errors: list[ProblemField] = []
    hint: str | None = None
    request_id: str | None = None


class LineageEdge(Answer):
    """A stated fact: `subject` `relation` `object`, both ends stable URNs (`urn:mlops:<project>:<kind>:<name>`)."""

    subject: str
    relation: str
    object: str

"""Metric points: reading the flat body of the wire, and what a point is."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_platform.core.errors import ContentTooLarge, FieldError, InvalidInput
from mlops_platform.tracking.domain.keys import make_key, read_context

MAX_POINTS = 10_000
STEP_LIMIT = 2**63
EARLIEST_MS = 946_684_800_000
LATEST_MS = 4_102_444_800_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
_FORMS = "RFC 3339 with a time zone (2026-01-31T09:00:00Z) or integer milliseconds since 1970"
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
KEY = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,250}")


@dataclass(slots=True)
class Points:
    """Points as columns, since that is how they are stored: one list a column, all of one length.

    `arrived` says that the time is the server's. Such a point is identified without it, so that a request sent twice
    stores nothing twice: (run, key, step, value), and otherwise (run, key, step, timestamp, value). A key holds its
    context: see `domain.keys`.
    """

    keys: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    timestamps: list[datetime] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    arrived: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


def read_points(body: Any, *, now: datetime) -> Points:
    """The points of a body: one flat object, or a list of them. Raises `InvalidInput` that names the field."""
    points = Points()
    checked: set[str] = set()
    if isinstance(body, dict):
        _read_one(body, points, "", now=now, checked=checked)
    elif isinstance(body, list):
        for index, item in enumerate(body):
            if not isinstance(item, dict):
                raise InvalidInput.of(f"[{index}]", 'must be an object such as {"accuracy": 0.95, "step": 100}', item)
            _read_one(item, points, f"[{index}].", now=now, checked=checked)
    else:
        raise InvalidInput.of("body", 'must be an object such as {"accuracy": 0.95, "step": 100}, or a list of them', body)
    if not points:
        raise InvalidInput.of("body", "holds no metric; every field but step, timestamp and context is one")
    return points


def _read_one(body: dict[str, Any], points: Points, where: str, *, now: datetime, checked: set[str]) -> None:
    """Add the points of one object. `checked` are the keys that an object before it had."""
    step = body.get("step", 0)
    if type(step) is not int or not -STEP_LIMIT <= step < STEP_LIMIT:
        raise InvalidInput.of(f"{where}step", "must be an integer of 64 bits", step)
    given = body.get("timestamp")
    timestamp = now if given is None else read_timestamp(given, where)
    count = len(points)
    context = body.get("context")
    # Only an object is a context: a number under this name is a metric like any other.
    is_context = type(context) is dict
    suffix = make_key("", read_context(context, f"{where}context")) if is_context else ""
    for key, value in body.items():
        if key not in {"step", "timestamp"} and not (is_context and key == "context"):
            if key not in checked:
                _check_key(key, value, where)
                checked.add(key)
            points.values.append(value if type(value) is float else _read_value(key, value, where))
            points.keys.append(key + suffix)
    if len(points.keys) > MAX_POINTS:
        raise ContentTooLarge(f"The body holds more than {MAX_POINTS} points; send it in parts.")
    added = len(points) - count
    points.steps += [step] * added
    points.timestamps += [timestamp] * added
    points.arrived += [given is None] * added


def _check_key(key: str, value: Any, where: str) -> None:
    if KEY.fullmatch(key) is None:
        raise InvalidInput(
            f"{where}{key[:60]!r}: a metric key has 1 to 250 characters and no control characters",
            errors=[FieldError(f"{where}{key[:60]}", "must have 1 to 250 characters and no control characters", value)],
        )


def _read_value(key: str, value: Any, where: str) -> float:
    kind = type(value)
    if kind is int:
        try:
            return float(value)
        except OverflowError:
            raise InvalidInput.of(f"{where}{key}", "is larger than any float", str(value)[:60]) from None
    special = SPECIAL.get(value) if kind is str else None
    if special is None:
        raise InvalidInput.of(
            f"{where}{key}",
            'must be a number, or one of "NaN", "Infinity", "-Infinity"',
            value,
            hint="Texts, booleans and objects are parameters or tags of a run, not metrics.",
        )
    return special


def read_timestamp(value: Any, where: str = "") -> datetime:
    """RFC 3339, or integer milliseconds; either between 2000 and 2100, and a refusal says which unit it looks like."""
    if type(value) is int:
        if not EARLIEST_MS <= value <= LATEST_MS:
            raise InvalidInput.of(f"{where}timestamp", f"is not milliseconds since 1970{_unit(value)}", value)
        return EPOCH + timedelta(milliseconds=value)
    read = _read_rfc3339(value)
    if read is None:
        raise InvalidInput.of(f"{where}timestamp", f"must be {_FORMS}{_number_in_disguise(value)}", value)
    if not EARLIEST <= read < LATEST:
        raise InvalidInput.of(f"{where}timestamp", f"lies outside the years 2000 to 2100{_mistaken(read)}", value)
    return read


def _read_rfc3339(value: Any) -> datetime | None:
    try:
        read = datetime.fromisoformat(value) if type(value) is str and not value.isdigit() else None
        return read.astimezone(UTC) if read is not None and read.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _unit(value: int) -> str:
    for unit, factor in (("seconds", 1000), ("microseconds", 0.001), ("nanoseconds", 0.000001)):
        if EARLIEST_MS <= value * factor <= LATEST_MS:
            return f" between 2000 and 2100; it looks like {unit}"
    return " between 2000 and 2100"


def _number_in_disguise(value: Any) -> str:
    """What is likely meant by a float (Python's `time.time()`) or by digits in quotes."""
    if type(value) is float and EARLIEST_MS <= value * 1000 <= LATEST_MS:
        return "; it looks like seconds with a fraction: multiply by 1000 and round"
    if type(value) is float and EARLIEST_MS <= value <= LATEST_MS:
        return "; it looks like milliseconds with a fraction: round it"
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 25:
        number = int(value)
        fits = EARLIEST_MS <= number <= LATEST_MS
        return "; digits are sent without quotes" + ("" if fits else f", and this is not milliseconds{_unit(number)}")
    return ""


def _mistaken(read: datetime) -> str:
    if EPOCH <= read < EPOCH.replace(month=3):
        return "; a time early in 1970 looks like seconds that were read as milliseconds"
    return "; it looks like microseconds that were read as milliseconds" if read >= LATEST.replace(year=4000) else ""


def joined(parts: Sequence[Points]) -> tuple[list[int], Points]:
    """Several requests as one, and for each point the number of the request that it came from."""
    whole = Points()
    origins: list[int] = []
    for number, part in enumerate(parts):
        origins += [number] * len(part)
        whole.keys += part.keys
        whole.steps += part.steps
        whole.timestamps += part.timestamps
        whole.values += part.values
        whole.arrived += part.arrived
    return origins, whole

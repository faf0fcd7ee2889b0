"""Metric points: reading the flat body of the wire, and what a point is."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlops_platform.core.errors import ContentTooLarge, FieldError, InvalidInput

MAX_POINTS = 10_000
STEP_LIMIT = 2**63
EARLIEST_MS = 946_684_800_000
LATEST_MS = 4_102_444_800_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
KEY = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,250}")


@dataclass(slots=True)
class Points:
    """Points as columns, since that is how they are stored: one list a column, all of one length.

    `arrived` says that the time is the server's. Such a point is identified without it, so that a request sent twice
    stores nothing twice: (run, key, step, value), and otherwise (run, key, step, timestamp, value).
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
    if isinstance(body, dict):
        _read_one(body, points, "", now)
    elif isinstance(body, list):
        for index, item in enumerate(body):
            if not isinstance(item, dict):
                raise InvalidInput.of(f"[{index}]", 'must be an object such as {"accuracy": 0.95, "step": 100}', item)
            _read_one(item, points, f"[{index}].", now)
    else:
        raise InvalidInput.of("body", 'must be an object such as {"accuracy": 0.95, "step": 100}, or a list of them', body)
    if not points:
        raise InvalidInput.of("body", "holds no metric; every field but step and timestamp is one")
    return points


def _read_one(body: dict[str, Any], points: Points, where: str, now: datetime) -> None:
    step = body.get("step", 0)
    if type(step) is not int or not -STEP_LIMIT <= step < STEP_LIMIT:
        raise InvalidInput.of(f"{where}step", "must be an integer of 64 bits", step)
    given = body.get("timestamp")
    timestamp = now if given is None else read_timestamp(given, where)
    count = len(points)
    for key, value in body.items():
        if key not in {"step", "timestamp"}:
            points.keys.append(key)
            points.values.append(_read_value(key, value, where))
    if len(points.keys) > MAX_POINTS:
        raise ContentTooLarge(f"The body holds more than {MAX_POINTS} points; send it in parts.")
    added = len(points) - count
    points.steps += [step] * added
    points.timestamps += [timestamp] * added
    points.arrived += [given is None] * added


def _read_value(key: str, value: Any, where: str) -> float:
    kind = type(value)
    if KEY.fullmatch(key) is None:
        raise InvalidInput(
            f"{where}{key[:60]!r}: a metric key has 1 to 250 characters and no control characters",
            errors=[FieldError(f"{where}{key[:60]}", "must have 1 to 250 characters and no control characters", value)],
        )
    if kind is float:
        return float(value)
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
    """RFC 3339, or integer milliseconds that are plausible: seconds and microseconds are told apart and refused."""
    if type(value) is int:
        if not EARLIEST_MS <= value <= LATEST_MS:
            raise InvalidInput.of(f"{where}timestamp", f"is not milliseconds since 1970{_unit(value)}", value)
        return datetime.fromtimestamp(value // 1000, UTC).replace(microsecond=value % 1000 * 1000)
    try:
        read = datetime.fromisoformat(value) if type(value) is str and not value.isdigit() else None
        if read is not None and read.tzinfo is not None and read >= EPOCH:
            return read.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidInput.of(
        f"{where}timestamp", "must be RFC 3339 with a time zone (2026-01-31T09:00:00Z) or integer milliseconds", value
    )


def _unit(value: int) -> str:
    for unit, factor in (("seconds", 1000), ("microseconds", 0.001), ("nanoseconds", 0.000001)):
        if EARLIEST_MS <= value * factor <= LATEST_MS:
            return f" between 2000 and 2100; it looks like {unit}"
    return " between 2000 and 2100"


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

"""Rows on their way in: read and checked against a schema, then kept as columns.

A batch is columnar and typed; a value is an `int`, `float`, `str`, `bool`, a timestamp in microseconds, a list of floats
or None. Columns are keyed by slot (see `schema`).
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from mlops_platform.contracts.common import write_float
from mlops_platform.contracts.features import EVENT_TIMESTAMP, MAX_ENTITY_LENGTH, FeatureType
from mlops_platform.core.errors import InvalidInput, MalformedRequest
from mlops_platform.features.domain.schema import FeatureSpec, FeatureView
from mlops_platform.features.domain.times import MAX_US, MIN_US, to_us, wire_time

MAX_JSON_ROWS = 100_000
MAX_STRING_LENGTH = 65_536
MAX_LIST_LENGTH = 16_384
# A clock or a time zone that is wrong would otherwise put a row in the future that hides all later ones from serving.
MAX_AHEAD_SECONDS = 600
SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# `$` would let a line feed at the end through.
_ENTITY_PATTERN = r"^[^\x00-\x1f\x7f]+\Z"

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Float = float | Literal["NaN", "Infinity", "-Infinity"]
_Entity = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ENTITY_LENGTH, pattern=_ENTITY_PATTERN)] | _Int64
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_WIRE_TYPES: dict[FeatureType, Any] = {
    FeatureType.INT: _Int64,
    FeatureType.FLOAT: _Float,
    FeatureType.STRING: Annotated[str, msgspec.Meta(max_length=MAX_STRING_LENGTH, pattern=r"^[^\x00]*$")],
    FeatureType.BOOL: bool,
    FeatureType.TIMESTAMP: _Moment,
    FeatureType.FLOAT_LIST: Annotated[list[_Float], msgspec.Meta(max_length=MAX_LIST_LENGTH)],
}


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Typed rows as columns; no two have the same entity and event timestamp."""

    entities: list[str]
    event_us: list[int]
    columns: dict[int, list[Any]]

    def __len__(self) -> int:
        return len(self.entities)

    def take(self, positions: Sequence[int]) -> "RowBatch":
        """The rows at these positions, in this order."""
        return RowBatch(
            [self.entities[i] for i in positions],
            [self.event_us[i] for i in positions],
            {slot: [column[i] for i in positions] for slot, column in self.columns.items()},
        )


def read_json_rows(body: bytes, view: FeatureView) -> RowBatch:
    """The rows of a `{"rows": [...]}` body; the first wrong one is named by row and field, and nothing is kept."""
    decoder = _decoder(view.entity, view.schema.features)
    try:
        rows = decoder.decode(body).rows
    except msgspec.ValidationError as error:
        raise _explain(str(error), body) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"The body is not valid JSON: {error}.") from None
    entities, moments, *given = zip(*map(msgspec.structs.astuple, rows), strict=True)
    features = view.schema.features
    columns = {f.slot: _natives(f.type, column) for f, column in zip(features, given, strict=True)}
    batch = RowBatch([str(entity) for entity in entities], [to_us(moment) for moment in moments], columns)
    _check_range(EVENT_TIMESTAMP, batch.event_us)
    for feature in features:
        if feature.type is FeatureType.TIMESTAMP:
            _check_range(feature.name, columns[feature.slot])
    return dedupe(batch)


def _check_range(field: str, column: Sequence[int | None]) -> None:
    """An offset can carry a time out of the years 1 to 9999, which are all that can be written."""
    for i, at in enumerate(column):
        if at is not None and not MIN_US <= at <= MAX_US:
            raise InvalidInput.of(f"rows[{i}].{field}", "lies outside the years 1 to 9999 in UTC")


@functools.lru_cache(maxsize=256)
def _decoder(entity: str, features: tuple[FeatureSpec, ...]) -> msgspec.json.Decoder[Any]:
    names = {"entity": entity, "at": EVENT_TIMESTAMP} | {f"f{i}": f.name for i, f in enumerate(features)}
    fields: list[Any] = [("entity", _Entity), ("at", _Moment)]
    fields += [(f"f{i}", _WIRE_TYPES[f.type] | None, None) for i, f in enumerate(features)]
    row = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)
    rows = Annotated[list[row], msgspec.Meta(min_length=1, max_length=MAX_JSON_ROWS)]  # type: ignore[valid-type]
    return msgspec.json.Decoder(msgspec.defstruct("Rows", [("rows", rows)], forbid_unknown_fields=True))


def _natives(kind: FeatureType, column: Sequence[Any]) -> list[Any]:
    match kind:
        case FeatureType.FLOAT:
            return [SPECIAL_FLOATS[value] if isinstance(value, str) else value for value in column]
        case FeatureType.TIMESTAMP:
            return [None if value is None else to_us(value) for value in column]
        case FeatureType.FLOAT_LIST:
            return [None if value is None else _natives(FeatureType.FLOAT, value) for value in column]
        case _:
            return list(column)


_AT = re.compile(r"^(?P<message>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_NAMED = re.compile(r"(?:required|unknown) field `(?P<name>.*)`$")
_ROW = re.compile(r"^rows\[(\d+)\](?:\.(.+?))?(?:\[(\d+)\])?$")


def _explain(error: str, body: bytes) -> InvalidInput:
    found = _AT.match(error)
    message, path = (found["message"], found["path"] or "") if found else (error, "")
    value = _value_at(body, path)
    if named := _NAMED.search(message):
        path, value = (f"{path}.{named['name']}" if path else named["name"]), None
    return InvalidInput.of(
        path or "body", _plain(message), value, hint="Nothing was kept. Correct the row and send all again."
    )


def _plain(message: str) -> str:
    if "datetime" in message or "RFC3339" in message or "timezone" in message:
        return "must be an RFC 3339 time with its offset, for example 2026-01-31T09:00:00Z"
    if message.startswith("Invalid enum value") or "float | str" in message:
        return 'must be a number, or one of "NaN", "Infinity", "-Infinity"'
    if "regex" in message:
        return "must not contain NUL; an entity key must not contain any control character"
    return message[:1].lower() + message[1:].replace("`", "'")


def _value_at(body: bytes, path: str) -> object:
    place = _ROW.match(path)
    if place is None or place[2] is None:
        return None
    try:
        value = msgspec.json.decode(body)["rows"][int(place[1])].get(place[2])
    except msgspec.MsgspecError:  # a number that no double can hold
        return None
    return value[:64] if isinstance(value, str) else value if isinstance(value, int | float | bool) else None


def check_times(event_us: Sequence[int], now_us: int) -> None:
    """Refuse rows whose event has not happened yet; names the one that lies farthest ahead."""
    latest = max(event_us)
    check_latest(latest, now_us, field=f"rows[{event_us.index(latest)}].{EVENT_TIMESTAMP}")


def check_latest(latest_us: int, now_us: int, *, field: str = EVENT_TIMESTAMP) -> None:
    """The same where the rows have no numbers."""
    if latest_us > now_us + MAX_AHEAD_SECONDS * 1_000_000:
        raise InvalidInput.of(
            field,
            f"is more than {MAX_AHEAD_SECONDS} seconds ahead of the server's clock",
            wire_time(latest_us),
            hint="Is a local time written as if it were UTC? Nothing was kept.",
        )


def dedupe(batch: RowBatch) -> RowBatch:
    """Of several rows with the same entity and event timestamp the last stays, at the place of the first."""
    last = {(entity, at): i for i, (entity, at) in enumerate(zip(batch.entities, batch.event_us, strict=True))}
    return batch if len(last) == len(batch) else batch.take(list(last.values()))


def newest(batch: RowBatch) -> RowBatch:
    """The newest row of each entity: all that an online store needs of a batch."""
    best: dict[str, int] = {}
    for i, (entity, at) in enumerate(zip(batch.entities, batch.event_us, strict=True)):
        held = best.get(entity)
        if held is None or at > batch.event_us[held]:
            best[entity] = i
    return batch if len(best) == len(batch) else batch.take(list(best.values()))


@dataclass(frozen=True, slots=True)
class StampedBatch:
    """Rows with the time and the batch of each row's ingest."""

    batch: RowBatch
    created_us: list[int]
    batch_ids: list[str]


def stamp(batch: RowBatch, *, created_us: int, batch_id: str) -> StampedBatch:
    """The rows of one ingest."""
    return StampedBatch(batch, [created_us] * len(batch), [batch_id] * len(batch))


def concat(parts: Sequence[StampedBatch]) -> StampedBatch:
    """Several batches as one; a slot that a part lacks is null there."""
    slots = sorted({slot for part in parts for slot in part.batch.columns})
    columns = {
        slot: [v for part in parts for v in part.batch.columns.get(slot) or [None] * len(part.batch)] for slot in slots
    }
    batch = RowBatch(
        [entity for part in parts for entity in part.batch.entities],
        [at for part in parts for at in part.batch.event_us],
        columns,
    )
    created = [at for part in parts for at in part.created_us]
    return StampedBatch(batch, created, [batch_id for part in parts for batch_id in part.batch_ids])


def pack(batch: RowBatch) -> bytes:
    """A small batch as MessagePack: doubles travel as their eight bytes, so NaN and infinities stay what they are."""
    return msgspec.msgpack.encode((batch.entities, batch.event_us, batch.columns, None, None))


def pack_stamped(stamped: StampedBatch) -> bytes:
    """The same for rows of several ingests."""
    batch = stamped.batch
    return msgspec.msgpack.encode((batch.entities, batch.event_us, batch.columns, stamped.created_us, stamped.batch_ids))


_unpack = msgspec.msgpack.Decoder(
    tuple[list[str], list[int], dict[int, list[Any]], list[int] | None, list[str] | None]
).decode


def unpack(payload: bytes, *, created_us: int, batch_id: str) -> StampedBatch:
    """The other way round; the stamp is that of rows which carry none of their own."""
    entities, event_us, columns, created, batch_ids = _unpack(payload)
    batch = RowBatch(entities, event_us, columns)
    if created is None or batch_ids is None:
        return stamp(batch, created_us=created_us, batch_id=batch_id)
    return StampedBatch(batch, created, batch_ids)


def wire_column(kind: FeatureType, column: Sequence[Any]) -> list[Any]:
    """Typed values as JSON writes them."""
    match kind:
        case FeatureType.FLOAT:
            return [value if value is None or math.isfinite(value) else write_float(value) for value in column]
        case FeatureType.TIMESTAMP:
            return [None if value is None else wire_time(value) for value in column]
        case FeatureType.FLOAT_LIST:
            return [None if value is None else [write_float(item) for item in value] for value in column]
        case _:
            return list(column)

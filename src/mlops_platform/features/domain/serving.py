"""What an online read answers: names resolved into a plan, rows assembled into vectors.

This is the hot path: a plan is made once for each list of features, and assembling does nothing that a plan can do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from mlops_platform.features.domain.rows import StampedBatch, wire_column
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.times import wire_time
from mlops_platform.features.errors import AmbiguousFeature, EntityMismatch, UnknownFeature

# Plain strings: the encoder writes them without asking an enum for its value.
PRESENT, NULL, MISSING, EXPIRED = "present", "null", "missing", "expired"


class OnlineKey(NamedTuple):
    """Whose row: every key carries the project."""

    project_id: str
    feature_set_id: str
    entity: str


class OnlineRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The newest row of one entity, as it is kept online. `values` are written as in JSON and indexed by slot.

    There may be hundreds of thousands: nothing in one is tracked by the garbage collector, whose pauses would be seen.
    """

    event_us: int
    created_us: int
    batch_id: str
    event_timestamp: str
    values: tuple[Any, ...]

    def is_newer_than(self, other: "OnlineRow") -> bool:
        """The rule that every store follows: event timestamp, then time of ingest, then batch."""
        return (self.event_us, self.created_us, self.batch_id) > (other.event_us, other.created_us, other.batch_id)

    def rank(self) -> str:
        """The same order as a string of digits, for stores that compare text."""
        return f"{self.event_us + 2**63:020d}{self.created_us + 2**63:020d}{int(self.batch_id, 16):039d}"


RANK_LENGTH = 79


class Vector(msgspec.Struct, gc=False):
    """`contracts.features.FeatureVector`, as the encoder likes it."""

    entity: str
    values: dict[str, Any]
    statuses: dict[str, str]
    event_timestamps: dict[str, str | None]


class Vectors(msgspec.Struct):
    """`contracts.features.ServeResult`, as the encoder likes it."""

    vectors: list[Vector]


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """What is read from one feature set: answer key and slot of each feature."""

    id: str
    name: str
    ttl_us: int | None
    columns: tuple[tuple[str, int], ...]
    # What a set that was switched off still has in the store grows old, and is not shown.
    is_online: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """One list of features, resolved."""

    sets: tuple[PlannedSet, ...]
    labels: tuple[str, ...]
    all_present: dict[str, str] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A feature reference and what it names."""

    label: str
    view: FeatureView
    slot: int
    name: str


def resolve(views: Mapping[str, FeatureView], wanted: Sequence[str]) -> list[Resolved]:
    """Each reference, plain or `set:feature`, in order and without repetition."""
    by_feature: dict[str, list[FeatureView]] = {}
    for view in views.values():
        for spec in view.schema.features:
            by_feature.setdefault(spec.name, []).append(view)
    return [_resolve_one(views, by_feature, reference) for reference in dict.fromkeys(wanted)]


def _resolve_one(
    views: Mapping[str, FeatureView], by_feature: Mapping[str, Sequence[FeatureView]], reference: str
) -> Resolved:
    set_name, colon, feature = reference.rpartition(":")
    candidates = [views[set_name]] if colon and set_name in views else [] if colon else by_feature.get(feature, [])
    if len(candidates) > 1:
        raise AmbiguousFeature(feature, sorted(f"{view.name}:{feature}" for view in candidates))
    spec = candidates[0].schema.by_name().get(feature) if candidates else None
    if spec is None:
        raise UnknownFeature(reference)
    return Resolved(reference, candidates[0], spec.slot, feature)


def make_plan(views: Mapping[str, FeatureView], wanted: Sequence[str]) -> Plan:
    """The plan for one list of features; all of them must belong to one entity key."""
    resolved = resolve(views, wanted)
    grouped: dict[str, list[Resolved]] = {}
    for one in resolved:
        grouped.setdefault(one.view.name, []).append(one)
    if len({group[0].view.entity for group in grouped.values()}) > 1:
        raise EntityMismatch([(name, group[0].view.entity) for name, group in grouped.items()])
    sets = tuple(
        _planned(name, group[0].view, tuple((one.label, one.slot) for one in group)) for name, group in grouped.items()
    )
    labels = tuple(label for planned in sets for label, _ in planned.columns)
    return Plan(sets, labels, dict.fromkeys(labels, PRESENT))


def _planned(name: str, view: FeatureView, columns: tuple[tuple[str, int], ...]) -> PlannedSet:
    return PlannedSet(view.id, name, view.ttl_microseconds, columns, is_online=view.is_online)


def assemble(rows: Sequence[OnlineRow | None], plan: Plan, entities: Sequence[str], now_us: int) -> Vectors:
    """The vectors of the entities; `rows` holds, entity by entity, one place for each set of the plan."""
    vectors, width = [], len(plan.sets)
    for i, entity in enumerate(entities):
        vector = Vector(entity, {}, plan.all_present, {})
        for j, planned in enumerate(plan.sets):
            row = rows[i * width + j]
            if row is None or not planned.is_online:
                _fill_empty(vector, planned, MISSING, None)
            elif planned.ttl_us is not None and row.event_us < now_us - planned.ttl_us:
                _fill_empty(vector, planned, EXPIRED, row.event_timestamp)
            else:
                _fill(vector, planned, row)
        vectors.append(vector)
    return Vectors(vectors)


def _fill(vector: Vector, planned: PlannedSet, row: OnlineRow) -> None:
    held, at, values, times = row.values, row.event_timestamp, vector.values, vector.event_timestamps
    count, absent = len(held), False
    for label, slot in planned.columns:
        value = values[label] = held[slot] if slot < count else None
        times[label] = at
        if value is None:
            absent = True
    if absent:
        marks = {label: NULL if slot < count else MISSING for label, slot in planned.columns if values[label] is None}
        vector.statuses = {**vector.statuses, **marks}


def _fill_empty(vector: Vector, planned: PlannedSet, status: str, at: str | None) -> None:
    marks = {}
    for label, _ in planned.columns:
        vector.values[label] = None
        vector.event_timestamps[label] = at
        marks[label] = status
    # A new dictionary: the one of the plan is shared by all whole vectors.
    vector.statuses = {**vector.statuses, **marks}


def online_rows(view: FeatureView, stamped: StampedBatch) -> list[tuple[OnlineKey, OnlineRow]]:
    """Rows as they are kept online, in the schema's slots."""
    batch = stamped.batch
    width = max(feature.slot for feature in view.schema.features) + 1
    columns: list[list[Any]] = [[None] * len(batch)] * width
    for feature in view.schema.features:
        column = batch.columns.get(feature.slot)
        if column is not None:
            columns[feature.slot] = wire_column(feature.type, column)
    times = {at: wire_time(at) for at in set(batch.event_us)}
    values = zip(*columns, strict=True)
    rows = zip(batch.entities, batch.event_us, stamped.created_us, stamped.batch_ids, values, strict=True)
    return [
        (OnlineKey(view.project_id, view.id, entity), OnlineRow(at, created, batch_id, times[at], held))
        for entity, at, created, batch_id, held in rows
    ]

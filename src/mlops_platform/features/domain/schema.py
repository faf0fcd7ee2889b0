"""What a feature set is, and how its features may change.

Stored values are addressed by *slot*, a number that a set gives to each (feature, type) once and never again. So adding
a feature moves nothing, and a feature that is removed or retyped leaves its old values behind without rewriting them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_platform.contracts.features import FeatureCreate, FeatureType
from mlops_platform.core.errors import InvalidInput
from mlops_platform.features.errors import SchemaChangeRefused

MAX_SLOTS = 10_000


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A feature and the slot that its values are stored under."""

    name: str
    type: FeatureType
    slot: int
    since_version: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class Schema:
    """The features of a set in one version."""

    version: int
    features: tuple[FeatureSpec, ...]
    next_slot: int

    def by_name(self) -> dict[str, FeatureSpec]:
        return {feature.name: feature for feature in self.features}


@dataclass(frozen=True, slots=True)
class FeatureView:
    """What reading, writing and serving need to know of a feature set."""

    id: str
    project_id: str
    name: str
    entity: str
    ttl_seconds: int | None
    is_online: bool
    schema: Schema

    @property
    def ttl_microseconds(self) -> int | None:
        return None if self.ttl_seconds is None else self.ttl_seconds * 1_000_000


def first_schema(features: Sequence[FeatureCreate]) -> Schema:
    """Version 1."""
    specs = tuple(FeatureSpec(f.name, f.type, slot, 1, f.description) for slot, f in enumerate(features))
    return Schema(1, specs, len(specs))


def evolve(schema: Schema, wanted: Sequence[FeatureCreate], *, consent: bool) -> Schema:
    """The schema with exactly the wanted features; without consent, only additions and new descriptions are let through."""
    breaking = breaking_changes(schema, wanted)
    if breaking and not consent:
        raise SchemaChangeRefused(breaking)
    version, slot = schema.version + 1, schema.next_slot
    known, specs = schema.by_name(), []
    for feature in wanted:
        old = known.get(feature.name)
        if old is not None and old.type is feature.type:
            specs.append(FeatureSpec(old.name, old.type, old.slot, old.since_version, feature.description))
        else:
            specs.append(FeatureSpec(feature.name, feature.type, slot, version, feature.description))
            slot += 1
    if slot > MAX_SLOTS:
        raise InvalidInput.of("features", f"the set has changed its features too often (more than {MAX_SLOTS} in all)")
    is_changed = bool(breaking) or slot != schema.next_slot
    return Schema(version if is_changed else schema.version, tuple(specs), slot)


def breaking_changes(schema: Schema, wanted: Sequence[FeatureCreate]) -> list[str]:
    """What a change would take away from readers, in words."""
    types = {feature.name: feature.type for feature in wanted}
    changes = []
    for feature in schema.features:
        if feature.name not in types:
            changes.append(f"remove {feature.name!r}")
        elif types[feature.name] is not feature.type:
            changes.append(f"retype {feature.name!r} from {feature.type} to {types[feature.name]}")
    return changes


def schema_to_json(schema: Schema) -> list[dict[str, Any]]:
    """The features as a JSON document for storage."""
    return [
        {
            "name": feature.name,
            "type": feature.type.value,
            "slot": feature.slot,
            "since_version": feature.since_version,
            "description": feature.description,
        }
        for feature in schema.features
    ]


def schema_from_json(version: int, features: Sequence[Mapping[str, Any]], next_slot: int) -> Schema:
    """The other way round."""
    specs = tuple(
        FeatureSpec(f["name"], FeatureType(f["type"]), f["slot"], f["since_version"], f["description"]) for f in features
    )
    return Schema(version, specs, next_slot)

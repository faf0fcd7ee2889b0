"""Wire types of the Feature Store."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from mlops_platform.contracts.common import Answer, Contract, Description, Id, JsonObject, Label, Name, Tags, Timestamp

MAX_FEATURES = 1000
MAX_TTL_SECONDS = 100 * 366 * 86_400
MAX_SERVED_ENTITIES = 1000
MAX_ENTITY_LENGTH = 512
MAX_TRAINING_ROWS = 100_000
EVENT_TIMESTAMP = "event_timestamp"
RESERVED_FEATURE_NAMES = frozenset({EVENT_TIMESTAMP, "created_at", "created"})
FEATURE_REFERENCE_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127}:)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class FeatureType(StrEnum):
    """What a feature holds. `int` is 64-bit, `float` is a double (NaN and infinities kept), `timestamp` is UTC."""

    INT = "int"
    FLOAT = "float"
    STRING = "string"
    BOOL = "bool"
    TIMESTAMP = "timestamp"
    FLOAT_LIST = "float_list"


class ValueStatus(StrEnum):
    """What stands behind one served value.

    `present`: a value. `null`: the newest row says null. `missing`: no row of this entity, or none since the feature
    exists. `expired`: the newest row is older than the feature set's `ttl_seconds`.
    """

    PRESENT = "present"
    NULL = "null"
    MISSING = "missing"
    EXPIRED = "expired"


class OnlineState(StrEnum):
    """What became of the online values of an ingest: written, written soon in the background, or the set is offline."""

    WRITTEN = "written"
    PENDING = "pending"
    OFF = "off"


class FeatureCreate(Contract):
    """One feature of a set, as the caller states it."""

    name: Name
    type: FeatureType
    description: Description = ""


def _check_features(features: list[FeatureCreate]) -> list[FeatureCreate]:
    seen: set[str] = set()
    for feature in features:
        if feature.name in RESERVED_FEATURE_NAMES:
            raise ValueError(f"{feature.name!r} is a reserved column name; choose another")
        if feature.name in seen:
            raise ValueError(f"{feature.name!r} is stated twice")
        seen.add(feature.name)
    return features


FeatureList = Annotated[list[FeatureCreate], Field(min_length=1, max_length=MAX_FEATURES)]
TtlSeconds = Annotated[int, Field(ge=1, le=MAX_TTL_SECONDS, examples=[86_400])]


class FeatureSetCreate(Contract):
    """A new feature set: features that share an entity key and an event timestamp."""

    name: Name
    description: Description = ""
    entity: Name = Field("entity_id", description="Name of the column that holds the entity key.")
    features: FeatureList
    ttl_seconds: TtlSeconds | None = Field(None, description="How long a value holds after its event. Absent: for ever.")
    online: bool = Field(default=True, description="Whether ingested rows are served online at once.")
    tags: Tags = Field(default_factory=list)
    owner: Label | None = None

    _features = field_validator("features")(_check_features)

    @model_validator(mode="after")
    def _entity_is_no_feature(self) -> "FeatureSetCreate":
        if self.entity in RESERVED_FEATURE_NAMES or any(feature.name == self.entity for feature in self.features):
            raise ValueError(f"the entity column {self.entity!r} cannot also be a feature or a reserved column")
        return self


class FeatureSetUpdate(Contract):
    """What may change in place. `features`, when given, is the whole new list; adding to it is always allowed."""

    description: Description | None = None
    features: FeatureList | None = None
    new_version: bool = Field(
        default=False,
        description="Consent to remove or retype features. Their old values are then no longer read.",
    )
    ttl_seconds: TtlSeconds | None = Field(None, description="An explicit null removes the limit.")
    online: bool | None = None
    tags: Tags | None = None
    owner: Label | None = None

    @field_validator("features")
    @classmethod
    def _features(cls, features: list[FeatureCreate] | None) -> list[FeatureCreate] | None:
        return None if features is None else _check_features(features)


class Feature(Answer):
    """One feature of a set."""

    name: Name
    type: FeatureType
    description: str = ""
    since_version: int = Field(description="The version of the set that brought the feature in its present type.")


class FeatureSet(Answer):
    """A feature set as it is now."""

    id: Id
    name: Name
    description: str
    entity: Name
    version: int = Field(description="Goes up by one with each change of the features.")
    features: list[Feature]
    ttl_seconds: int | None
    online: bool
    tags: list[str]
    owner: str | None
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None


class FeatureSetVersion(Answer):
    """The features of a set as they were in one version."""

    version: int
    features: list[Feature]
    created_at: Timestamp
    created_by: str


class RowsCreate(Contract):
    """Rows to ingest: each holds the entity column, `event_timestamp` and features. A feature left out is null."""

    rows: list[JsonObject] = Field(
        min_length=1,
        examples=[[{"entity_id": "user_123", "event_timestamp": "2026-01-31T09:00:00Z", "age": 33}]],
    )


class IngestResult(Answer):
    """What an ingest did. All rows of a request are kept, or none."""

    feature_set: Name
    version: int
    batch_id: Id
    rows: int = Field(description="Rows kept: of several with the same entity and event timestamp, the last.")
    created_at: Timestamp
    online: OnlineState


class MaterializeRequest(Contract):
    """The window of event timestamps whose newest rows are written online. Both ends are inclusive and optional."""

    start: Timestamp | None = None
    end: Timestamp | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "MaterializeRequest":
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("end is before start")
        return self


class MaterializeResult(Answer):
    """How many entities the window holds; each is now online with its newest row."""

    feature_set: Name
    entities: int


FeatureReference = Annotated[str, Field(pattern=FEATURE_REFERENCE_PATTERN, examples=["user_features:age"])]
"""`feature`, or `feature_set:feature` where the plain name stands in several sets."""

EntityKey = Annotated[str, Field(min_length=1, max_length=MAX_ENTITY_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""The value that names one entity."""


class ServeRequest(Contract):
    """Many entities in one online read."""

    entities: list[EntityKey] = Field(min_length=1, max_length=MAX_SERVED_ENTITIES)
    features: list[FeatureReference] = Field(min_length=1, max_length=MAX_FEATURES)


class FeatureVector(Answer):
    """The values of one entity, keyed by the feature as it was asked for."""

    entity: str
    values: dict[str, Any]
    statuses: dict[str, ValueStatus]
    event_timestamps: dict[str, Timestamp | None]


class ServeResult(Answer):
    """One vector for each entity, in the order asked for."""

    vectors: list[FeatureVector]


class TrainingSetCreate(Contract):
    """Labels to join with features as they were at each label's `event_timestamp`."""

    name: Name | None = None
    description: Description = ""
    rows: list[JsonObject] = Field(
        min_length=1,
        max_length=MAX_TRAINING_ROWS,
        description="Each holds `event_timestamp`, the entity columns of the sets asked for, and anything else to keep.",
        examples=[[{"entity_id": "user_123", "event_timestamp": "2026-01-31T09:00:00Z", "label": 1}]],
    )
    features: list[FeatureReference] = Field(min_length=1, max_length=MAX_FEATURES)
    as_known: bool = Field(
        default=False,
        description="Use only rows that had also been ingested by the label's time. Backfilled rows then do not count.",
    )
    known_until: Timestamp | None = Field(
        None, description="Ignore rows ingested later. Absent: now. The answer states it; give it again to reproduce."
    )


class TrainingColumn(Answer):
    """A column of the result: a label column as it was sent, or a feature."""

    name: str
    type: str = Field(description="The Arrow type.")
    feature: str | None = Field(None, description="`feature_set:feature`; null for a label column.")


class TrainingSource(Answer):
    """The exact feature set version that a training set was made from."""

    feature_set: Name
    version: int
    entity: Name
    ttl_seconds: int | None
    features: list[str]


class TrainingSet(Answer):
    """A point-in-time join, kept as an immutable Parquet file."""

    id: Id
    name: str | None
    description: str
    digest: str = Field(description="SHA-256 of the Parquet file; the same inputs give the same digest.")
    size_bytes: int
    row_count: int
    columns: list[TrainingColumn]
    sources: list[TrainingSource]
    as_known: bool
    known_until: Timestamp
    created_at: Timestamp
    created_by: str

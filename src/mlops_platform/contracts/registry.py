"""Wire types of the Model Registry."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlops_platform.contracts.common import (
    Answer,
    AnyFloat,
    Contract,
    Description,
    Id,
    JsonObject,
    Label,
    Name,
    Tags,
    Text,
    Timestamp,
)

Metrics = Annotated[dict[Label, AnyFloat], Field(max_length=1000, examples=[{"accuracy": 0.95, "f1_score": 0.92}])]
Framework = Annotated[Text, Field(max_length=100, examples=["scikit-learn"])]


class VersionStatus(StrEnum):
    """`pending` while files may still be added; `ready` once the manifest is verified: from then on nothing changes."""

    PENDING = "pending"
    READY = "ready"


class ModelVersionCreate(Contract):
    """A new version; its model is made when absent."""

    name: Name
    version: Name | None = Field(None, description="Absent: the next whole number.", examples=["1.0.0"])
    framework: Framework | None = None
    metrics: Metrics = {}
    tags: Tags = []
    description: Description = ""
    params: JsonObject = {}
    run_id: Id | None = Field(None, description="The tracked run that produced it; stated as lineage.")
    training_set_id: Id | None = Field(None, description="The training set that it learned from; stated as lineage.")
    pipeline_run_id: Id | None = Field(None, description="The pipeline run that made it; stated as lineage.")


class ModelVersionUpdate(Contract):
    """What may change on a version: words about it, never what it is. Absent fields stay."""

    description: Description | None = None
    tags: Tags | None = None


class ModelVersion(Answer):
    """A version of a model."""

    id: str
    name: str
    version: str
    status: VersionStatus
    framework: str | None
    metrics: dict[str, AnyFloat]
    tags: list[str]
    description: str
    params: JsonObject
    aliases: list[str]
    run_id: str | None
    training_set_id: str | None
    pipeline_run_id: str | None
    manifest_digest: str | None
    size: int
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp


class RegisteredModelUpdate(Contract):
    """Absent fields stay."""

    description: Description | None = None


class RegisteredModel(Answer):
    """A model: a name under which versions stand."""

    id: str
    name: str
    description: str
    latest_version: str | None
    version_count: int
    aliases: dict[str, str]
    tags: list[str] = Field(description="All tags of all its versions.")
    created_at: Timestamp
    updated_at: Timestamp


class AliasSet(Contract):
    """Where an alias points from now on."""

    version: Name


class Alias(Answer):
    """A name for one version of a model, moved atomically."""

    name: str
    alias: str
    version: str
    updated_at: Timestamp

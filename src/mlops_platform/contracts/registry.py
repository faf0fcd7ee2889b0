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
    LineageEdge,
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


class ArtifactFormat(StrEnum):
    """What a file is, recognised by its content. Nothing is ever loaded to find out."""

    PICKLE = "pickle"
    JOBLIB = "joblib"
    ONNX = "onnx"
    TENSORFLOW_SAVED_MODEL = "tensorflow-saved-model"
    KERAS = "keras"
    HDF5 = "hdf5"
    PYTORCH = "pytorch"
    SAFETENSORS = "safetensors"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    CATBOOST = "catboost"
    SKOPS = "skops"
    GGUF = "gguf"
    PMML = "pmml"
    OTHER = "other"


class ArchiveFormat(StrEnum):
    """How several files travel as one."""

    ZIP = "zip"
    TAR = "tar"


class ModelOrder(StrEnum):
    """How a list of models is ordered."""

    NAME = "name"
    NEWEST = "newest"


class Relation(StrEnum):
    """What a lineage edge says. The docs say of each which end depends on which."""

    DERIVED_FROM = "derived_from"
    USED = "used"
    PRODUCED = "produced"
    POINTS_TO = "points_to"
    ROUTES_TO = "routes_to"
    PART_OF = "part_of"
    MEASURED_BY = "measured_by"
    VERSION_OF = "version_of"
    RUN_OF = "run_of"
    CONCLUDED_WITH = "concluded_with"
    FAVOURS = "favours"


class LineageDirection(StrEnum):
    """`upstream`: what it was made from. `downstream`: what is affected when it is wrong."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"
    BOTH = "both"


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
    manifest_digest: str | None = Field(description="SHA-256 over the manifest's canonical form; set when `ready`.")
    size: int = Field(description="Bytes of all its files together.")
    file_count: int
    formats: list[ArtifactFormat] = Field(
        description="What its files were recognised as, without `other`; set when `ready`."
    )
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp
    finalized_at: Timestamp | None


class Artifact(Answer):
    """One file of a version."""

    path: str = Field(description="Its logical path within the version.", examples=["weights/layer-1.bin"])
    sha256: str
    size: int
    format: ArtifactFormat
    stored_at: Timestamp


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


class LineageEdgeCreate(Contract):
    """An edge stated by hand. Both ends are URNs of this project, or short forms of them (`<kind>:<name>`)."""

    subject: Annotated[Text, Field(min_length=1, max_length=500, examples=["model-version:fraud/3"])]
    relation: Relation
    object: Annotated[Text, Field(min_length=1, max_length=500, examples=["training-set:0198c0ffee00700080000000deadbeef"])]


class LineageNode(Answer):
    """A thing in the graph; `distance` counts the edges from where the question started."""

    urn: str
    kind: str
    name: str
    distance: int


class LineageGraph(Answer):
    """The part of the lineage graph that a question reached."""

    root: str
    direction: LineageDirection
    depth: int
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    is_truncated: bool = Field(description="Whether the graph goes on past the most that one answer holds.")

"""Wire types of experiments that leave the platform whole and come back: everything that is kept, as it is kept.

What `GET .../export...` answers is what `POST .../import...` takes. See docs/reference/experiment-archive.md.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlops_platform.contracts.common import Answer, AnyFloat, Contract, Id, Integer, JsonValue, Label, Text, Timestamp
from mlops_platform.contracts.tracking import (
    ClientRunId,
    ExperimentName,
    MetricKey,
    ModelDirection,
    RetentionDays,
    RunStatus,
)
from mlops_platform.contracts.tracking_metrics import MetricContext, MetricGoal

MAX_IMPORTED_RUNS = 100
MAX_IMPORTED_POINTS = 10_000
MAX_IMPORTED_ARTIFACTS = 1000
MAX_MODEL_METRICS = 20_000
EXPORTED_POINTS = 10_000
"""How many points one page of an export holds."""

# Wider than what may be logged: whatever was kept once, and however it came there, can leave.
KeptText = Annotated[Text, Field(max_length=10_000)]
LongText = Annotated[Text, Field(max_length=1_000_000)]
Sha256 = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}$", examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"])
]
Microseconds = Annotated[int, Field(ge=0, le=253_402_300_799_999_999, examples=[1_790_000_000_000_000])]
ArchivedTags = Annotated[
    dict[Label, Annotated[Text, Field(max_length=100_000)]], Field(max_length=100_000, examples=[{"team": "vision"}])
]


class ParamKindName(StrEnum):
    """The type of a parameter."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STRING = "string"
    JSON = "json"


class ArchivedParam(Contract):
    """A parameter: its type, and its text as it was logged."""

    key: Label
    kind: ParamKindName
    text: Annotated[Text, Field(max_length=16_384, examples=["1e-3"])]


class ArchivedDataset(Contract):
    """A dataset, known by name and digest."""

    name: Annotated[Text, Field(min_length=1, max_length=500)]
    digest: Annotated[Text, Field(min_length=1, max_length=250)]
    source_type: LongText
    source: LongText
    columns: Annotated[Text, Field(max_length=1_100_000)] | None = None
    profile: Annotated[Text, Field(max_length=17_000_000)] | None = None


class ArchivedInput(Contract):
    """That a run read a dataset."""

    name: Annotated[Text, Field(min_length=1, max_length=500)]
    digest: Annotated[Text, Field(min_length=1, max_length=250)]
    context: LongText | None = None
    tags: ArchivedTags = Field(default_factory=dict)
    logged_at: Timestamp


class ArchivedTie(Contract):
    """That a run read or made a logged model."""

    model_id: Id
    direction: ModelDirection
    step: Integer = 0


class ArchivedComment(Contract):
    """A comment, with its author's name."""

    id: ClientRunId
    author: KeptText
    text: Annotated[Text, Field(min_length=1, max_length=100_000)]
    created_at: Timestamp
    edited_at: Timestamp | None = None


class ArchivedRun(Contract):
    """A run with all that is not points and files. `points` and `artifacts` say how many of those there are."""

    id: ClientRunId
    run_name: Annotated[KeptText, Field(min_length=1)]
    status: RunStatus
    status_reason: KeptText | None = None
    user: KeptText | None = None
    created_by: KeptText
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None
    parent_run_id: Id | None = None
    group: KeptText | None = None
    notes: LongText | None = None
    heartbeat_seconds: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    params: Annotated[list[ArchivedParam], Field(max_length=100_000)] = Field(default_factory=list)
    tags: ArchivedTags = Field(default_factory=dict)
    inputs: Annotated[list[ArchivedInput], Field(max_length=100_000)] = Field(default_factory=list)
    models: Annotated[list[ArchivedTie], Field(max_length=100_000)] = Field(default_factory=list)
    comments: Annotated[list[ArchivedComment], Field(max_length=100_000)] = Field(default_factory=list)
    points: Annotated[int, Field(ge=0)] | None = None
    artifacts: Annotated[int, Field(ge=0)] | None = None


class ArchivedGoal(Contract):
    """Which values of a metric are better."""

    key: MetricKey
    goal: MetricGoal
    updated_at: Timestamp


class ArchivedView(Contract):
    """A saved view."""

    id: ClientRunId
    name: Label
    filter: Annotated[Text, Field(max_length=10_000)] = ""
    order_by: Annotated[list[Text], Field(max_length=100)] = Field(default_factory=list)
    columns: Annotated[list[Text], Field(max_length=1000)] = Field(default_factory=list)
    charts: Annotated[list[JsonValue], Field(max_length=100)] = Field(default_factory=list)
    created_by: KeptText
    created_at: Timestamp
    updated_at: Timestamp


class ArchivedExperiment(Contract):
    """An experiment without its runs."""

    id: ClientRunId
    name: ExperimentName
    number: Annotated[int, Field(ge=0)] | None = None
    description: LongText | None = None
    artifact_location: Annotated[Text, Field(max_length=10_000)] | None = None
    tags: ArchivedTags = Field(default_factory=dict)
    owner: KeptText | None = None
    retention_days: RetentionDays | None = None
    created_by: KeptText
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None
    archived_at: Timestamp | None = None
    baseline_run_id: Id | None = None
    goals: Annotated[list[ArchivedGoal], Field(max_length=1000)] = Field(default_factory=list)
    views: Annotated[list[ArchivedView], Field(max_length=1000)] = Field(default_factory=list)


class ArchivedModelStatus(StrEnum):
    """How far a logged model is."""

    PENDING = "PENDING"
    READY = "READY"
    UPLOAD_FAILED = "UPLOAD_FAILED"


class ArchivedModelMetric(Contract):
    """A point that speaks of a logged model."""

    run_id: Id
    key: MetricKey
    step: Integer = 0
    timestamp: Timestamp
    value: AnyFloat
    dataset_name: Annotated[Text, Field(max_length=500)] | None = None
    dataset_digest: Annotated[Text, Field(max_length=250)] | None = None


class ArchivedModel(Contract):
    """A logged model without its files."""

    id: ClientRunId
    name: KeptText
    status: ArchivedModelStatus
    model_type: KeptText | None = None
    source_run_id: Id | None = None
    params: ArchivedTags = Field(default_factory=dict)
    tags: ArchivedTags = Field(default_factory=dict)
    created_by: KeptText
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None
    metrics: Annotated[list[ArchivedModelMetric], Field(max_length=MAX_MODEL_METRICS)] = Field(default_factory=list)
    artifacts: Annotated[int, Field(ge=0)] | None = None


class ArchivedOwner(StrEnum):
    """What files belong to."""

    RUNS = "runs"
    MODELS = "models"


class ArchivedArtifact(Answer):
    """A file of a run or of a logged model, which is its owner."""

    owner_id: Id
    path: str
    size: int
    sha256: str
    content_type: str
    created_at: Timestamp


class ArchivedKey(Contract):
    """The key of a metric."""

    name: MetricKey
    context: MetricContext = Field(default_factory=dict)


class PointColumns(Contract):
    """Points as columns of one length. `run` and `key` are places in `run_ids` and `keys`.

    `arrived` says that the server took the time of arrival, so that the time is no part of what a point is known by.
    """

    run_ids: Annotated[list[Id], Field(max_length=MAX_IMPORTED_POINTS)]
    keys: Annotated[list[ArchivedKey], Field(max_length=MAX_IMPORTED_POINTS)]
    run: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_IMPORTED_POINTS, examples=[[0]])]
    key: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_IMPORTED_POINTS, examples=[[0]])]
    step: Annotated[list[Integer], Field(max_length=MAX_IMPORTED_POINTS, examples=[[1]])]
    time_us: Annotated[list[Microseconds], Field(max_length=MAX_IMPORTED_POINTS, examples=[[1_790_000_000_000_000]])]
    value: Annotated[list[AnyFloat], Field(max_length=MAX_IMPORTED_POINTS, examples=[[0.5]])]
    arrived: Annotated[list[bool], Field(max_length=MAX_IMPORTED_POINTS, examples=[[False]])]


class ExportedPoints(Answer):
    """A page of points, by run, key, step, time and value, in the columns that an import takes."""

    run_ids: list[Id]
    keys: list[ArchivedKey]
    run: list[int]
    key: list[int]
    step: list[int]
    time_us: list[int]
    value: list[AnyFloat]
    arrived: list[bool]
    next_page_token: str | None = None


class ExportedRuns(Answer):
    """A page of runs, and the datasets that they name."""

    items: list[ArchivedRun]
    datasets: list[ArchivedDataset]
    next_page_token: str | None = None


class ExperimentImport(Contract):
    """An experiment to bring in. With `name` it gets another one."""

    experiment: ArchivedExperiment
    name: ExperimentName | None = None


class ImportOutcome(StrEnum):
    """What became of something that was brought in.

    `created`: it is new, or has yet to be finished: points and files may follow. `unchanged`: it was there with this
    content. `conflict`: it was there with other content, and nothing of it was changed.
    """

    CREATED = "created"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"


class Imported(Answer):
    """What became of one thing. `differs` names what is not the same; `left_out` what could not be kept."""

    id: Id
    outcome: ImportOutcome
    differs: list[str] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list)


class ExperimentImported(Imported):
    """The experiment that the runs belong into."""

    name: str


class RunsImport(Contract):
    """Runs to bring in, parents first, and the datasets that they name.

    With `follow`, a run that an import has not finished may have gone on since, and what is new of it is added.
    """

    runs: Annotated[list[ArchivedRun], Field(min_length=1, max_length=MAX_IMPORTED_RUNS)]
    datasets: Annotated[list[ArchivedDataset], Field(max_length=10_000)] = Field(default_factory=list)
    follow: bool = False


class ModelsImport(Contract):
    """Logged models to bring in, before the runs that name them."""

    models: Annotated[list[ArchivedModel], Field(min_length=1, max_length=MAX_IMPORTED_RUNS)]


class ImportAnswer(Answer):
    """What became of each, in the order of the request."""

    items: list[Imported]


class KeptArtifact(Contract):
    """A file that was uploaded, and when it was first stored."""

    path: Annotated[Text, Field(min_length=1, max_length=1024)]
    sha256: Sha256
    created_at: Timestamp


class ImportEnd(Contract):
    """A run or logged model whose points and files have all been sent. With `more`, further files of it follow."""

    id: Id
    artifacts: Annotated[list[KeptArtifact], Field(max_length=MAX_IMPORTED_ARTIFACTS)] = Field(default_factory=list)
    more: bool = False


class ImportFinish(Contract):
    """What is complete. `experiment` says that the whole is, and comes last."""

    runs: Annotated[list[ImportEnd], Field(max_length=MAX_IMPORTED_RUNS)] = Field(default_factory=list)
    models: Annotated[list[ImportEnd], Field(max_length=MAX_IMPORTED_RUNS)] = Field(default_factory=list)
    experiment: bool = False


class ImportFinished(Answer):
    """What was completed by this request; what was complete before is not counted again."""

    runs: int
    models: int
    experiment: bool

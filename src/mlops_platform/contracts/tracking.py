"""Wire types of Experiment Tracking."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from mlops_platform.contracts.common import (
    Answer,
    AnyFloat,
    Contract,
    Description,
    Id,
    Integer,
    JsonObject,
    Label,
    Text,
    Timestamp,
)
from mlops_platform.contracts.notebook import Displayed
from mlops_platform.contracts.tracking_metrics import MetricContext, MetricGoal

MAX_PARAMS = 1000
MAX_TAGS = 1000
MAX_TAG_VALUE = 8000
MAX_NOTES = 100_000
MAX_EXPERIMENTS = 200
MAX_ORDER_KEYS = 4
MAX_REASON = 2000
EARLIEST_YEAR = 2000
LATEST_YEAR = 2100


def _no_control_characters(value: str) -> str:
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise ValueError("must not contain control characters")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _plausible(moment: datetime) -> datetime:
    if not EARLIEST_YEAR <= moment.year < LATEST_YEAR:
        looks = "; a date in January 1970 is seconds that something read as milliseconds" if moment.year == 1970 else ""
        raise ValueError(f"lies outside the years {EARLIEST_YEAR} to {LATEST_YEAR}{looks}")
    return moment


RunTime = Annotated[Timestamp, AfterValidator(_plausible)]
"""When a run began or ended: a time between 2000 and 2100."""

ExperimentName = Annotated[
    Text,
    Field(min_length=1, max_length=500, examples=["model-optimization-2024"]),
    AfterValidator(_no_control_characters),
    AfterValidator(_not_blank),
]
"""The name of an experiment: any text of 1 to 500 characters; `/` makes folders."""

RunName = Annotated[Text, Field(min_length=1, max_length=500, examples=["lstm_dropout_0.3"]), AfterValidator(_not_blank)]
"""The name of a run; need not be unique."""

MetricKey = Annotated[Label, AfterValidator(_no_control_characters)]
"""The key of a metric: 1 to 250 characters, such as `train/loss`."""

KeyValueTags = Annotated[
    dict[Label, Annotated[Text, Field(max_length=MAX_TAG_VALUE)]],
    Field(max_length=MAX_TAGS, examples=[{"team": "vision"}]),
]
"""Tags: key and text."""

TagChanges = Annotated[
    dict[Label, Annotated[Text, Field(max_length=MAX_TAG_VALUE)] | None],
    Field(max_length=MAX_TAGS, examples=[{"team": "vision", "draft": None}]),
]
"""Tags to set; null removes one."""

Urn = Annotated[
    Text,
    Field(pattern=r"^urn:mlops:[^\s:]{1,64}:[a-z][a-z-]{0,31}:\S{1,300}$", max_length=500),
    AfterValidator(_no_control_characters),
]
"""`urn:mlops:<project>:<kind>:<name or id>`."""


HeartbeatSeconds = Annotated[int, Field(ge=5, le=604_800, examples=[60])]
"""How long a run may be silent before it counts as dead."""

Writer = Annotated[Label, AfterValidator(_no_control_characters), Field(examples=["trainer-1:4711:9f3a"])]
"""Names one process that writes a run: unique to it, and telling to people."""

RetentionDays = Annotated[int, Field(ge=1, le=36_500, examples=[30])]
"""For how many days a deleted run can be restored."""

ClientRunId = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$",
        examples=["0198c0ffee007000a000000000c0ffee"],
        max_length=32,
    ),
]
"""A UUIDv7 as 32 lowercase hex digits, made by whoever starts the run."""


class RunStatus(StrEnum):
    """Where a run stands."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class DeletedFilter(StrEnum):
    """Whether a list holds what was deleted (and can be restored)."""

    EXCLUDE = "exclude"
    INCLUDE = "include"
    ONLY = "only"


class ExperimentCreate(Contract):
    """A new experiment."""

    name: ExperimentName
    description: Description | None = None
    tags: KeyValueTags = Field(default_factory=dict)
    owner: Label | None = None
    retention_days: RetentionDays | None = None


class ExperimentUpdate(Contract):
    """What to change; a field that is left out stays. A tag that is null is removed, and `retention_days` of 0."""

    name: ExperimentName | None = None
    description: Description | None = None
    tags: TagChanges = Field(default_factory=dict)
    owner: Label | None = None
    retention_days: Annotated[int, Field(ge=0, le=36_500)] | None = None


class Experiment(Displayed):
    """An experiment. `runs` counts its live runs by status; `number` is its id where ids must be integers (MLflow)."""

    id: Id
    number: int | None = None
    name: str
    description: str | None = None
    tags: dict[str, str]
    runs: dict[RunStatus, int]
    run_count: int
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None
    owner: str | None = None
    archived_at: Timestamp | None = None
    retention_days: int | None = None
    baseline_run_id: Id | None = None


class RunCreate(Contract):
    """A new run. Nested parameters are flattened with dots; a name is made up when none is given.

    With an `id` of its own a run that was recorded offline is made once, however often it is sent.
    """

    id: ClientRunId | None = None
    run_name: RunName | None = None
    parameters: JsonObject = Field(default_factory=dict, examples=[{"learning_rate": 0.001, "batch_size": 32}])
    tags: KeyValueTags = Field(default_factory=dict)
    parent_run_id: Id | None = None
    user: Label | None = None
    start_time: RunTime | None = None
    status: RunStatus = RunStatus.RUNNING
    notes: Annotated[Text, Field(max_length=MAX_NOTES)] | None = None
    group: Label | None = None
    heartbeat_seconds: HeartbeatSeconds | None = None
    writer: Writer | None = None


class RunUpdate(Contract):
    """What to change; a field that is left out stays. A final status sets `end_time` when none is given.

    An empty `group` takes the run out of its group. With `writer` the change is refused when another one writes the run.
    """

    run_name: RunName | None = None
    status: RunStatus | None = None
    start_time: RunTime | None = None
    end_time: RunTime | None = None
    notes: Annotated[Text, Field(max_length=MAX_NOTES)] | None = None
    tags: TagChanges = Field(default_factory=dict)
    group: Annotated[Text, Field(max_length=250)] | None = None
    status_reason: Annotated[Text, Field(max_length=MAX_REASON)] | None = None
    writer: Writer | None = None


class Run(Displayed):
    """A run with its parameters, tags and the last value of each metric."""

    id: Id
    experiment_id: Id
    run_name: str
    status: RunStatus
    user: str | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    duration_seconds: float | None = None
    parent_run_id: Id | None = None
    notes: str | None = None
    parameters: dict[str, Any]
    tags: dict[str, str]
    metrics: dict[str, AnyFloat]
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None
    group: str | None = None
    status_reason: str | None = None
    heartbeat_seconds: int | None = None


class Params(Contract):
    """Parameters to add. They never change: the same value again is fine, another one is a conflict."""

    parameters: JsonObject = Field(examples=[{"optimizer": {"name": "adam", "lr": 0.001}}])


class TagUpdate(Contract):
    """Tags to set; null removes one."""

    tags: TagChanges


class MetricPoint(Contract):
    """The flat body of one observation: every other field is a metric.

    `step` defaults to 0. `timestamp` is RFC 3339 or integer milliseconds; left out, it is the time of arrival. `context` is
    part of the key of each metric beside it (a number under this name is a metric like any other).
    """

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, AnyFloat]

    step: Integer = 0
    timestamp: Timestamp | Annotated[int, Field(ge=0)] | None = None
    context: MetricContext | AnyFloat | None = None


class MetricsAccepted(Answer):
    """What became of the points: `stored` are new, `duplicates` were there already."""

    accepted: int
    stored: int
    duplicates: int


class Metric(Answer):
    """What is kept of one metric of a run. `last` is the value of the greatest (step, timestamp, value).

    `min`, `max` and `mean` leave NaN out; they are null when nothing else was logged. `best` is one of the two by the goal
    that the experiment declares for the key, and null without one.
    """

    key: str
    context: dict[str, str] = Field(default_factory=dict)
    last: AnyFloat
    step: int
    timestamp: Timestamp
    min: AnyFloat | None
    max: AnyFloat | None
    mean: AnyFloat | None
    best: AnyFloat | None = None
    goal: MetricGoal | None = None
    count: int


class Point(Answer):
    """One point of a metric's history."""

    key: str
    context: dict[str, str] = Field(default_factory=dict)
    step: int
    timestamp: Timestamp
    value: AnyFloat


class RunFilter(Contract):
    """A search over runs. `fields` keeps only these of `parameters`, `metrics` and `tags`, such as `metrics.accuracy`.

    The language of `filter` and `order_by` is described in docs/reference/search-language.md.
    """

    filter: str = Field("", examples=["metrics.accuracy > 0.9 AND params.learning_rate <= 0.01"])
    order_by: Annotated[list[str], Field(max_length=MAX_ORDER_KEYS)] = Field(
        default_factory=list, examples=[["metrics.accuracy DESC"]]
    )
    deleted: DeletedFilter = DeletedFilter.EXCLUDE
    fields: Annotated[list[Label], Field(max_length=1000)] | None = None
    page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    page_token: Annotated[str, Field(max_length=20_000)] | None = None


class RunSearch(RunFilter):
    """A search over the runs of some experiments, or of all live ones when none is named."""

    experiment_ids: Annotated[list[Id], Field(max_length=MAX_EXPERIMENTS)] = Field(default_factory=list)


class LineageStated(Answer):
    """The facts that were stated; the Model Registry answers for the graph."""

    subject: str
    relation: str
    objects: list[str]


class Artifact(Answer):
    """One artifact of a run."""

    path: str
    size: int
    sha256: str
    content_type: str
    created_at: Timestamp


class ArtifactEntry(Answer):
    """One line of a listing: a file, or a folder with what lies below it."""

    path: str
    is_folder: bool
    size: int
    files: int
    sha256: str | None = None
    content_type: str | None = None
    created_at: Timestamp | None = None


class DatasetInput(Answer):
    """A dataset that a run read, known by name and digest. `source`, `columns` and `profile` are texts as logged."""

    name: str
    digest: str
    source_type: str
    source: str
    columns: str | None = None
    profile: str | None = None
    context: str | None = None
    tags: dict[str, str]
    logged_at: Timestamp


class ModelDirection(StrEnum):
    """Whether a run read a logged model or made it."""

    INPUT = "input"
    OUTPUT = "output"


class RunModel(Answer):
    """A logged model that a run read or made. `path` is where its files lie among the artifacts of the run that made it."""

    id: str
    direction: ModelDirection
    step: int
    name: str
    status: str
    model_type: str | None = None
    path: str | None = None
    params: dict[str, str]
    tags: dict[str, str]
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None

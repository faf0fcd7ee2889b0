"""Wire types of the Pipeline Orchestrator."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from mlops_platform.contracts.common import Answer, Contract, Description, Id, JsonObject, JsonValue, Name, Text, Timestamp

MAX_TASKS = 10_000
MAX_PARAMETERS = 200
MAX_RETRIES = 100
MAX_DELAY_SECONDS = 86_400
MAX_TIMEOUT_SECONDS = 7 * 86_400
MAX_CATCH_UP = 100
ENTRY_POINT_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
PARAMETER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"


class ParameterType(StrEnum):
    """The JSON types that a parameter can have."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ARRAY = "array"


class PipelineRunState(StrEnum):
    """Where a run stands. `queued` waits for an earlier run of its schedule; `cancelling` waits for processes to end."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskRunState(StrEnum):
    """Where a task of a run stands. `expanded` is a fan-out whose items run; `retry_wait` waits for its next attempt."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    RETRY_WAIT = "retry_wait"
    EXPANDED = "expanded"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """How one attempt of a task stands. `crashed`: its process died; `lost`: its worker fell silent."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    EXPANDED = "expanded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    LOST = "lost"
    CANCELLED = "cancelled"


class RunTrigger(StrEnum):
    """What started a run."""

    MANUAL = "manual"
    SCHEDULE = "schedule"


class CatchUp(StrEnum):
    """What happens to instants that passed while no scheduler was alive or the schedule was paused."""

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"


class Overlap(StrEnum):
    """What happens when an instant comes while an earlier run of the schedule is still open."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class ParameterSpec(Contract):
    """A typed parameter. One without a default must be given to each run."""

    type: ParameterType
    default: JsonValue = None
    choices: Annotated[list[JsonValue], Field(max_length=100)] | None = None
    description: Description | None = None


class Resources(Contract):
    """What one attempt takes of the worker that runs it."""

    cpus: Annotated[float, Field(gt=0, le=1024)] = 1
    memory_mb: Annotated[int, Field(ge=0, le=16 * 1024**2)] = 0
    gpus: Annotated[int, Field(ge=0, le=64)] = 0


class TaskSpec(Contract):
    """One task: an importable function, its arguments, what it waits for, and what happens when it fails.

    Strings in `arguments` may refer to `${params.x}`, `${tasks.a.result}` (also `.key` and `.0` below it), `${run.id}`
    and, in a fan-out, `${item}`. A reference to a task is a dependency. `$${` stands for a literal `${`.
    """

    name: Name
    entry_point: Annotated[str, Field(pattern=ENTRY_POINT_PATTERN, max_length=300, examples=["churn.training:train_model"])]
    arguments: JsonObject = {}
    depends_on: Annotated[list[Name], Field(max_length=MAX_TASKS)] = []
    for_each: JsonValue = Field(
        None, description="A list, or a reference to one: the task runs once for each item, as `${item}`."
    )
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] = 0
    retry_delay_seconds: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS)] = 1
    retry_on_loss: bool = Field(
        default=True, description="Whether a new attempt is made when a worker falls silent. No: the task fails."
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] | None = None
    resources: Resources = Resources()


class ScheduleSpec(Contract):
    """When a pipeline runs by itself. Wall-clock times follow the time zone through daylight saving changes."""

    cron: Annotated[str, Field(min_length=1, max_length=200, examples=["30 2 * * *"])]
    time_zone: Annotated[str, Field(min_length=1, max_length=100, examples=["Europe/Paris"])] = "UTC"
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_limit: Annotated[int, Field(ge=1, le=MAX_CATCH_UP)] = 10
    overlap: Overlap = Overlap.QUEUE
    parameters: JsonObject = {}


class PipelineCreate(Contract):
    """A pipeline as a document. The same parameters and tasks are the same version."""

    name: Name
    description: Description | None = None
    parameters: Annotated[
        dict[Annotated[str, Field(pattern=PARAMETER_PATTERN)], ParameterSpec], Field(max_length=MAX_PARAMETERS)
    ] = {}
    tasks: Annotated[list[TaskSpec], Field(min_length=1, max_length=MAX_TASKS)]
    schedule: ScheduleSpec | None = None


class PipelineUpdate(Contract):
    """What can change without a new version."""

    description: Description | None = None


class ScheduleUpdate(Contract):
    """Pause or resume."""

    is_paused: bool


class PipelineRunCreate(Contract):
    """Parameters that differ from their defaults, and the version when it is not the latest."""

    parameters: JsonObject = {}
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class Schedule(Answer):
    """A schedule and when it fires next."""

    cron: str
    time_zone: str
    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap
    parameters: dict[str, Any]
    is_paused: bool
    next_at: Timestamp | None
    last_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class Pipeline(Answer):
    """A pipeline, without the documents of its versions."""

    id: Id
    name: str
    description: str | None
    current_version: int = Field(description="The version posted last: what a run takes when it names none.")
    schedule: Schedule | None = None
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp
    deleted_at: Timestamp | None = None


class PipelineVersion(Answer):
    """An immutable version: its number, the digest of its content, and the content."""

    id: Id
    pipeline: str
    version: int
    digest: str
    parameters: dict[str, ParameterSpec]
    tasks: list[TaskSpec]
    created_by: str
    created_at: Timestamp


class PipelineVersionSummary(Answer):
    """A version in a list, without its content."""

    id: Id
    version: int
    digest: str
    task_count: int
    created_by: str
    created_at: Timestamp


class TaskError(Answer):
    """Why an attempt did not succeed."""

    type: str
    message: str
    traceback: str | None = None


class PipelineRun(Answer):
    """One execution of one version."""

    id: Id
    pipeline: str
    version: int
    state: PipelineRunState
    trigger: RunTrigger
    scheduled_for: Timestamp | None
    parameters: dict[str, Any]
    created_by: str
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class PipelineRunDetail(PipelineRun):
    """A run with the number of its tasks in each state."""

    task_counts: dict[TaskRunState, int]


class TaskRun(Answer):
    """A task of a run. `item` is the index within a fan-out; the fan-out itself has none."""

    id: Id
    task: str
    item: int | None
    state: TaskRunState
    attempt: int
    pending: int
    not_before: Timestamp | None
    worker: str | None
    started_at: Timestamp | None
    finished_at: Timestamp | None
    error: TaskError | None


class Attempt(Answer):
    """One try at a task. Its number is the fence: only the latest may commit a result."""

    number: int
    state: AttemptState
    worker: str
    started_at: Timestamp
    finished_at: Timestamp | None
    exit_code: int | None
    error: TaskError | None


class TaskRunDetail(TaskRun):
    """A task of a run with its result and its attempts."""

    result: Any
    attempts: list[Attempt]


class LogLine(Answer):
    """A line that a task wrote."""

    line: int
    at: Timestamp
    stream: str
    text: Text


class TaskLogs(Answer):
    """Lines of one attempt. Ask again from `next_offset` until `is_complete`."""

    attempt: int
    lines: list[LogLine]
    next_offset: int
    is_complete: bool

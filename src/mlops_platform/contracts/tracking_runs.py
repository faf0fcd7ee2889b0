"""Wire types of a run's life: who writes it, moving and copying it, and changing many at once."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlops_platform.contracts.common import Answer, Contract, Id, JsonValue, Label, Text, Timestamp
from mlops_platform.contracts.tracking import (
    MAX_EXPERIMENTS,
    MAX_REASON,
    DeletedFilter,
    HeartbeatSeconds,
    RunName,
    TagChanges,
    Writer,
)

MAX_BULK_RUNS = 1000


class Heartbeat(Contract):
    """A sign of life. With `writer` it is refused when another one writes the run."""

    writer: Writer | None = None
    heartbeat_seconds: HeartbeatSeconds | None = None


class RunResume(Contract):
    """Go on with a run. Refused while another writer has it, unless `take_over` says that it is dead."""

    writer: Writer
    heartbeat_seconds: HeartbeatSeconds | None = None
    take_over: bool = False


class RunLease(Answer):
    """Who writes a run. `due_at` is when it counts as dead; null when it promised no heartbeat."""

    run_id: Id
    writer: str
    taken_at: Timestamp
    last_heartbeat_at: Timestamp
    heartbeat_seconds: int | None = None
    due_at: Timestamp | None = None


class ParamCorrection(Contract):
    """The corrected value of a parameter that was logged wrong, and why."""

    key: Label
    value: JsonValue
    reason: Annotated[Text, Field(min_length=3, max_length=MAX_REASON, examples=["the flag was read as a percentage"])]


class RunMove(Contract):
    """Where a run goes."""

    experiment_id: Id


class RunCopy(Contract):
    """Where the copy goes, and what it is called; the name of the original when left out."""

    experiment_id: Id
    run_name: RunName | None = None
    with_artifacts: bool = True
    with_metrics: bool = True


class BulkAction(StrEnum):
    """What to do with each of many runs."""

    DELETE = "delete"
    RESTORE = "restore"
    TAG = "tag"
    MOVE = "move"


class RunsMatching(Contract):
    """The runs that a search finds, instead of their ids."""

    filter: str = Field("", examples=["metrics.accuracy < 0.5"])
    experiment_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_EXPERIMENTS)]
    deleted: DeletedFilter = DeletedFilter.EXCLUDE


class BulkChange(Contract):
    """One action on many runs, named by id or found by a search: all of them or none."""

    action: BulkAction
    run_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_BULK_RUNS)] | None = None
    search: RunsMatching | None = None
    tags: TagChanges = Field(default_factory=dict)
    experiment_id: Id | None = None


class BulkChanged(Answer):
    """What became of them: `unchanged` were already so."""

    action: BulkAction
    changed: int
    unchanged: int
    run_ids: list[Id]


class RunsPurged(Answer):
    """What was removed for ever."""

    runs: int
    artifacts: int
    bytes: int

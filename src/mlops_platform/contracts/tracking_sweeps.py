"""Wire types of sweeps: a search space, how it is searched, and the trials that search it."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from mlops_platform.contracts.common import Answer, AnyFloat, Contract, Id, Integer, JsonValue, Label, Text, Timestamp
from mlops_platform.contracts.notebook import Displayed
from mlops_platform.contracts.tracking import (
    MAX_REASON,
    HeartbeatSeconds,
    KeyValueTags,
    RunName,
    RunStatus,
    Writer,
)
from mlops_platform.contracts.tracking_metrics import MetricGoal, SpelledKey

MAX_TRIALS = 10_000
MAX_DIMENSIONS = 100
MAX_CHOICES = 500
MAX_OBJECTIVES = 5

Bound = Integer | float
"""A bound keeps its type: `1` and `8` make a range of integers, `1.0` and `8.0` one of real numbers."""

Choices = Annotated[list[JsonValue], Field(min_length=1, max_length=MAX_CHOICES)]


class SweepMethod(StrEnum):
    """How the space is searched."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"
    QMC = "qmc"


class ParamType(StrEnum):
    """What a searched parameter is. Left out, its other fields say it."""

    FLOAT = "float"
    INT = "int"
    CHOICE = "choice"


class SweepParam(Contract):
    """One searched parameter: `values`, or `min` and `max`, or a fixed `value`, or `parameters` nested in it.

    `when` makes it conditional: it is searched only where each parameter that is named there has one of the values.
    """

    type: ParamType | None = None
    values: Choices | None = None
    value: JsonValue = None
    min: Bound | None = None
    max: Bound | None = None
    step: Bound | None = None
    log: bool = False
    when: Annotated[dict[Label, JsonValue], Field(max_length=MAX_DIMENSIONS)] = Field(
        default_factory=dict, examples=[{"optimizer": ["sgd"]}]
    )
    parameters: Annotated[dict[Label, "SweepParam"], Field(max_length=MAX_DIMENSIONS)] | None = None


SearchSpace = Annotated[
    dict[Label, SweepParam],
    Field(
        min_length=1,
        max_length=MAX_DIMENSIONS,
        examples=[
            {
                "lr": {"min": 0.0001, "max": 0.1, "log": True},
                "optimizer": {"values": ["adam", "sgd"]},
                "momentum": {"min": 0.0, "max": 0.99, "when": {"optimizer": ["sgd"]}},
            }
        ],
    ),
]
"""What is searched: parameters by name; names may be nested, and are joined with dots."""


class Summary(StrEnum):
    """Which number of a metric's history is the value of a trial. `best` is the least or the greatest, by the goal."""

    LAST = "last"
    BEST = "best"


class Objective(Contract):
    """A metric that is made small or great. A sweep ends by itself when a trial reaches `target`."""

    metric: SpelledKey = Field(examples=["val_loss"])
    goal: MetricGoal = MetricGoal.MINIMIZE
    summary: Summary = Summary.LAST
    target: Annotated[float, Field(examples=[0.05])] | None = None


Objectives = Annotated[list[Objective], Field(min_length=1, max_length=MAX_OBJECTIVES)]


class PrunerKind(StrEnum):
    """Which trials are given up early."""

    NONE = "none"
    MEDIAN = "median"
    PERCENTILE = "percentile"
    ASHA = "asha"
    HYPERBAND = "hyperband"


class Pruner(Contract):
    """When a trial is given up. `median` and `percentile` compare values at one step; the others halve rung by rung."""

    kind: PrunerKind = PrunerKind.NONE
    percentile: Annotated[float, Field(ge=0, le=100)] = 50.0
    startup_trials: Annotated[int, Field(ge=0, le=MAX_TRIALS)] = 5
    warmup_steps: Annotated[int, Field(ge=0, le=10**12)] = 0
    interval_steps: Annotated[int, Field(ge=1, le=10**12)] = 1
    least_trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 1
    min_resource: Annotated[int, Field(ge=1, le=10**12)] = 1
    max_resource: Annotated[int, Field(ge=1, le=10**12)] | None = None
    reduction_factor: Annotated[int, Field(ge=2, le=100)] = 4
    early_stopping_rate: Annotated[int, Field(ge=0, le=20)] = 0


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
TrialLimit = Annotated[int, Field(ge=1, le=MAX_TRIALS, examples=[50])]
TimeLimit = Annotated[float, Field(gt=0, le=366 * 86_400, examples=[3600])]


class SweepCreate(Contract):
    """A new sweep. It is a run itself, and its trials are runs below it.

    `max_attempts`: how often a trial whose process died is handed out, the first time among them.
    """

    experiment_id: Id
    name: RunName | None = None
    method: SweepMethod = SweepMethod.TPE
    parameters: SearchSpace
    objectives: Objectives
    pruner: Pruner = Field(default_factory=Pruner)
    max_trials: TrialLimit | None = None
    timeout_seconds: TimeLimit | None = None
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    seed: Seed | None = None
    startup_trials: Annotated[int, Field(ge=1, le=1000)] = 10
    heartbeat_seconds: HeartbeatSeconds = 120
    tags: KeyValueTags = Field(default_factory=dict)
    parent_run_id: Id | None = None


class SweepStop(Contract):
    """Hand out no more trials. Those that are under way go on, and are still told."""

    reason: Annotated[Text, Field(max_length=MAX_REASON)] | None = None


class SweepResume(Contract):
    """Go on, with other limits where they are given. A time limit counts from now."""

    max_trials: TrialLimit | None = None
    timeout_seconds: TimeLimit | None = None


class SweepAsk(Contract):
    """A worker wants something to try."""

    writer: Writer | None = None
    heartbeat_seconds: HeartbeatSeconds | None = None
    run_name: RunName | None = None


class TrialState(StrEnum):
    """Where a trial stands. A `LOST` one was given back when its process died, or its run was ended from elsewhere."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    LOST = "LOST"


class TrialOutcome(StrEnum):
    """How a trial ended."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"


class Trial(Displayed):
    """One attempt at a point of the space: a run of its own, with the point as its parameters.

    `values` are those of the objectives, in their order; null where the run has not logged the metric.
    """

    number: int
    run_id: Id
    run_name: str
    state: TrialState
    slot: int
    attempt: int
    parameters: dict[str, Any]
    values: list[AnyFloat | None]
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    reason: str | None = None


class SweepAnswer(Answer):
    """A trial to work on, or none: then `status` says whether that may change, and `reason` why."""

    sweep_id: Id
    status: RunStatus
    trial: Trial | None = None
    reason: str | None = None
    retry_after_seconds: float | None = None


class SweepTell(Contract):
    """How a trial ended. Without `values` those count that the run has logged."""

    run_id: Id
    outcome: TrialOutcome = TrialOutcome.COMPLETE
    values: Annotated[list[AnyFloat], Field(max_length=MAX_OBJECTIVES)] | None = None
    reason: Annotated[Text, Field(max_length=MAX_REASON)] | None = None
    writer: Writer | None = None


class TrialTold(Answer):
    """The trial as it now stands, and whether the sweep goes on."""

    trial: Trial
    status: RunStatus


class PruneDecision(Answer):
    """Whether the trial should be given up, judged at its last reported step, and why."""

    should_prune: bool
    step: int | None = None
    reason: str | None = None


class Sweep(Displayed):
    """A sweep. `id` is that of its run, whose children are the trials; `status` is that of the run.

    `trials` counts them by state. `size` is how many points there are to try: the cells of the grid, or `max_trials`.
    """

    id: Id
    experiment_id: Id
    name: str
    status: RunStatus
    status_reason: str | None = None
    method: SweepMethod
    parameters: dict[str, Any]
    objectives: list[Objective]
    pruner: Pruner
    max_trials: int | None = None
    timeout_seconds: float | None = None
    deadline: Timestamp | None = None
    max_attempts: int
    seed: int
    startup_trials: int
    heartbeat_seconds: int
    size: int
    trials: dict[TrialState, int]
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp


class BestTrials(Answer):
    """The best trial; of several objectives, all that no other one beats in each (at most 1,000)."""

    items: list[Trial]


class HistoryPoint(Answer):
    """A complete trial in the order of the asking, and the best value so far of its objective."""

    number: int
    run_id: Id
    value: AnyFloat
    best: AnyFloat


class SweepHistory(Answer):
    """How one objective went."""

    metric: str
    goal: MetricGoal
    items: list[HistoryPoint]


class SweepImportance(Answer):
    """What each parameter is worth for an objective, by PED-ANOVA; together they are 1. Few trials say little."""

    metric: str
    trials: int
    importances: dict[str, float]

"""Wire types of metrics beyond their points: goals, truncation, and series for charts."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlops_platform.contracts.common import Answer, AnyFloat, Contract, Id, Integer, Text, Timestamp

MAX_SERIES_RUNS = 100
MAX_SERIES_KEYS = 50
MAX_SERIES_POINTS = 2000
MAX_SPELLED_KEY = 4000

MetricContext = Annotated[
    dict[Annotated[Text, Field(min_length=1, max_length=100)], Annotated[Text, Field(min_length=1, max_length=100)]],
    Field(max_length=8, examples=[{"split": "val"}]),
]
"""What tells series of one name apart, such as `{"split": "val"}`: at most 8 texts of at most 100 characters."""

SpelledKey = Annotated[Text, Field(min_length=1, max_length=MAX_SPELLED_KEY, examples=["loss{split=val}"])]
"""A metric key as the search language spells it: `loss`, or with its context `loss{split=val}`."""


class MetricGoal(StrEnum):
    """Which values of a metric are better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class MetricGoalSet(Contract):
    """The goal to declare for a metric."""

    goal: MetricGoal = Field(examples=["minimize"])


class ExperimentMetricGoal(Answer):
    """The declared goal of a metric in an experiment; it holds for every context of the key."""

    key: str
    goal: MetricGoal
    updated_at: Timestamp


class MetricsTruncate(Contract):
    """Which points to remove: those of `keys` (of all metrics when absent) whose step is `from_step` or more.

    The audit entry keeps the `reason`.
    """

    from_step: Integer = Field(examples=[1000])
    keys: Annotated[list[SpelledKey], Field(min_length=1, max_length=1000)] | None = None
    reason: Annotated[Text, Field(min_length=3, max_length=2000, examples=["crashed at step 1200"])] | None = None


class TruncatedMetric(Answer):
    """How many points one metric lost."""

    key: str
    context: dict[str, str] = Field(default_factory=dict)
    removed: int
    remaining: int


class MetricsTruncated(Answer):
    """What a truncation removed; metrics that lost nothing are left out."""

    removed: int
    metrics: list[TruncatedMetric]


class SeriesX(StrEnum):
    """What a series is drawn over."""

    STEP = "step"
    TIME = "time"
    RELATIVE_TIME = "relative_time"


class SeriesMethod(StrEnum):
    """How a long series is reduced."""

    MINMAX = "minmax"
    LTTB = "lttb"


class SeriesRequest(Contract):
    """Series of several metrics of several runs, for one chart or many."""

    runs: Annotated[list[Id], Field(min_length=1, max_length=MAX_SERIES_RUNS)]
    keys: Annotated[list[SpelledKey], Field(min_length=1, max_length=MAX_SERIES_KEYS)]
    x: SeriesX = SeriesX.STEP
    max_points: Annotated[int, Field(ge=4, le=MAX_SERIES_POINTS)] = 320
    method: SeriesMethod = SeriesMethod.MINMAX


class Series(Answer):
    """One metric of one run: `x` and `y` are columns of the same length, by x.

    `x` holds steps, milliseconds since 1970, or milliseconds since the first point of the run among these series.
    `points` says how many there are in all; `is_reduced` that not all of them are here.
    """

    run_id: Id
    key: str
    context: dict[str, str] = Field(default_factory=dict)
    points: int
    is_reduced: bool
    x: list[int | float]
    y: list[AnyFloat]


class SeriesAnswer(Answer):
    """The series that exist, by run and key in the order of the request."""

    items: list[Series]

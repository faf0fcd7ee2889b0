"""Wire types of comparing runs. All stands in columns: one list for each parameter and metric, in the runs' order."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from mlops_platform.contracts.common import Answer, AnyFloat, Contract, Id, Label, Timestamp
from mlops_platform.contracts.tracking import MetricKey, RunStatus
from mlops_platform.contracts.tracking_runs import RunsMatching

MAX_COMPARED_RUNS = 1000
MAX_COMPARED_KEYS = 200


class MetricSummary(StrEnum):
    """Which number stands for the whole history of a metric."""

    LAST = "last"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"


class Compare(Contract):
    """Which runs to compare, named by id or found by a search, and by what.

    `target` is the metric that correlations are with. `importance` asks for the importance of each parameter for it, too.
    """

    run_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_COMPARED_RUNS)] | None = None
    search: RunsMatching | None = None
    baseline_run_id: Id | None = None
    params: Annotated[list[Label], Field(max_length=MAX_COMPARED_KEYS)] | None = None
    metrics: Annotated[list[MetricKey], Field(max_length=MAX_COMPARED_KEYS)] | None = None
    summary: MetricSummary = MetricSummary.LAST
    target: MetricKey | None = None
    importance: bool = False


class ComparedRun(Answer):
    """One of the runs; its place in this list is its place in every column."""

    id: Id
    experiment_id: Id
    run_name: str
    status: RunStatus
    group: str | None = None
    start_time: Timestamp | None = None
    duration_seconds: float | None = None


class ComparedParam(Answer):
    """A parameter that is not the same in all runs. `absent` holds the places of the runs that lack it.

    Texts are cut after 200 characters.
    """

    key: str
    values: list[Any]
    absent: list[int]


class ComparedMetric(Answer):
    """A metric of the runs: the summary that was asked for, null where a run lacks it. `min` and `max` leave NaN out."""

    key: str
    values: list[AnyFloat | None]
    min: AnyFloat | None
    max: AnyFloat | None


class Axis(Answer):
    """One axis of a parallel-coordinates plot: where each run crosses it, from 0 to 1; null where it has no value.

    A number axis has a range and a scale (`linear`, or `log` where values span two orders of magnitude); the others have
    categories, evenly spaced.
    """

    field: str = Field(examples=["params.learning_rate"])
    scale: str = Field(examples=["log"])
    min: AnyFloat | None = None
    max: AnyFloat | None = None
    categories: list[str] | None = None
    positions: list[float | None]


class ParamCorrelation(Answer):
    """How a numeric parameter goes with the target, over the runs that have both. Null when one of them never varies."""

    key: str
    pearson: float | None
    spearman: float | None
    runs: int


class ParamImportance(Answer):
    """What a random forest makes of a parameter.

    `importance` is its share of the variance that the forest explains (mean decrease in impurity; all add up to 1).
    `permutation` is how much of R² is lost when its values are shuffled; given for the 20 most important.
    """

    key: str
    importance: float
    permutation: float | None = None
    permutation_std: float | None = None


class Importance(Answer):
    """`score` is R² on the runs that each tree did not see: near or below 0, the importances mean nothing."""

    score: float | None
    runs: int
    params: list[ParamImportance]


class Comparison(Answer):
    """Runs side by side. `omitted_params` and `omitted_metrics` count those beyond the first 200 by name."""

    runs: list[ComparedRun]
    baseline_run_id: Id | None = None
    params: list[ComparedParam]
    equal_params: int
    omitted_params: int
    metrics: list[ComparedMetric]
    omitted_metrics: int
    axes: list[Axis]
    correlations: list[ParamCorrelation]
    importance: Importance | None = None

"""Wire types of A/B Testing. The wire says "experiment" in its paths; the thing is an A/B test."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, FailFast, Field, StringConstraints

from mlops_platform.contracts.common import Answer, Contract, Description, Id, Label, Name, Text, Timestamp

MAX_VARIANTS = 20
MAX_METRICS = 50
MAX_BATCH = 10_000
MAX_VALUE = 1e100


class ABTestStatus(StrEnum):
    """Where a test stands. The moves between them are `ab_testing.domain.lifecycle`."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ARCHIVED = "archived"


class MetricKind(StrEnum):
    """How the outcomes of one unit become one number.

    `proportion`: 1 when any outcome is 1. `count`: their sum, 0 when there is none. `mean`: their mean; units without an
    outcome are left out.
    """

    PROPORTION = "proportion"
    MEAN = "mean"
    COUNT = "count"


class Goal(StrEnum):
    """Which direction is good."""

    INCREASE = "increase"
    DECREASE = "decrease"


class RouteReason(StrEnum):
    """Why a unit got this model version."""

    SPLIT = "split"
    OUTSIDE_TRAFFIC = "outside_traffic"
    NOT_STARTED = "not_started"
    PAUSED = "paused"
    STOPPED = "stopped"
    CONCLUDED = "concluded"


class Verdict(StrEnum):
    """What a comparison says, after the correction for several variants."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE_SHOWN = "no_difference_shown"
    NOT_ENOUGH_DATA = "not_enough_data"


Weight = Annotated[float, Field(strict=True, ge=0, le=1, examples=[0.5])]
Share = Annotated[float, Field(strict=True, gt=0, le=1, examples=[1.0])]
UnitId = Annotated[Text, StringConstraints(min_length=1, max_length=256), Field(examples=["user_123"])]
ModelVersionText = Annotated[Text, StringConstraints(min_length=1, max_length=300), Field(examples=["v1.0"])]
OutcomeValue = Annotated[
    Annotated[bool, Field(strict=True)] | Annotated[float, Field(strict=True, ge=-MAX_VALUE, le=MAX_VALUE)],
    Field(examples=[1], description="A number, or true and false for a proportion."),
]


class VariantCreate(Contract):
    """One variant: its share of the units, and the model version that they get."""

    name: Name
    weight: Weight
    model_version: ModelVersionText = Field(
        description="Free text such as `v1.0`, or `model/version` or `model@alias` of the registry."
    )


class OutcomeMetricCreate(Contract):
    """A metric that the test is judged by."""

    name: Name
    kind: MetricKind = MetricKind.PROPORTION
    goal: Goal = Goal.INCREASE
    is_primary: bool = False


class ABTestCreate(Contract):
    """A new test. It runs right away unless `status` is `draft`."""

    name: Name
    variants: list[VariantCreate] = Field(min_length=2, max_length=MAX_VARIANTS)
    description: Description = ""
    unit_type: Label = Field("user", description="What is randomised: user, session, device.")
    control: Name | None = Field(
        None, description="The variant that the others are compared with. Default: `control`, else the first."
    )
    metrics: list[OutcomeMetricCreate] = Field(
        default=[],
        max_length=MAX_METRICS,
        description="Empty: outcomes name the metrics; true and false make a proportion, numbers a mean.",
    )
    traffic_share: Share = Field(1.0, description="Share of all units that take part; the others get the control's model.")
    status: ABTestStatus = Field(ABTestStatus.RUNNING, description="`running` or `draft`.")


class VariantWeight(Contract):
    """A new weight for a variant; in a draft also a new model version. A weight of 0 sends it no more units."""

    name: Name
    weight: Weight
    model_version: ModelVersionText | None = None


class ABTestUpdate(Contract):
    """What may change. All fields are optional."""

    description: Description | None = None
    variants: list[VariantWeight] | None = Field(
        None,
        min_length=2,
        max_length=MAX_VARIANTS,
        description="All variants with their new weights. Units move only as far as the weights force them to.",
    )
    traffic_share: Share | None = None
    metrics: list[OutcomeMetricCreate] | None = Field(
        None, min_length=1, max_length=MAX_METRICS, description="Metrics to add, or to change by name."
    )


class ABTestStop(Contract):
    """How a test ends. With a winner all units get the winner's model version, else the control's."""

    winner: Name | None = None
    note: Description = ""


class Variant(Answer):
    """One variant."""

    name: str
    weight: float
    model_version: str
    is_control: bool


class OutcomeMetric(Answer):
    """One metric that the test is judged by."""

    name: str
    kind: MetricKind
    goal: Goal
    is_primary: bool


class ABTest(Answer):
    """A test and where it stands."""

    id: Id
    name: str
    description: str
    status: ABTestStatus
    unit_type: str
    traffic_share: float
    allocation_version: int = Field(description="Goes up with every change of weights or traffic share.")
    variants: list[Variant]
    metrics: list[OutcomeMetric]
    winner: str | None
    note: str
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    stopped_at: Timestamp | None


class SlotRange(Answer):
    """The slots from `start` up to and without `end` belong to `variant`."""

    start: int
    end: int
    variant: str


class Allocation(Answer):
    """All that a client needs to assign units by itself, exactly as the server does."""

    experiment: str
    allocation_version: int
    salt: str = Field(description="Hash `salt + 0x1f + unit id` in UTF-8 with SHA-256.")
    slots: int = Field(description="Bytes 0-7 of the hash pick the traffic slot, bytes 8-15 the variant slot.")
    traffic_slots: int = Field(description="Units whose traffic slot is below this take part.")
    ranges: list[SlotRange]


class Route(Answer):
    """Which model version a unit gets, and why."""

    experiment: str
    variant: str = Field(description="Whose model version it is: the control's for a unit that takes no part.")
    model_version: str
    user_id: str
    in_experiment: bool = Field(description="Whether the unit was assigned by the split; only then it counts.")
    allocation_version: int
    reason: RouteReason


class ExposureCreate(Contract):
    """A unit met a variant, as seen by a client that assigns by itself. Identity: test, unit, variant."""

    unit_id: UnitId
    variant: Name
    timestamp: Timestamp | None = Field(None, description="When it happened. Default: now.")
    allocation_version: int | None = Field(
        None, ge=1, le=2**31 - 1, description="The allocation that assigned the unit. Default: the current one."
    )


class OutcomeCreate(Contract):
    """What a unit did. Identity: `outcome_id`, else unit, metric and timestamp; a repetition changes nothing."""

    unit_id: UnitId
    metric: Name
    value: OutcomeValue
    timestamp: Timestamp | None = Field(None, description="When it happened. Default: now, and then send an outcome_id.")
    outcome_id: Label | None = Field(None, description="Makes a retry safe when there is no timestamp.")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


OutcomeBatch = Annotated[
    list[OutcomeCreate],
    FailFast(),
    BeforeValidator(_as_list, json_schema_input_type=OutcomeCreate | list[OutcomeCreate]),
    Field(min_length=1, max_length=MAX_BATCH),
]
"""One outcome, or a list of them."""

ExposureBatch = Annotated[
    list[ExposureCreate],
    FailFast(),
    BeforeValidator(_as_list, json_schema_input_type=ExposureCreate | list[ExposureCreate]),
    Field(min_length=1, max_length=MAX_BATCH),
]
"""One exposure, or a list of them."""


class Recorded(Answer):
    """How many of the given items were new, and how many were known already."""

    recorded: int
    duplicates: int


class Interval(Answer):
    """A two-sided confidence interval."""

    low: float
    high: float


class ResultWarning(Answer):
    """Something that makes the results less trustworthy."""

    code: str
    message: str


class SrmCheck(Answer):
    """Sample ratio mismatch: whether units fell to the variants as the weights say."""

    chi_square: float | None
    degrees_of_freedom: int | None
    p_value: float | None
    is_mismatch: bool | None
    reason: str | None = None


class VariantUnits(Answer):
    """Whom a variant met. A unit belongs to the variant of its first exposure."""

    variant: str
    model_version: str
    weight: float
    units: int
    exposures: int


class VariantSummary(Answer):
    """One metric in one variant, over units."""

    variant: str
    n: int
    sum: float
    mean: float | None
    variance: float | None
    mean_interval: Interval | None
    reason: str | None = None


class Comparison(Answer):
    """A variant against the control. What cannot be computed is null, and `reason` says why."""

    variant: str
    control: str
    test: str
    difference: float | None
    difference_interval: Interval | None
    relative_lift: float | None
    relative_lift_interval: Interval | None
    statistic: float | None
    degrees_of_freedom: float | None
    p_value: float | None
    p_value_adjusted: float | None = Field(description="Holm's correction over the variants of this metric.")
    is_significant: bool | None
    verdict: Verdict
    reason: str | None = None


class MetricResult(Answer):
    """One metric: its variants, and each against the control."""

    metric: str
    kind: MetricKind
    goal: Goal
    is_primary: bool
    variants: list[VariantSummary]
    comparisons: list[Comparison]


class ABTestResults(Answer):
    """The state of a test's evidence."""

    experiment: str
    status: ABTestStatus
    control: str
    confidence_level: float
    computed_at: Timestamp
    units: int
    crossover_units: int = Field(description="Units that met more than one variant; they count for the first.")
    variants: list[VariantUnits]
    srm: SrmCheck
    metrics: list[MetricResult]
    warnings: list[ResultWarning]


class SampleSizeQuery(Contract):
    """What a planned test should be able to find."""

    kind: MetricKind = MetricKind.PROPORTION
    baseline: float = Field(
        0.0, ge=-MAX_VALUE, le=MAX_VALUE, description="The proportion of the control, above 0 and below 1."
    )
    minimum_effect: float = Field(
        ge=-MAX_VALUE, le=MAX_VALUE, description="The smallest difference from the baseline worth finding, not relative."
    )
    standard_deviation: float | None = Field(
        None, gt=0, le=MAX_VALUE, description="Of the values of units; for means and counts."
    )
    power: float = Field(0.8, ge=0.5, le=0.999)
    confidence: float = Field(0.95, ge=0.5, le=0.9999)
    variants: int = Field(2, ge=2, le=MAX_VARIANTS, description="More than two: Bonferroni's correction is planned for.")


class SampleSize(Answer):
    """How many units a test needs."""

    kind: MetricKind
    units_per_variant: int
    units_total: int
    variants: int
    baseline: float
    minimum_effect: float
    power: float
    confidence_level: float

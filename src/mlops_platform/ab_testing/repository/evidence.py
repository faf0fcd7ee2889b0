"""What the results of a test are computed from: aggregates over units, made where the rows are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Integer,
    Row,
    Select,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, TEXT, distinct_on

from mlops_platform.ab_testing.domain.analysis import UnitOutcomes
from mlops_platform.ab_testing.domain.statistics import Sample
from mlops_platform.ab_testing.tables import exposures, outcome_metrics, outcomes
from mlops_platform.contracts.ab_testing import MetricKind
from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.identity import Principal


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the results of a test are computed from, of one moment.

    `units` counts first exposures by variant and allocation version; `outcomes` is by metric and variant.
    """

    units: dict[tuple[int, int], int]
    exposures: dict[int, int]
    crossover_units: int
    present: dict[tuple[str, int], Sample]

    def exposed(self, variant: int) -> int:
        return sum(count for (position, _), count in self.units.items() if position == variant)

    def outcomes(self, metric: str, variant: int) -> UnitOutcomes:
        return UnitOutcomes(self.exposed(variant), self.present.get((metric, variant), Sample(0, 0.0, 0.0)))


async def has_outcomes(session: ReadSession, principal: Principal, test_id: str, metric: str) -> bool:
    """Whether any outcome of this metric is there."""
    found = visible_to(principal, outcomes).where(outcomes.c.test_id == test_id, outcomes.c.metric == metric)
    return await session.first(found.limit(1)) is not None


async def gather(session: ReadSession, principal: Principal, test_id: str) -> Evidence:
    """Aggregate over units in the database. One statement, so that no unit is in one part and missing in another."""
    here = and_(in_project(principal, exposures), exposures.c.test_id == test_id)
    first = (
        select(exposures.c.unit_id, exposures.c.variant, exposures.c.allocation_version, exposures.c.first_exposed_at)
        .where(here)
        .ext(distinct_on(exposures.c.unit_id))
        .order_by(exposures.c.unit_id, exposures.c.first_exposed_at, exposures.c.variant)
        .cte("first")
    )
    per_unit = _outcomes_per_unit(principal, test_id, first)
    met = select(exposures.c.variant, func.sum(exposures.c.exposures).label("n")).where(here).group_by(exposures.c.variant)
    met_rows = met.subquery()
    crossed = select(exposures.c.unit_id).where(here).group_by(exposures.c.unit_id).having(func.count() > 1).subquery()
    units = select(first.c.variant, first.c.allocation_version, func.count().label("n")).group_by(
        first.c.variant, first.c.allocation_version
    )
    unit_rows = units.subquery()
    rows = await session.all(
        union_all(
            _tagged("units", unit_rows.c.n, variant=unit_rows.c.variant, version=unit_rows.c.allocation_version),
            _tagged("exposures", met_rows.c.n, variant=met_rows.c.variant),
            _tagged("crossover", select(func.count()).select_from(crossed).scalar_subquery()),
            _tagged(
                "metric",
                func.count(),
                variant=per_unit.c.variant,
                metric=per_unit.c.metric,
                mean=func.avg(per_unit.c.value),
                variance=func.coalesce(func.var_samp(per_unit.c.value), 0.0),
            ).group_by(per_unit.c.variant, per_unit.c.metric),
        )
    )
    return _evidence(rows)


def _outcomes_per_unit(principal: Principal, test_id: str, first: CTE) -> Subquery:
    """Each unit's outcomes since its first exposure, as the one number that the metric's kind asks for."""
    # Exposures are stamped to the microsecond and many clients stamp outcomes to the second: what followed an exposure
    # within its second must not be taken for what came before it.
    begun = func.date_trunc("second", first.c.first_exposed_at)
    since = and_(outcomes.c.unit_id == first.c.unit_id, outcomes.c.occurred_at >= begun)
    # The kinds are joined after the grouping: there are far fewer units than outcomes.
    grouped = (
        select(
            first.c.variant,
            outcomes.c.metric,
            func.max(outcomes.c.value).label("highest"),
            func.sum(outcomes.c.value).label("total"),
            func.avg(outcomes.c.value).label("average"),
        )
        .select_from(first.join(outcomes, since))
        .where(in_project(principal, outcomes), outcomes.c.test_id == test_id)
        .group_by(outcomes.c.unit_id, first.c.variant, outcomes.c.metric)
        .subquery()
    )
    value = case(
        (outcome_metrics.c.kind == MetricKind.PROPORTION.value, grouped.c.highest),
        (outcome_metrics.c.kind == MetricKind.COUNT.value, grouped.c.total),
        else_=grouped.c.average,
    )
    return (
        select(grouped.c.variant, grouped.c.metric, value.label("value"))
        .join(outcome_metrics, outcome_metrics.c.name == grouped.c.metric)
        .where(in_project(principal, outcome_metrics), outcome_metrics.c.test_id == test_id)
        .subquery()
    )


def _tagged(tag: str, n: Any, **columns: Any) -> Select[Any]:
    """One part of the evidence, in the columns that all parts share."""
    types = {"variant": Integer, "version": Integer, "metric": TEXT, "mean": DOUBLE_PRECISION, "variance": DOUBLE_PRECISION}
    parts: list[Any] = [
        literal(tag).label("tag"),
        cast(n, BigInteger).label("n"),
        *(cast(columns.get(name, null()), kind).label(name) for name, kind in types.items()),
    ]
    return select(*parts)


def _evidence(rows: Sequence[Row[Any]]) -> Evidence:
    evidence = Evidence({}, {}, next(row.n for row in rows if row.tag == "crossover"), {})
    for row in rows:
        if row.tag == "units":
            evidence.units[row.variant, row.version] = row.n
        elif row.tag == "exposures":
            evidence.exposures[row.variant] = row.n
        elif row.tag == "metric":
            evidence.present[row.metric, row.variant] = Sample(row.n, row.mean, row.variance)
    return evidence

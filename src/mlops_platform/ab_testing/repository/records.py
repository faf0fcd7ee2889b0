"""Exposures and outcomes in, aggregates out. Each batch is one statement, whatever its size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, TEXT, TIMESTAMP, distinct_on
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from mlops_platform.ab_testing.domain.analysis import UnitOutcomes
from mlops_platform.ab_testing.domain.definition import Definition
from mlops_platform.ab_testing.domain.statistics import Sample
from mlops_platform.ab_testing.tables import exposures, outcome_metrics, outcomes
from mlops_platform.contracts.ab_testing import MetricKind
from mlops_platform.core.auth.visibility import in_project
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal


@dataclass(slots=True)
class ExposureRow:
    """How often a unit met a variant, and when first and last. Mutable: routing counts in it."""

    project_id: str
    test_id: str
    unit_id: str
    variant: int
    allocation_version: int
    first_exposed_at: datetime
    last_exposed_at: datetime
    exposures: int = 1

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """What makes it one row. Rows are written in this order, so that two writers never wait for each other."""
        return self.project_id, self.test_id, self.unit_id, self.variant

    def absorb(self, other: "ExposureRow") -> None:
        """Add what another row of the same identity has seen."""
        if other.first_exposed_at < self.first_exposed_at:
            self.first_exposed_at = other.first_exposed_at
            self.allocation_version = other.allocation_version
        self.last_exposed_at = max(self.last_exposed_at, other.last_exposed_at)
        self.exposures += other.exposures


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """One outcome; `identity` is the same whenever it is sent again."""

    identity: str
    unit_id: str
    metric: str
    value: float
    occurred_at: datetime


# A repetition (a client's retry, a flush whose commit was not heard of) is not newer than what is stored: it changes
# nothing. So `exposures` may fall short when replicas see one unit at once, and never counts anything twice.
_PUT_EXPOSURES = text(
    """
    INSERT INTO ab_testing.exposures AS kept
      (project_id, test_id, unit_id, variant, allocation_version, first_exposed_at, last_exposed_at, exposures)
    SELECT * FROM unnest(:projects, :tests, :units, :variants, :versions, :firsts, :lasts, :counts)
    ON CONFLICT (project_id, test_id, unit_id, variant) DO UPDATE SET
      allocation_version = CASE WHEN excluded.first_exposed_at < kept.first_exposed_at
        THEN excluded.allocation_version ELSE kept.allocation_version END,
      first_exposed_at = least(kept.first_exposed_at, excluded.first_exposed_at),
      last_exposed_at = greatest(kept.last_exposed_at, excluded.last_exposed_at),
      exposures = kept.exposures + CASE WHEN excluded.last_exposed_at > kept.last_exposed_at
        THEN excluded.exposures ELSE 0 END
    WHERE excluded.first_exposed_at < kept.first_exposed_at OR excluded.last_exposed_at > kept.last_exposed_at
    """
).bindparams(
    bindparam("projects", type_=ARRAY(PG_UUID)),
    bindparam("tests", type_=ARRAY(PG_UUID)),
    bindparam("units", type_=ARRAY(TEXT)),
    bindparam("variants", type_=ARRAY(Integer)),
    bindparam("versions", type_=ARRAY(Integer)),
    bindparam("firsts", type_=ARRAY(TIMESTAMP(timezone=True))),
    bindparam("lasts", type_=ARRAY(TIMESTAMP(timezone=True))),
    bindparam("counts", type_=ARRAY(BigInteger)),
)

_PUT_OUTCOMES = text(
    """
    INSERT INTO ab_testing.outcomes
      (project_id, test_id, identity, unit_id, metric, value, occurred_at, recorded_at)
    SELECT :project, :test, given.*, :now FROM unnest(:identities, :units, :metrics, :values, :times) AS given
    ON CONFLICT (project_id, test_id, identity) DO NOTHING
    """
).bindparams(
    bindparam("project", type_=PG_UUID),
    bindparam("test", type_=PG_UUID),
    bindparam("now", type_=TIMESTAMP(timezone=True)),
    bindparam("identities", type_=ARRAY(PG_UUID)),
    bindparam("units", type_=ARRAY(TEXT)),
    bindparam("metrics", type_=ARRAY(TEXT)),
    bindparam("values", type_=ARRAY(DOUBLE_PRECISION)),
    bindparam("times", type_=ARRAY(TIMESTAMP(timezone=True))),
)


def merged(rows: Iterable[ExposureRow]) -> list[ExposureRow]:
    """One row per identity, in the order of identities: one statement may not touch a row twice."""
    by_identity: dict[tuple[str, str, str, int], ExposureRow] = {}
    for row in rows:
        known = by_identity.setdefault(row.identity, row)
        if known is not row:
            known.absorb(row)
    return [by_identity[identity] for identity in sorted(by_identity)]


async def put_exposures(session: WriteSession, rows: Sequence[ExposureRow]) -> int:
    """Write merged rows; how many of them said something new."""
    result = await session.execute(
        _PUT_EXPOSURES,
        {
            "projects": [UUID(hex=row.project_id) for row in rows],
            "tests": [UUID(hex=row.test_id) for row in rows],
            "units": [row.unit_id for row in rows],
            "variants": [row.variant for row in rows],
            "versions": [row.allocation_version for row in rows],
            "firsts": [row.first_exposed_at for row in rows],
            "lasts": [row.last_exposed_at for row in rows],
            "counts": [row.exposures for row in rows],
        },
    )
    return result.rowcount


async def put_outcomes(session: WriteSession, test: Definition, rows: Sequence[OutcomeRow], now: datetime) -> int:
    """Write outcomes; how many were new."""
    ordered = sorted(rows, key=lambda row: row.identity)
    result = await session.execute(
        _PUT_OUTCOMES,
        {
            "project": UUID(hex=test.project_id),
            "test": UUID(hex=test.id),
            "now": now,
            "identities": [UUID(hex=row.identity) for row in ordered],
            "units": [row.unit_id for row in ordered],
            "metrics": [row.metric for row in ordered],
            "values": [row.value for row in ordered],
            "times": [row.occurred_at for row in ordered],
        },
    )
    return result.rowcount


async def has_outcomes(session: ReadSession, principal: Principal, test_id: str, metric: str) -> bool:
    """Whether any outcome of this metric is there."""
    found = select(literal(1)).where(
        in_project(principal, outcomes), outcomes.c.test_id == test_id, outcomes.c.metric == metric
    )
    return await session.scalar(found.limit(1)) is not None


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


def _outcomes_per_unit(principal: Principal, test_id: str, first: CTE) -> CTE:
    """Each unit's outcomes since its first exposure, as the one number that the metric's kind asks for."""
    value = case(
        (outcome_metrics.c.kind == MetricKind.PROPORTION.value, func.max(outcomes.c.value)),
        (outcome_metrics.c.kind == MetricKind.COUNT.value, func.sum(outcomes.c.value)),
        else_=func.avg(outcomes.c.value),
    )
    joined = first.join(
        outcomes, and_(outcomes.c.unit_id == first.c.unit_id, outcomes.c.occurred_at >= first.c.first_exposed_at)
    ).join(
        outcome_metrics,
        and_(
            outcome_metrics.c.project_id == outcomes.c.project_id,
            outcome_metrics.c.test_id == outcomes.c.test_id,
            outcome_metrics.c.name == outcomes.c.metric,
        ),
    )
    return (
        select(first.c.variant, outcomes.c.metric, value.label("value"))
        .select_from(joined)
        .where(in_project(principal, outcomes), outcomes.c.test_id == test_id)
        .group_by(first.c.variant, outcomes.c.metric, first.c.unit_id, outcome_metrics.c.kind)
        .cte("per_unit")
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

"""Exposures and outcomes on their way in. Each batch is one statement, whatever its size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Integer, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, TEXT, TIMESTAMP
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from mlops_platform.ab_testing.domain.definition import Definition
from mlops_platform.core.db.session import WriteSession


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

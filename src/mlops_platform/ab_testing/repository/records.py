"""Exposures and outcomes on their way in. Each batch is one statement, whatever its size."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import text

from mlops_platform.ab_testing.domain.definition import Definition
from mlops_platform.core.db.session import WriteSession


class ExposureRow(msgspec.Struct):
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


class OutcomeRow(msgspec.Struct, frozen=True):
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
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given
      (project_id uuid, test_id uuid, unit_id text, variant smallint, allocation_version integer,
       first_exposed_at timestamptz, last_exposed_at timestamptz, exposures bigint)
    ON CONFLICT (project_id, test_id, unit_id, variant) DO UPDATE SET
      allocation_version = CASE WHEN excluded.first_exposed_at < kept.first_exposed_at
        THEN excluded.allocation_version ELSE kept.allocation_version END,
      first_exposed_at = least(kept.first_exposed_at, excluded.first_exposed_at),
      last_exposed_at = greatest(kept.last_exposed_at, excluded.last_exposed_at),
      exposures = kept.exposures + CASE WHEN excluded.last_exposed_at > kept.last_exposed_at
        THEN excluded.exposures ELSE 0 END
    WHERE excluded.first_exposed_at < kept.first_exposed_at OR excluded.last_exposed_at > kept.last_exposed_at
    """
)

_PUT_OUTCOMES = text(
    """
    INSERT INTO ab_testing.outcomes (project_id, test_id, identity, unit_id, metric, value, occurred_at, recorded_at)
    SELECT CAST(:project AS text)::uuid, CAST(:test AS text)::uuid, given.*, CAST(:now AS timestamptz)
    FROM json_to_recordset(CAST(:rows AS json)) AS given
      (identity uuid, unit_id text, metric text, value double precision, occurred_at timestamptz)
    ON CONFLICT (project_id, test_id, identity) DO NOTHING
    """
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
    result = await session.execute(_PUT_EXPOSURES, {"rows": _json(rows)})
    return result.rowcount


async def put_outcomes(session: WriteSession, test: Definition, rows: Sequence[OutcomeRow], now: datetime) -> int:
    """Write outcomes; how many were new."""
    ordered = sorted(rows, key=lambda row: row.identity)
    given = {"project": test.project_id, "test": test.id, "now": now, "rows": _json(ordered)}
    result = await session.execute(_PUT_OUTCOMES, given)
    return result.rowcount


def _json(rows: Sequence[msgspec.Struct]) -> str:
    """A batch as one parameter: arrays of values cost the driver six times as much time on the event loop."""
    return msgspec.json.encode(rows).decode()

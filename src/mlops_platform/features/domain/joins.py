"""Point-in-time joins, stated as plainly as they can be.

The rules, which every engine has to follow and is tested against:

1. a row counts for a label when the entity is equal (null never is) and its event timestamp is at or before the label's;
2. with a TTL, its event timestamp is also at or after the label's minus the TTL; both ends are inclusive;
3. in *as-known* mode, it had also been ingested by the label's time; in both modes it was ingested by `known_until`;
4. of the rows that count, the one with the greatest (event timestamp, time of ingest, batch) wins as a whole: a null in
   it stays null and is never filled from an older row;
5. every label comes back exactly once and in its place; without a winner its features are null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """A stored row. Times are microseconds since 1970; `values` are keyed by slot."""

    entity: str
    event_us: int
    created_us: int
    batch_id: str
    values: Mapping[int, object]

    @property
    def rank(self) -> tuple[int, int, str]:
        return self.event_us, self.created_us, self.batch_id


@dataclass(frozen=True, slots=True)
class Moment:
    """What a label asks: this entity, at this time."""

    entity: str | None
    at_us: int


@dataclass(frozen=True, slots=True)
class JoinRules:
    """The parameters of one join."""

    known_until_us: int
    ttl_us: int | None = None
    as_known: bool = False


def point_in_time(moments: Sequence[Moment], rows: Sequence[FeatureRow], rules: JoinRules) -> list[FeatureRow | None]:
    """The winner for each moment."""
    return [winner(moment, rows, rules) for moment in moments]


def winner(moment: Moment, rows: Sequence[FeatureRow], rules: JoinRules) -> FeatureRow | None:
    """The row that counts for one moment, if any does."""
    return max((row for row in rows if counts(row, moment, rules)), key=lambda row: row.rank, default=None)


def counts(row: FeatureRow, moment: Moment, rules: JoinRules) -> bool:
    """Rules 1 to 3."""
    known_by = min(moment.at_us, rules.known_until_us) if rules.as_known else rules.known_until_us
    return (
        row.entity == moment.entity
        and row.event_us <= moment.at_us
        and (rules.ttl_us is None or row.event_us >= moment.at_us - rules.ttl_us)
        and row.created_us <= known_by
    )

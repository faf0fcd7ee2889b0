"""Time as a collaborator, so that rules can be tested at any moment."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where "now" comes from: always aware, always UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class FixedClock:
    """A clock that stands where it was put and moves only when told to."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment


def to_wire(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`, as every response carries it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

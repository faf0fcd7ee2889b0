"""When a schedule fires.

The rule through daylight saving changes, once and for every zone: a job at a fixed wall-clock time fires exactly once on
each day that its line names: at the first instant after the gap when the clock skips its time, at the first of the two when
the clock repeats it. A job whose minutes or hours are `*` (every 15 minutes, every hour) fires by elapsed time and so
neither stops nor doubles.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from mlops_platform.contracts.pipelines import CatchUp
from mlops_platform.pipelines.errors import ScheduleInvalid

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
# An instant that is noticed within this time is not late, only noticed.
GRACE = timedelta(seconds=60)
# Two weeks of minutes. Beyond it only the last day is looked at, so that a long outage costs no long scan.
_SCAN_LIMIT = 20_000


@dataclass(frozen=True, slots=True)
class Due:
    """The instants to fire now, oldest first, how many were passed over, and when to look again."""

    instants: tuple[datetime, ...]
    skipped: int
    next_at: datetime | None


def check_schedule(cron: str, time_zone: str, *, at: str = "schedule.") -> None:
    """Raise `ScheduleInvalid` naming the field (after the prefix `at`) unless the line fires in a zone that exists."""
    zone = _zone(time_zone, at=at)
    line = ALIASES.get(cron, cron)
    if len(line.split()) != 5:
        raise ScheduleInvalid.of(f"{at}cron", "must have five fields: minute, hour, day of month, month, day of week", cron)
    try:
        first = next(CronSim(line, datetime(2026, 1, 1, tzinfo=zone)), None)
    except CronSimError as error:
        raise ScheduleInvalid.of(f"{at}cron", f"cannot be read: {error}", cron) from None
    if first is None:
        raise ScheduleInvalid.of(f"{at}cron", "names a day that never comes", cron)


def _zone(name: str, *, at: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleInvalid.of(
            f"{at}time_zone", f"there is no time zone {name!r}", name, hint="Use an IANA name: Europe/Paris."
        ) from None


def instants_after(cron: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """Every instant strictly after the given one, in UTC, ascending. `ScheduleInvalid` in a zone that is not known here."""
    last = after.astimezone(UTC)
    for local in CronSim(ALIASES.get(cron, cron), last.astimezone(_zone(time_zone, at=""))):
        instant = local.astimezone(UTC)
        # Two wall-clock times of a gap meet in one instant, and the scan may start inside a repeated hour.
        if instant > last:
            yield instant
            last = instant


def next_instant(cron: str, time_zone: str, after: datetime) -> datetime | None:
    """The first instant strictly after the given one; None when there is none in the next fifty years."""
    return next(instants_after(cron, time_zone, after), None)


def due(cron: str, time_zone: str, *, next_at: datetime, now: datetime, catch_up: CatchUp, catch_up_limit: int) -> Due:
    """Which of the instants from `next_at` up to `now` fire, by the catch-up policy."""
    passed = _between(cron, time_zone, next_at - timedelta(seconds=1), now)
    if len(passed) == _SCAN_LIMIT:
        passed = _between(cron, time_zone, now - timedelta(days=1), now) or passed
    late = [instant for instant in passed if now - instant > GRACE]
    timely = passed[len(late) :]
    match catch_up:
        case CatchUp.SKIP:
            kept = timely
        case CatchUp.LATEST:
            kept = timely or late[-1:]
        case CatchUp.ALL:
            kept = passed[-catch_up_limit:]
    return Due(tuple(kept), len(passed) - len(kept), next_instant(cron, time_zone, now))


def _between(cron: str, time_zone: str, after: datetime, until: datetime) -> list[datetime]:
    every = instants_after(cron, time_zone, after)
    return list(islice(takewhile(lambda instant: instant <= until, every), _SCAN_LIMIT))

"""Schedules fire when their written rule says, through every change of the clock."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.contracts.pipelines import CatchUp
from mlops_platform.pipelines.domain import cron
from mlops_platform.pipelines.errors import ScheduleInvalid

NEW_YORK = "America/New_York"


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def first(line: str, zone: str, after: datetime, count: int) -> list[datetime]:
    return list(islice(cron.instants_after(line, zone, after), count))


class TestDaylightSaving:
    def test_a_time_that_the_clock_skips_fires_at_the_first_instant_after_the_gap(self):
        assert first("30 2 * * *", NEW_YORK, utc(2026, 3, 8, 5), 2) == [utc(2026, 3, 8, 7), utc(2026, 3, 9, 6, 30)]

    def test_a_time_that_the_clock_repeats_fires_once_and_at_the_first(self):
        assert first("30 1 * * *", NEW_YORK, utc(2026, 11, 1, 4), 2) == [utc(2026, 11, 1, 5, 30), utc(2026, 11, 2, 6, 30)]

    def test_a_scan_that_starts_inside_the_repeated_hour_never_goes_back(self):
        assert first("30 1 * * *", NEW_YORK, utc(2026, 11, 1, 6, 10), 1) == [utc(2026, 11, 2, 6, 30)]

    def test_every_quarter_of_an_hour_loses_nothing_in_the_repeated_hour(self):
        fired = first("*/15 * * * *", NEW_YORK, utc(2026, 11, 1, 4, 59), 12)
        assert fired == [utc(2026, 11, 1, 5) + timedelta(minutes=15 * n) for n in range(12)]

    def test_a_midnight_that_does_not_exist_fires_when_the_day_begins(self):
        assert first("0 0 * * *", "America/Santiago", utc(2026, 9, 5, 12), 1) == [utc(2026, 9, 6, 4)]

    def test_the_last_day_of_february_in_a_leap_year(self):
        assert first("0 0 29 2 *", "UTC", utc(2026, 1, 1), 1) == [utc(2028, 2, 29)]

    @settings(deadline=None, max_examples=60)
    @given(
        minutes=st.integers(0, 10 * 365 * 24 * 60),
        zone=st.sampled_from([NEW_YORK, "Europe/London", "Australia/Lord_Howe", "America/Santiago", "UTC"]),
        hour=st.integers(0, 23),
        minute=st.integers(0, 59),
    )
    def test_a_daily_time_fires_exactly_once_on_every_local_day(self, minutes, zone, hour, minute):
        start = utc(2020, 1, 1) + timedelta(minutes=minutes)
        fired = first(f"{minute} {hour} * * *", zone, start, 40)
        days = [instant.astimezone(ZoneInfo(zone)).date() for instant in fired]
        assert days == [days[0] + timedelta(days=n) for n in range(40)]


class TestCheckSchedule:
    @pytest.mark.parametrize(
        ("line", "zone", "field"),
        [
            ("61 * * * *", "UTC", "schedule.cron"),
            ("* * * *", "UTC", "schedule.cron"),
            ("0 * * * * *", "UTC", "schedule.cron"),
            ("0 0 30 2 *", "UTC", "schedule.cron"),
            ("@often", "UTC", "schedule.cron"),
            ("* * * * *", "Mars/Olympus", "schedule.time_zone"),
            ("* * * * *", "../../etc/passwd", "schedule.time_zone"),
            ("* * * * *", "/etc/localtime", "schedule.time_zone"),
        ],
    )
    def test_what_cannot_fire_is_refused_with_its_field(self, line, zone, field):
        with pytest.raises(ScheduleInvalid) as refused:
            cron.check_schedule(line, zone)
        assert refused.value.errors[0].field == field

    @pytest.mark.parametrize("line", ["@daily", "0 9 * * MON-FRI", "*/5 0-6 1,15 * *"])
    def test_usual_lines_are_accepted(self, line):
        cron.check_schedule(line, NEW_YORK)


class TestCatchUp:
    def due(self, catch_up: CatchUp, *, missed_hours: int, limit: int = 10) -> cron.Due:
        now = utc(2026, 6, 1, 12, 0, 5)
        return cron.due(
            "0 * * * *",
            "UTC",
            next_at=utc(2026, 6, 1, 12) - timedelta(hours=missed_hours),
            now=now,
            catch_up=catch_up,
            catch_up_limit=limit,
        )

    def test_skip_fires_only_what_is_due_now(self):
        assert self.due(CatchUp.SKIP, missed_hours=5) == cron.Due((utc(2026, 6, 1, 12),), 5, utc(2026, 6, 1, 13))

    def test_latest_fires_one_of_the_missed(self):
        late = cron.due(
            "0 * * * *",
            "UTC",
            next_at=utc(2026, 6, 1, 6),
            now=utc(2026, 6, 1, 12, 30),
            catch_up=CatchUp.LATEST,
            catch_up_limit=10,
        )
        assert late == cron.Due((utc(2026, 6, 1, 12),), 6, utc(2026, 6, 1, 13))

    def test_all_fires_the_newest_up_to_the_limit(self):
        found = self.due(CatchUp.ALL, missed_hours=5, limit=3)
        assert found.instants == (utc(2026, 6, 1, 10), utc(2026, 6, 1, 11), utc(2026, 6, 1, 12))
        assert found.skipped == 3

    def test_a_year_of_missed_minutes_still_finds_the_latest(self):
        late = cron.due(
            "* * * * *",
            "UTC",
            next_at=utc(2025, 6, 1),
            now=utc(2026, 6, 1, 12, 0, 30),
            catch_up=CatchUp.LATEST,
            catch_up_limit=10,
        )
        assert late.instants[-1] == utc(2026, 6, 1, 12)

"""Microseconds since 1970 in UTC: how times are stored, compared and written."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# What both Python and PostgreSQL can say: the years 1 to 9999.
MIN_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND


def to_us(moment: datetime) -> int:
    """Exact: no float is involved."""
    return (moment - EPOCH) // MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The other way round."""
    return EPOCH + microseconds * MICROSECOND


def wire_time(microseconds: int) -> str:
    """RFC 3339 with `Z` and six digits. Not strftime, which writes the year 33 as `33` on some systems."""
    return from_us(microseconds).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

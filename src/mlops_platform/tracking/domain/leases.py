"""Who writes a run: a lease, kept by heartbeats when they were promised, and otherwise until the run ends."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from mlops_platform.tracking.errors import RunHeld


@dataclass(frozen=True, slots=True)
class Lease:
    """One process' hold on a run. Without `heartbeat_seconds` nobody can tell whether it lives, and it never runs out."""

    writer: str
    taken_at: datetime
    beat_at: datetime
    heartbeat_seconds: int | None
    due_at: datetime | None

    def is_overdue(self, now: datetime) -> bool:
        """Whether it has been silent for longer than it said."""
        return self.due_at is not None and self.due_at < now


def due(now: datetime, heartbeat_seconds: int | None) -> datetime | None:
    """By when the next beat must have come."""
    return None if heartbeat_seconds is None else now + timedelta(seconds=heartbeat_seconds)


def check_writer(run_id: str, lease: Lease | None, writer: str, *, now: datetime | None = None) -> None:
    """Raise `RunHeld`, which names the one who has the run, unless it is this writer, or its time is over by `now`."""
    if lease is None or lease.writer == writer or (now is not None and lease.is_overdue(now)):
        return
    known = (
        "and promised no heartbeat, so nobody can tell whether it is alive"
        if lease.due_at is None
        else f"was last heard at {lease.beat_at.isoformat()}, and has until {lease.due_at.isoformat()}"
    )
    raise RunHeld(
        f"The run {run_id!r} is written by {lease.writer!r}: it took it at {lease.taken_at.isoformat()}, {known}.",
        hint="Wait until it ends, or resume with take_over: true if you know that it is dead.",
    )


_SILENT = "No heartbeat of "


def is_silence(reason: str | None) -> bool:
    """Whether a run counts as failed for its silence alone, and not by what somebody said.

    >>> is_silence("No heartbeat of 'trainer-1' since 2026-01-31T09:00:00+00:00"), is_silence(None)
    (True, False)
    """
    return reason is not None and reason.startswith(_SILENT)


def silence(lease: Lease) -> str:
    """Why a run without a heartbeat counts as failed."""
    return (
        f"{_SILENT}{lease.writer!r} since {lease.beat_at.isoformat()}; it had promised one every "
        f"{lease.heartbeat_seconds} s."
    )

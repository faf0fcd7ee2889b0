"""The life of a run: which status may follow which, and what that does to its times."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mlops_platform.contracts.tracking import RunStatus
from mlops_platform.core.errors import InvalidInput
from mlops_platform.tracking.errors import RunStateConflict

FINAL = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED})

# A final run may be resumed (RUNNING), and how it ended may be corrected; only what never started is SCHEDULED.
NEXT: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.SCHEDULED: frozenset({RunStatus.SCHEDULED, RunStatus.RUNNING}) | FINAL,
    RunStatus.RUNNING: frozenset({RunStatus.RUNNING}) | FINAL,
    RunStatus.FINISHED: frozenset({RunStatus.RUNNING}) | FINAL,
    RunStatus.FAILED: frozenset({RunStatus.RUNNING}) | FINAL,
    RunStatus.KILLED: frozenset({RunStatus.RUNNING}) | FINAL,
}


@dataclass(frozen=True, slots=True)
class Life:
    """A run's status and times."""

    status: RunStatus
    start_time: datetime | None
    end_time: datetime | None


def born(status: RunStatus, *, start_time: datetime | None, now: datetime) -> Life:
    """A new run. One that is scheduled has not started; one that is recorded when all is over ends now."""
    if status is RunStatus.SCHEDULED:
        return Life(status, start_time, None)
    started = start_time or now
    return _checked(Life(status, started, max(now, started) if status in FINAL else None))


def changed(
    life: Life,
    *,
    now: datetime,
    status: RunStatus | None = None,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> Life:
    """The life after a change, or why it cannot be."""
    following = status or life.status
    if following not in NEXT[life.status]:
        raise RunStateConflict(
            f"The run is {life.status} and cannot become {following}.",
            hint=f"From {life.status} a run can become {', '.join(sorted(NEXT[life.status]))}.",
        )
    started = start_time or life.start_time or (None if following is RunStatus.SCHEDULED else now)
    return _checked(Life(following, started, _end(life, following, end_time, now=now, started=started)))


def _end(
    life: Life, following: RunStatus, given: datetime | None, *, now: datetime, started: datetime | None
) -> datetime | None:
    if following not in FINAL:
        if given is not None:
            raise InvalidInput.of("end_time", f"a run that is {following} has not ended", given.isoformat())
        return None
    if given is not None:
        return given
    return life.end_time or (now if started is None else max(now, started))


def _checked(life: Life) -> Life:
    if life.start_time and life.end_time and life.end_time < life.start_time:
        raise InvalidInput.of(
            "end_time", f"lies before start_time ({life.start_time.isoformat()})", life.end_time.isoformat()
        )
    return life


ADJECTIVES = (
    "amber", "bold", "brave", "bright", "calm", "clear", "clever", "crisp", "eager", "fair", "fleet", "gentle", "golden",
    "grand", "happy", "keen", "kind", "lively", "lucid", "merry", "mild", "noble", "proud", "quick", "quiet", "rapid",
    "royal", "serene", "sharp", "silver", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "young",
    "zesty",
)  # fmt: skip
NOUNS = (
    "badger", "beaver", "bison", "crane", "dolphin", "eagle", "falcon", "finch", "fox", "gecko", "hare", "heron", "ibis",
    "jay", "kestrel", "koala", "lark", "lemur", "lynx", "marten", "mole", "moose", "newt", "orca", "osprey", "otter", "owl",
    "panda", "puffin", "raven", "robin", "seal", "shrike", "sparrow", "stork", "swan", "tern", "toad", "vole", "wren",
)  # fmt: skip


def made_up_name(run_id: str) -> str:
    """A name for a run that was given none: always the same for the same id.

    >>> made_up_name("0198c0ffee00700080000000deadbeef")
    'zesty-jay-955'
    """
    number = int(run_id[-12:], 16)
    adjective = ADJECTIVES[number % len(ADJECTIVES)]
    noun = NOUNS[number // len(ADJECTIVES) % len(NOUNS)]
    return f"{adjective}-{noun}-{number // (len(ADJECTIVES) * len(NOUNS)) % 1000:03d}"


def changed_tags(tags: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Tags after a change; None removes one.

    >>> changed_tags({"team": "vision", "draft": "yes"}, {"draft": None, "stage": "test"})
    {'team': 'vision', 'stage': 'test'}
    """
    merged = {**tags, **changes}
    return {key: value for key, value in merged.items() if value is not None}

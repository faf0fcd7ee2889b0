"""The life of a run: which status may follow which, and what that does to its times."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_platform.contracts.tracking import RunCreate, RunStatus
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


# A clock that is a day ahead is a wrong clock: its run would stand above all others in every list.
LARGEST_SKEW = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What stands of a run, to be compared with a request that would make it."""

    name: str
    status: RunStatus
    user: str | None
    start_time: datetime | None
    parent_run_id: str | None
    notes: str | None
    tags: Mapping[str, str]
    parameters: Mapping[str, Any]


def check_given_id(run_id: str | None, *, now: datetime) -> None:
    """A UUIDv7 begins with its millisecond, by which runs are sorted: not with one of the future."""
    if run_id is None:
        return
    made = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=min(int(run_id[:12], 16), 253_402_300_799_000))
    if made - now > LARGEST_SKEW:
        raise InvalidInput.of("id", "its time lies in the future", run_id, hint=f"It says {made:%Y-%m-%d}.")


def is_same_beginning(new: RunCreate, parameters: Mapping[str, Any], found: Beginning, *, is_untouched: bool) -> bool:
    """Whether a request is the one that made the run.

    While nothing has changed the run, all of it is compared. Later its name, tags, notes, status and times may rightly
    differ, and more parameters may stand in it: then what never changes decides.
    """
    fixed = new.parent_run_id == found.parent_run_id and new.user in {None, found.user}
    if not fixed or not _within(parameters, found.parameters):
        return False
    if not is_untouched:
        return True
    return (
        len(parameters) == len(found.parameters)
        and new.run_name in {None, found.name}
        and new.status is found.status
        and new.start_time in {None, found.start_time}
        and (new.notes, dict(new.tags)) == (found.notes, dict(found.tags))
    )


def _within(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return all(key in others and type(others[key]) is type(value) and others[key] == value for key, value in some.items())


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

"""The life of a version: from which status it may go where, its labels, its tags."""

from collections.abc import Iterable

from mlops_platform.contracts.registry import VersionStatus
from mlops_platform.registry.errors import ModelVersionImmutable

MAX_LABEL = 128

# From which status a version may go where. `ready` is final: readers rely on it.
TRANSITIONS: dict[VersionStatus, frozenset[VersionStatus]] = {
    VersionStatus.PENDING: frozenset({VersionStatus.READY}),
    VersionStatus.READY: frozenset(),
}


def check_transition(name: str, version: str, current: VersionStatus, wanted: VersionStatus) -> None:
    """Raise `ModelVersionImmutable` for a move that the table does not have."""
    if wanted not in TRANSITIONS[current]:
        raise ModelVersionImmutable(
            f"Version {version!r} of {name!r} is {current.value} and cannot become {wanted.value}.",
            hint="Make a new version.",
        )


def check_mutable(name: str, version: str, status: VersionStatus) -> None:
    """Raise `ModelVersionImmutable` unless files may still be added."""
    if status is not VersionStatus.PENDING:
        raise ModelVersionImmutable(
            f"Version {version!r} of {name!r} is {status.value}: its files do not change any more.",
            hint="Make a new version.",
        )


def next_version(taken: Iterable[str]) -> str:
    """The whole number after the greatest one that is taken; labels of other forms, or too long to count on, do not count.

    >>> next_version(["1", "2", "1.0.0", "candidate"])
    '3'
    """
    numbers = (int(version) for version in taken if version.isascii() and version.isdigit() and len(version) < MAX_LABEL)
    return str(max(numbers, default=0) + 1)


def unique_tags(tags: Iterable[str]) -> list[str]:
    """Tags are a set: each once, in the order first given."""
    return list(dict.fromkeys(tags))

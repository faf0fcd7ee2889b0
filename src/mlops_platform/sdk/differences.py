"""Two runs side by side: every value that differs, by area."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlops_platform.contracts.tracking import Run

REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==|@)\s*(.+)$")
ABSENT = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a run. `started` is its `reproduction/run.json`; absent parts are empty."""

    run: Run
    started: Mapping[str, Any]
    requirements: str
    changes: bytes
    inputs: Sequence[str]


def differences(one: Facts, other: Facts) -> list[dict[str, Any]]:
    """Each as area, key, a, b; a value that a run does not have is None."""
    ours, theirs = dict(_areas(one)), dict(_areas(other))
    return [
        {"area": area, "key": key, "a": ours[area].get(key, ABSENT), "b": theirs[area].get(key, ABSENT)}
        for area in ours
        for key in sorted(ours[area].keys() | theirs[area].keys())
        if not _same(ours[area].get(key, ABSENT), theirs[area].get(key, ABSENT))
    ]


def packages(requirements: str) -> dict[str, str]:
    """Name and version of each line of a lock."""
    found = (REQUIREMENT.match(line.strip()) for line in requirements.splitlines())
    return {match[1].lower().replace("_", "-"): match[2].strip() for match in found if match}


def _areas(facts: Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    run, started = facts.run, facts.started
    code, tags = started.get("code", {}), run.tags
    yield "run", {"status": run.status.value, "user": run.user, "duration_seconds": run.duration_seconds}
    yield "params", dict(run.parameters)
    yield "metrics", {key: value for key, value in run.metrics.items() if not key.startswith("system/")}
    yield (
        "code",
        {
            **{key: code.get(key) for key in ("commit", "branch", "remote", "dirty")},
            "changes": hashlib.sha256(facts.changes).hexdigest()[:16] if facts.changes else None,
            "untracked": ", ".join(code.get("untracked", [])) or None,
            "entry_point": started.get("entry_point"),
            "argv": started.get("argv"),
            "folder": started.get("folder"),
        },
    )
    yield "environment", {"python": started.get("python", {}).get("version"), **packages(facts.requirements)}
    yield "machine", {**started.get("hardware", {}), **{f"host.{key}": it for key, it in started.get("host", {}).items()}}
    yield "seeds", dict(started.get("seeds", {}))
    yield (
        "data",
        {f"input {urn}": "read" for urn in facts.inputs}
        | {key: value for key, value in tags.items() if key.startswith("mlops.dataset.")},
    )
    yield "tags", {key: value for key, value in tags.items() if not key.startswith("mlops.")}


def _same(one: Any, other: Any) -> bool:
    # A NaN is the same as a NaN, and 1 is not true.
    return type(one) is type(other) and (one == other or (one != one and other != other))  # noqa: PLR0124  # only NaN is unlike itself

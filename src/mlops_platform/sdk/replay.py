"""A run once more: the steps that re-create it, in a worktree and a virtual environment of their own.

What is done comes from what a run says of itself, which is text that others wrote: commands are lists and never go through
a shell, the lock gives packages and no options of pip, and the entry point stays within the worktree.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_platform.contracts.redaction import REDACTED
from mlops_platform.sdk.errors import MlopsError

COMMIT = re.compile(r"^[0-9a-f]{40}(?:[0-9a-f]{24})?$")
MODULE = re.compile(r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$")
PINNED = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
FROM_GIT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]* @ git\+(?:https|ssh)://[^\s-][^\s]*@[0-9a-f]{40}$")
FILES = ".mlops-reproduction"


class NotReproducible(MlopsError):
    """The run does not say enough of itself, or says what will not be done."""


class StepFailed(MlopsError):
    """A step of a reproduction ended with an error."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and where and with what it runs."""

    title: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        variables = "".join(f"{name}={shlex.quote(value)} " for name, value in self.environment.items())
        return f"cd {shlex.quote(str(self.folder))} && {variables}{shlex.join(self.command)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, the files that they need (below the target), and what a person should know of."""

    steps: Sequence[Step]
    files: Mapping[str, bytes]
    warnings: Sequence[str]


def plan(
    started: Mapping[str, Any],
    *,
    requirements: str,
    changes: bytes,
    repository: Path,
    target: Path,
    arguments: Sequence[str] | None = None,
) -> Plan:
    """How a run is done again. Raises `NotReproducible` when that cannot be known."""
    code = started.get("code") or {}
    commit = str(code.get("commit") or "")
    if not COMMIT.match(commit):
        raise NotReproducible(
            "The run recorded no git commit: its code is not known.",
            hint="Runs record it when they start within a repository.",
        )
    beside = target.with_name(target.name + FILES)
    lines, left_out = _lock(requirements)
    python = _interpreter(str((started.get("python") or {}).get("version") or ""))
    inside = target / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    argv = list(arguments) if arguments is not None else [str(it) for it in started.get("argv") or []]
    steps = [Step("Check out the commit", ["git", "worktree", "add", "--detach", str(target), commit], repository)]
    files = {str(beside / "requirements.txt"): "".join(f"{line}\n" for line in lines).encode()}
    if changes:
        files[str(beside / "changes.patch")] = changes
        steps.append(
            Step("Apply the changes that were in no commit", ["git", "apply", str(beside / "changes.patch")], target)
        )
    bare = [] if lines else ["--without-pip"]
    steps.append(Step("Make a virtual environment", [python, "-m", "venv", *bare, str(target / ".venv")], target))
    if lines:
        install = [str(inside), "-m", "pip", "install", "--requirement", str(beside / "requirements.txt")]
        steps.append(Step("Install the packages", install, target))
    seeds = started.get("seeds") or {}
    environment = {"PYTHONHASHSEED": str(seeds["PYTHONHASHSEED"])} if "PYTHONHASHSEED" in seeds else {}
    start = [str(inside), *_entry(str(started.get("entry_point") or ""), target), *argv]
    steps.append(Step("Start it", start, _folder(str(started.get("folder") or ""), target), environment))
    said = _warnings(started, code, python=python, left_out=left_out, argv=argv)
    return Plan(steps, files, said)


def execute(made: Plan, *, say: Callable[[str], None]) -> None:
    """Do it, step by step; its output goes to standard error. Stops at the first that fails."""
    if any(REDACTED in part for part in made.steps[-1].command):
        raise NotReproducible(
            "The arguments of the run held secrets, which were not recorded.", hint="Give all with --arguments."
        )
    for path, content in made.files.items():
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    for step in made.steps:
        say(f"{step.title}: {step}")
        try:
            # What the steps say goes to standard error: standard output is for the answer.
            done = subprocess.run(  # noqa: S603  # a list, shown before; this is what --execute is for
                list(step.command), cwd=step.folder, env=os.environ | dict(step.environment), check=False, stdout=2
            )
        except OSError as error:
            raise StepFailed(f"{step.title}: {error}") from error
        if done.returncode != 0:
            raise StepFailed(f"{step.title}: ended with {done.returncode}.", hint=f"By hand: {step}")


def _lock(requirements: str) -> tuple[list[str], list[str]]:
    lines = [line.strip() for line in requirements.splitlines() if line.strip()]
    kept = [line for line in lines if PINNED.match(line) or FROM_GIT.match(line)]
    return kept, [line for line in lines if line not in set(kept)]


def _interpreter(version: str) -> str:
    wanted = ".".join(version.split(".")[:2])
    if wanted == f"{sys.version_info.major}.{sys.version_info.minor}" or not re.fullmatch(r"\d+\.\d+", wanted):
        return sys.executable
    return shutil.which(f"python{wanted}") or sys.executable


def _entry(entry: str, target: Path) -> list[str]:
    if entry.startswith("-m "):
        module = entry.removeprefix("-m ")
        if not MODULE.match(module):
            raise NotReproducible(f"The run names {module!r} as its module, which is none.")
        return ["-m", module]
    if not _stays_below(entry) or entry.startswith("-"):
        raise NotReproducible(
            f"The run was started as {entry!r}, which does not stand in its repository.",
            hint="A notebook, an interactive session or a script elsewhere cannot be started again.",
        )
    return [str(target / entry)]


def _folder(folder: str, target: Path) -> Path:
    return target / folder if folder and _stays_below(folder) else target


def _stays_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and ":" not in parts[0] and path != "interactive"


def _warnings(
    started: Mapping[str, Any], code: Mapping[str, Any], *, python: str, left_out: Iterable[str], argv: Sequence[str]
) -> list[str]:
    version = str((started.get("python") or {}).get("version") or "unknown")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}."
    said = []
    if python == sys.executable and not version.startswith(ours):
        said.append(f"The run had Python {version}, which is not installed here; {python} is used.")
    if code.get("changes_left_out_bytes"):
        said.append(
            f"Its changes ({code['changes_left_out_bytes']} bytes) were too many to be recorded: the code is another."
        )
    if code.get("changes_redacted"):
        said.append("Its changes held what looks like a secret, which was taken out: they may not apply.")
    if code.get("untracked"):
        said.append(f"Files that git did not know are missing: {', '.join(map(str, code['untracked'][:20]))}.")
    said += [f"Not installed: {line}" for line in left_out]
    if any(REDACTED in part for part in argv):
        said.append("Some arguments held secrets, which were not recorded.")
    return said

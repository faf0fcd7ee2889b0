"""What a run was started with: code, arguments, environment, machine. `mlops run reproduce` reads it."""

import json
import os
import platform
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Protocol

from mlops_platform.contracts.redaction import REDACTED, redact

FOLDER = "reproduction"
RUN_FILE = f"{FOLDER}/run.json"
ENVIRONMENT_FILE = f"{FOLDER}/requirements.txt"
CHANGES_FILE = f"{FOLDER}/changes.patch"
LARGEST_PATCH_BYTES = 1024 * 1024
MOST_UNTRACKED = 200
GIT_SECONDS = 5.0


class Recording(Protocol):
    """The part of an active run that this writes to."""

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags."""

    def record_file(self, source: Path | bytes, path: str, *, content_type: str | None = None) -> None:
        """Upload a content with all else that is recorded."""


def record(run: Recording, *, seeds: Mapping[str, int] | int | None = None) -> None:
    """Record what this process was started with. Trouble is a warning: no training fails for it."""
    try:
        found, patch = captured(seeds=seeds)
        code = found["code"]
        tags = {
            "mlops.git.commit": code.get("commit"),
            "mlops.git.branch": code.get("branch"),
            "mlops.git.dirty": str(code["dirty"]).lower() if "dirty" in code else None,
            "mlops.source": found["entry_point"],
        }
        run.set_tags({key: str(value)[:8000] for key, value in tags.items() if value})
        run.record_file(json.dumps(found, indent=2).encode(), RUN_FILE, content_type="application/json")
        run.record_file(environment_lock().encode(), ENVIRONMENT_FILE, content_type="text/plain")
        if patch:
            run.record_file(patch, CHANGES_FILE, content_type="text/plain")
    except Exception as error:  # noqa: BLE001  # the edge to the training, which no trouble of ours may end
        warnings.warn(f"How the run was started could not be recorded: {error!r}", RuntimeWarning, stacklevel=2)


def captured(
    *, argv: Sequence[str] | None = None, folder: Path | None = None, seeds: Mapping[str, int] | int | None = None
) -> tuple[dict[str, Any], bytes]:
    """What is known of this process, and the changes to its code that are in no commit."""
    arguments = list(sys.argv if argv is None else argv)
    here = folder or Path.cwd()
    code, patch = code_state(_place_of(arguments, here))
    found = {
        "format": 1,
        "entry_point": _entry_point(arguments, code.get("root")),
        "argv": safe_arguments(arguments[1:]),
        "folder": _below(here, code.get("root")),
        "code": {key: value for key, value in code.items() if key != "root"},
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "host": {"name": socket.gethostname(), "system": platform.system(), "release": platform.release()},
        "hardware": hardware(),
        "seeds": _seeds(seeds),
    }
    return found, patch


def safe_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments without secrets: those that look like one, and those whose option is named like one."""
    safe: list[str] = []
    hides_next = False
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if hides_next and not argument.startswith("-"):
            safe.append(REDACTED)
        elif separator:
            safe.append(f"{name}={redact(value, name=name)}")
        else:
            safe.append(redact(argument))
        hides_next = argument.startswith("-") and not separator and redact("", name=argument) == REDACTED
    return safe


def code_state(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Commit, branch and changes of the repository around a folder; nothing when there is none, or no git."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    if not root or not commit:
        return {}, b""
    top = Path(root.decode().strip())
    status = (_git(top, "status", "--porcelain") or b"").decode(errors="replace").splitlines()
    untracked = [line[3:] for line in status if line.startswith("??")]
    remote = (_git(top, "remote", "get-url", "origin") or b"").decode(errors="replace").strip()
    state: dict[str, Any] = {
        "root": top,
        "commit": commit.decode().strip(),
        "branch": (_git(top, "rev-parse", "--abbrev-ref", "HEAD") or b"").decode(errors="replace").strip(),
        "remote": redact(remote) or None,
        "dirty": bool(status),
        "untracked": untracked[:MOST_UNTRACKED],
    }
    patch = _git(top, "diff", "--binary", "HEAD") or b"" if state["dirty"] else b""
    if len(patch) > LARGEST_PATCH_BYTES:
        return state | {"changes_left_out_bytes": len(patch)}, b""
    safe = str(redact(patch.decode(errors="surrogateescape"))).encode(errors="surrogateescape")
    return state | ({"changes_redacted": True} if safe != patch else {}), safe


@lru_cache(maxsize=1)
def environment_lock() -> str:
    """The installed packages as `pip install -r` reads them. What no index has is a comment."""
    lines: dict[str, str] = {}
    for found in distributions():
        name = found.metadata["Name"]
        if name:
            lines.setdefault(name.lower(), _requirement(name, found.version, found.read_text("direct_url.json")))
    return "".join(f"{line}\n" for _, line in sorted(lines.items()))


def hardware() -> dict[str, Any]:
    """Processor, memory and graphics cards, as far as the system says it without being asked for long."""
    found: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    try:
        found["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        models = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
        if models:
            found["cpu"] = models[0].partition(":")[2].strip()
        cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        found["gpus"] = [
            line.partition(":")[2].strip()
            for card in cards
            for line in card.read_text(encoding="utf-8").splitlines()
            if line.startswith("Model")
        ]
    except (AttributeError, OSError, ValueError):
        # Another system: what is missing is left out.
        return found
    return found


def _requirement(name: str, version: str, origin: str | None) -> str:
    if origin is None:
        return f"{name}=={version}"
    try:
        said = json.loads(origin)
    except ValueError:
        return f"{name}=={version}"
    control = said.get("vcs_info")
    if control:
        return f"{name} @ {control['vcs']}+{redact(said['url'])}@{control['commit_id']}"
    # A folder or a file of this machine: its path means nothing elsewhere.
    return f"# {name}=={version} was installed from a local folder or file"


def _git(folder: Path, *arguments: str) -> bytes | None:
    # No lock is taken and no program of the repository's configuration is run for a look at it.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    quiet = ("git", "-c", "core.fsmonitor=false", "-c", "diff.external=", "-c", "core.quotepath=off")
    options = ("--no-ext-diff", "--no-textconv") if arguments[0] == "diff" else ()
    command = (*quiet, arguments[0], *options, *arguments[1:])
    try:
        done = subprocess.run(  # noqa: S603  # git and fixed arguments
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _place_of(argv: Sequence[str], here: Path) -> Path:
    """Where the code is: the folder of the script, else the one that the process works in."""
    script = Path(argv[0]) if argv and argv[0] else here
    try:
        return script.resolve().parent if script.is_file() and "site-packages" not in script.resolve().parts else here
    except OSError:
        return here


def _entry_point(argv: Sequence[str], root: Path | None) -> str:
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", None)
    if module and module != "__main__" and argv and argv[0] == sys.argv[0]:
        return f"-m {module.removesuffix('.__main__')}"
    if not argv or not Path(argv[0]).is_file():
        return argv[0] if argv and argv[0] else "interactive"
    return _below(Path(argv[0]), root)


def _below(path: Path, root: Path | None) -> str:
    full = path.resolve()
    return (
        full.relative_to(root.resolve()).as_posix()
        if root is not None and full.is_relative_to(root.resolve())
        else str(full)
    )


def _seeds(seeds: Mapping[str, int] | int | None) -> dict[str, Any]:
    given: dict[str, Any] = {"seed": seeds} if isinstance(seeds, int) else dict(seeds or {})
    hashing = os.environ.get("PYTHONHASHSEED")
    return given | ({"PYTHONHASHSEED": hashing} if hashing else {})

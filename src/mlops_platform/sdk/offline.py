"""Runs recorded without a server: a folder for each, complete, and readable with any editor.

`run.json` is how it began, `journal-*.jsonl` what was recorded since (one file for each process, one request a line),
`artifacts/` the files by their own names. `state.json` says what `mlops sync` has sent. Everything in a journal may be sent
twice without harm. What was written stays when the process is killed; a line that was being written then is no line.
"""

import heapq
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlops_platform.contracts.common import Problem
from mlops_platform.contracts.tracking import Run
from mlops_platform.sdk.contexts import spelled
from mlops_platform.sdk.errors import Conflict, MlopsError
from mlops_platform.sdk.files import landing, place, sha256_of
from mlops_platform.sdk.spool import Delivery, host_label, is_alive
from mlops_platform.sdk.wire import encode

RUNS = "/api/runs/"
BEGINNING = "run.json"
STATE = "state.json"
ARTIFACTS = "artifacts"
UNKNOWN_EXPERIMENT = "0" * 32
FINAL = frozenset({"FINISHED", "FAILED", "KILLED"})


class NotARecording(MlopsError):
    """A folder holds no run that was recorded offline."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a run. `suffix` is the path below the run; `artifact` names the file that is sent."""

    at: int
    journal: str
    method: str
    suffix: str
    body: Any
    key: str
    content_type: str | None = None
    artifact: str | None = None


class OfflineStore:
    """Where an offline client records: it takes deliveries as a server would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._label = uuid4().hex[:8]

    def take(self, delivery: Delivery, file: Path | None = None) -> None:
        """Keep one request; raises OSError when the disk does not."""
        run_id, _, suffix = delivery.path.removeprefix(RUNS).partition("/")
        if file is not None:
            self.keep(run_id, suffix.removeprefix(f"{ARTIFACTS}/"), file, delivery.content_type or "")
            return
        line = {"method": delivery.method, "suffix": suffix, "body": delivery.body, "key": delivery.idempotency_key}
        self._append(run_id, line | ({"content_type": delivery.content_type} if delivery.content_type else {}))

    def keep(self, run_id: str, logical: str, source: Path | bytes, content_type: str) -> Path:
        """Keep one artifact under its own name."""
        target = landing(self._prepared(run_id) / ARTIFACTS, logical)
        try:
            if isinstance(source, bytes):
                _write(target, source)
            else:
                place(source, target)
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise _path_taken(logical) from error
        line = {"method": "PUT", "suffix": f"{ARTIFACTS}/{logical}", "artifact": logical, "content_type": content_type}
        self._append(run_id, {**line, "sha256": sha256_of(target), "key": uuid4().hex})
        return target

    def folder(self, run_id: str) -> Path:
        return self.root / run_id

    def _prepared(self, run_id: str) -> Path:
        # What a run records is for its user alone.
        folder = self.folder(run_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def begin(self, experiment: str, run: Mapping[str, Any]) -> None:
        """Keep how a run began. Raises OSError when there is no room for it."""
        about = {"format": 1, "experiment": experiment, "run": json.loads(encode(run)), "key": uuid4().hex}
        # By these a run whose process died is told from one that goes on.
        about |= {"host": host_label(), "pid": os.getpid(), "at": time.time_ns()}
        _write(self._prepared(run["id"]) / BEGINNING, json.dumps(about, indent=2, ensure_ascii=False).encode())

    def _append(self, run_id: str, line: Mapping[str, Any]) -> None:
        journal = self._prepared(run_id) / f"journal-{host_label()}-{os.getpid()}-{self._label}.jsonl"
        content = encode({"at": time.time_ns(), **line}) + b"\n"
        descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, content) != len(content):
                os.ftruncate(descriptor, size)
                raise OSError(28, "No room for a whole line", str(journal))
        finally:
            os.close(descriptor)


class OfflineRun:
    """One recorded run, to be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.about: dict[str, Any] = json.loads((folder / BEGINNING).read_text(encoding="utf-8"))
            self.id: str = self.about["run"]["id"]
            self.experiment: str = self.about["experiment"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotARecording(f"{folder} holds no run that was recorded offline: {error}") from error

    @property
    def parent_id(self) -> str | None:
        found: str | None = self.about["run"].get("parent_run_id")
        return found

    def entries(self, sent: Mapping[str, int] | None = None) -> Iterator[Entry]:
        """What was recorded, in the order of its recording, without the first ones of each journal that `sent` counts."""
        journals = sorted(self.folder.glob("journal-*.jsonl"))
        return heapq.merge(*[_read(path, (sent or {}).get(path.name, 0)) for path in journals], key=lambda entry: entry.at)

    def was_left(self) -> bool:
        """Whether all processes that recorded it are gone. Of those of another machine nothing is known: then not."""
        if self.about.get("host") != host_label():
            return False
        pids = {str(self.about.get("pid")), *(path.name.split("-")[2] for path in self.folder.glob("journal-*-*-*.jsonl"))}
        return not any(is_alive(pid) for pid in pids)

    def state(self) -> dict[str, Any]:
        """What has been sent."""
        try:
            found: dict[str, Any] = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # Absent, or broken off: all is sent again, which does no harm.
            return {"created": False, "sent": {}, "refused": 0, "done": False}
        return found

    def save(self, state: Mapping[str, Any]) -> None:
        _write(self.folder / STATE, json.dumps(state).encode())

    def set_aside(self, what: Any, why: str) -> None:
        """Note what the server will never take."""
        with (self.folder / "refused.jsonl").open("ab") as file:
            file.write(encode({"refused": what, "why": why}) + b"\n")

    def summary(self) -> dict[str, Any]:
        """The run as far as it was recorded: parameters, tags, last metrics, artifacts."""
        run = self.about["run"]
        found: dict[str, Any] = {
            "id": self.id,
            "experiment": self.experiment,
            "run_name": run.get("run_name"),
            "status": "RUNNING",
            "parameters": dict(run.get("parameters") or {}),
            "tags": dict(run.get("tags") or {}),
            "metrics": {},
            "artifacts": {},
            "datasets": [],
            "models": [],
            "synced": bool(self.state()["done"]),
        }
        for entry in self.entries():
            _apply(found, entry)
        return found

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Whether this process alone works on the run, until the end of the block."""
        try:
            import fcntl
        except ImportError:
            # Not on this system. What is sent twice does no harm.
            yield True
            return
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True


def begun(body: Mapping[str, Any], experiment: str) -> Run:
    """A run that no server has seen yet, as far as it is known. Its experiment has no id here."""
    at = body["start_time"]
    fields = {key: body[key] for key in ("id", "run_name", "parent_run_id", "start_time") if key in body}
    return Run.model_validate(
        {
            "run_name": f"{experiment.rpartition('/')[2]}-{body['id'][-6:]}",
            **fields,
            "experiment_id": UNKNOWN_EXPERIMENT,
            "status": "RUNNING",
            "parameters": json.loads(encode(body.get("parameters") or {})),
            "tags": body.get("tags") or {},
            "metrics": {},
            "created_at": at,
            "updated_at": at,
        }
    )


def recorded(root: Path) -> list[OfflineRun]:
    """The runs below a folder, or the one run that the folder is; parents before their children."""
    folders = [root] if (root / BEGINNING).exists() else sorted(path.parent for path in root.glob(f"*/{BEGINNING}"))
    runs = {run.id: run for run in map(OfflineRun, folders)}
    ordered: dict[str, OfflineRun] = {}

    def add(run: OfflineRun, below: frozenset[str]) -> None:
        parent = runs.get(run.parent_id or "")
        if parent is not None and parent.id not in below:
            add(parent, below | {run.id})
        ordered.setdefault(run.id, run)

    for run in runs.values():
        add(run, frozenset({run.id}))
    return list(ordered.values())


def _read(path: Path, skipped: int) -> Iterator[Entry]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            if number < skipped:
                continue
            try:
                found = json.loads(line)
                yield Entry(
                    at=found["at"],
                    journal=path.name,
                    method=found["method"],
                    suffix=found["suffix"],
                    body=found.get("body"),
                    key=found["key"],
                    content_type=found.get("content_type"),
                    artifact=found.get("artifact"),
                )
            except (ValueError, KeyError, TypeError):
                # The process was killed while it wrote this line, which is then the last one of its file.
                return


def _apply(found: dict[str, Any], entry: Entry) -> None:
    if entry.artifact is not None:
        found["artifacts"][entry.artifact] = entry.content_type
    elif entry.suffix == "params":
        found["parameters"] |= entry.body["parameters"]
    elif entry.suffix == "inputs":
        found["datasets"] += entry.body.get("datasets", [])
    elif entry.suffix == "models":
        found["models"].append(entry.body)
    elif entry.suffix == "metrics":
        for body in entry.body:
            given = body.get("context")
            context = given if isinstance(given, dict) else None
            about = {"step", "timestamp"} | ({"context"} if context else set())
            found["metrics"] |= {spelled(key, context): value for key, value in body.items() if key not in about}
    elif entry.suffix == "":
        found["status"] = entry.body.get("status", found["status"])
        tags = {**found["tags"], **entry.body.get("tags", {})}
        found["tags"] = {key: value for key, value in tags.items() if value is not None}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _path_taken(logical: str) -> Conflict:
    detail = f"The artifact path {logical!r} is taken by a folder, or leads through a file."
    return Conflict(
        Problem(type="about:blank", title="Artifact path taken", status=409, code="artifact_path_taken", detail=detail)
    )

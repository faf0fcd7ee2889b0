"""What could not be delivered, on disk: one file is one request, complete from the moment it has its name.

A file is written under a temporary name and renamed, so a reader never sees half of one. Requests are idempotent (metric
points by identity, the rest by their idempotency key), so it does no harm when two processes deliver the same file.
No credential is written.
"""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlops_platform.sdk.errors import MlopsError
from mlops_platform.sdk.wire import encode

REJECTED = ".rejected"
FILES = "files"
MOST_FIELDS = 5000
"""Of one joined request: well below what the server takes at once."""


class Unreadable(MlopsError):
    """A file of the spool is not a request: its disk was full, or its machine went down, while it was written."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request that has to reach the server in the end."""

    method: str
    path: str
    body: Any
    idempotency_key: str
    content_type: str | None = None
    """Of a body that is a text and not JSON."""
    file: str | None = None
    """The name of a kept file that is sent in place of a body."""
    experiment: str | None = None
    """The experiment, by name or id, below which the path lies: looked up, or made, when the request is sent."""


Kept = tuple[Path, Delivery]
"""A waiting request, and its file."""


class Spool:
    """The waiting requests for one service and project. Names sort by the time of writing."""

    def __init__(self, home: Path, url: str, project: str | None) -> None:
        self._target = {"url": url, "project": project}
        label = hashlib.sha256(json.dumps(self._target).encode()).hexdigest()[:16]
        self.directory = home / label
        self._count = 0

    def append(self, delivery: Delivery) -> Path:
        """Keep a request. Raises OSError when the disk does not take it, `NotSerialisable` when JSON does not."""
        content = encode({field.name: getattr(delivery, field.name) for field in fields(delivery)})
        self._prepare()
        self._count += 1
        name = f"{time.time_ns():020d}-{self._count:06d}-{_owner()}-{uuid4().hex[:8]}.json"
        path = self.directory / name
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path

    def keep_file(self, source: Path | bytes) -> str:
        """Keep a copy of a content that is to be sent later; its name. The caller may change or remove the original."""
        self._prepare()
        folder = self.directory / FILES
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{_owner()}-{uuid4().hex}"
        target = folder / name
        try:
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as original:
                        shutil.copyfileobj(original, file)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return name

    def file(self, delivery: Delivery) -> Path:
        """Where the kept file of a request is."""
        return self.directory / FILES / Path(delivery.file or "").name

    def release(self, delivery: Delivery) -> None:
        """The request has been delivered: its file is needed no longer."""
        if delivery.file is not None:
            self.file(delivery).unlink(missing_ok=True)

    def own(self) -> Iterator[Path]:
        """What this process has waiting, oldest first."""
        return (path for path in self.all() if f"-{_owner()}-" in path.name)

    def abandoned(self) -> Iterator[Path]:
        """What processes of this machine left that are no longer there."""
        for path in self.all():
            parts = path.name.split("-")
            if len(parts) == 5 and parts[2] == host_label() and not is_alive(parts[3]):
                yield path

    def sweep(self) -> None:
        """Remove kept files that no request names and whose process is gone: it was killed before it could name them."""
        try:
            kept = [entry.name for entry in os.scandir(self.directory / FILES)]
        except OSError:
            return
        parts = ((name, name.split("-")) for name in kept)
        left = {name for name, owner in parts if owner[0] == host_label() and not is_alive(owner[1])}
        if left:
            requests = [*self.directory.glob("*.json"), *self.directory.glob(f"*{REJECTED}")]
            named = "".join(path.read_text(encoding="utf-8", errors="replace") for path in requests if path.exists())
            for name in left:
                if name not in named:
                    (self.directory / FILES / name).unlink(missing_ok=True)

    def all(self) -> Iterator[Path]:
        """Everything that waits, oldest first."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.directory) if entry.name.endswith(".json"))
        except OSError:
            # Absent, or not ours to read: then nothing that we could send waits there.
            return
        yield from (self.directory / name for name in names)

    @staticmethod
    def read(path: Path) -> Delivery | None:
        """One waiting request; None when another process has delivered it meanwhile. `Unreadable` when it is none."""
        try:
            delivery = Delivery(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise Unreadable(f"{path} is not a whole request: {error}") from error
        if delivery.file is not None and not (path.parent / FILES / Path(delivery.file).name).exists():
            # Its file goes when it has been delivered: another process has done it, and was stopped in between.
            path.unlink(missing_ok=True)
            return None
        return delivery

    @staticmethod
    def done(path: Path) -> None:
        path.unlink(missing_ok=True)

    @staticmethod
    def reject(path: Path) -> Path:
        """Set a request aside that the server will never take; a person may look at it."""
        aside = path.with_suffix(REJECTED)
        path.replace(aside)
        return aside

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self.directory / "target.txt"
        if not about.exists():
            about.write_text(json.dumps(self._target), encoding="utf-8")


def together(kept: Iterable[Kept]) -> Iterator[list[Kept]]:
    """What waits, in order; points of one run that follow each other are together, so that an hour is a few requests."""
    group: list[Kept] = []
    size = 0
    for path, delivery in kept:
        size += _fields(delivery)
        if group and (size > MOST_FIELDS or not _are_points_of_one_run(group[-1][1], delivery)):
            yield group
            group, size = [], _fields(delivery)
        group.append((path, delivery))
    if group:
        yield group


def joined(group: Sequence[Kept]) -> Delivery:
    """Points of one run as one request."""
    body = [item for _, delivery in group for item in delivery.body]
    return replace(group[0][1], body=body, idempotency_key=uuid4().hex)


def _are_points_of_one_run(one: Delivery, other: Delivery) -> bool:
    are_points = all(it.method == "POST" and isinstance(it.body, list) for it in (one, other))
    return are_points and one.path == other.path


def _fields(delivery: Delivery) -> int:
    return sum(map(len, delivery.body)) if isinstance(delivery.body, list) else 0


def host_label() -> str:
    """This machine, without its name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _owner() -> str:
    return f"{host_label()}-{os.getpid()}"


def is_alive(pid: str) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True

"""What could not be delivered, on disk: one file is one request, complete from the moment it has its name.

A file is written under a temporary name and renamed, so a reader never sees half of one. Requests are idempotent (metric
points by identity, the rest by their idempotency key), so it does no harm when two processes deliver the same file.
No credential is written.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlops_platform.sdk.errors import MlopsError
from mlops_platform.sdk.wire import encode

REJECTED = ".rejected"


class Unreadable(MlopsError):
    """A file of the spool is not a request: its disk was full, or its machine went down, while it was written."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request that has to reach the server in the end."""

    method: str
    path: str
    body: Any
    idempotency_key: str


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

    def own(self) -> Iterator[Path]:
        """What this process has waiting, oldest first."""
        return (path for path in self.all() if f"-{_owner()}-" in path.name)

    def abandoned(self) -> Iterator[Path]:
        """What processes of this machine left that are no longer there."""
        for path in self.all():
            parts = path.name.split("-")
            if len(parts) == 5 and parts[2] == _host() and not _is_alive(parts[3]):
                yield path

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
            return Delivery(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise Unreadable(f"{path} is not a whole request: {error}") from error

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


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True

"""`mlops down`: ask the platform of a home to end, and wait for it."""

import contextlib
import os
import signal
from pathlib import Path

import psutil

from mlops_platform.core.db.embedded.lock import HomeLock
from mlops_platform.core.errors import ConfigurationError

_WAIT_SECONDS = 60.0


def stop(home: Path) -> int | None:
    """The process that was stopped; None when nothing ran."""
    pid = HomeLock(home).holder()
    if pid is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            raise ConfigurationError(f"Process {pid} belongs to another user: stop it as {process.username()}.") from None
        try:
            process.wait(_WAIT_SECONDS)
        except psutil.TimeoutExpired:
            raise ConfigurationError(f"Process {pid} did not end within {_WAIT_SECONDS:g} s; its log says why.") from None
    return pid

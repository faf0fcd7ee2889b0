"""`mlops down`."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlops_platform.core.errors import ConfigurationError
from mlops_platform.server import stopping

HOLDS = """
import signal, sys, time
from pathlib import Path
from mlops_platform.core.db.embedded.lock import HomeLock
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with HomeLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder_of(home: Path, *more: str) -> "subprocess.Popen[str]":
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(home), *more], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_where_nothing_runs_there_is_nothing_to_stop(tmp_path):
    assert stopping.stop(tmp_path) is None


def test_the_process_of_the_home_is_asked_to_end_and_waited_for(tmp_path):
    with holder_of(tmp_path) as holder:
        assert stopping.stop(tmp_path) == holder.pid
        assert holder.poll() is not None
    assert stopping.stop(tmp_path) is None


def test_one_that_does_not_end_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_WAIT_SECONDS", 0.2)
    with holder_of(tmp_path, "stubborn") as holder:
        with pytest.raises(ConfigurationError, match=f"Process {holder.pid} did not end"):
            stopping.stop(tmp_path)
        holder.kill()

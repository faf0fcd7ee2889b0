"""`mlops up --reload`: for whoever works on the platform itself."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parents[1]
_LOOK_SECONDS = 1.0


def keep_reloading(command: Sequence[str]) -> None:
    """Run the command; end and start it whenever a Python file of the package changes. Ctrl-C ends both."""
    while True:
        seen = _stamps()
        # Its own session: Ctrl-C reaches it through us, once.
        process = subprocess.Popen(command, start_new_session=True)  # noqa: S603  # our own command line
        try:
            while process.poll() is None and _stamps() == seen:
                time.sleep(_LOOK_SECONDS)
        except KeyboardInterrupt:
            _end(process)
            return
        if process.poll() is not None:
            sys.stderr.write("mlops: the platform ended; it starts again when a file changes.\n")
            while _stamps() == seen:
                time.sleep(_LOOK_SECONDS)
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait()


def _stamps() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in SOURCES.rglob("*.py")}

"""Functions that the tests run as users' tasks."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def add(a, b):
    return a + b


def environment():
    return dict(os.environ)


def process_id():
    return os.getpid()


def fail(message="it broke"):
    raise ValueError(message)


def leave(code=3):
    os._exit(code)


def kill_own_process(signum):
    os.kill(os.getpid(), signum)


def say(lines=3, text="line"):
    for n in range(lines):
        print(f"{text} {n}")  # noqa: T201  # what users do
    sys.stderr.write("no newline at the end")


def flood(megabytes=1):
    for _ in range(megabytes * 16):
        sys.stdout.write("x" * 65536)


def give(value):
    return value


def give_odd(kind):
    return {"set": {1}, "nan": float("nan"), "nul": "a\x00b", "huge": 10**30, "surrogate": "\ud800", "big": "x" * 100_000}[
        kind
    ]


async def later(value):
    await asyncio.sleep(0)
    return value


def mark(path, text="x"):
    """Leave a trace that the test can count: one line for each time this ran."""
    with Path(path).open("a") as trace:
        trace.write(f"{text}\n")
    return text


def wait_for(path, *, started=None, value="done"):
    """Run until the test makes the file."""
    if started is not None:
        mark(started, str(os.getpid()))
    while not Path(path).exists():
        time.sleep(0.02)
    return value


def stubborn(started, cleaned):
    """Ignores SIGTERM by catching everything, and starts a child that does the same."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    )
    mark(started, json.dumps([os.getpid(), child.pid]))
    while True:
        try:
            time.sleep(600)
        except BaseException:  # noqa: BLE001  # stubborn
            mark(cleaned)


def tidy(started, cleaned):
    """Cleans up when it is told to stop."""
    mark(started, str(os.getpid()))
    try:
        time.sleep(600)
    finally:
        mark(cleaned)


def fail_until(path, times):
    """Fails the given number of times, then succeeds."""
    mark(path)
    tries = len(Path(path).read_text().splitlines())
    if tries <= times:
        raise RuntimeError(f"try {tries}")
    return tries


def forge():
    """Answers for itself over the control socket, and badly."""
    os.write(int(sys.argv[1]) if len(sys.argv) > 1 else 3, b"not json\n")


def total(values):
    return sum(values)


def say_and_wait(path):
    sys.stdout.write("here\n")
    return wait_for(path)


def give_token():
    return os.environ["MLOPS_SERVICE_TOKEN"]


def mark_slowly(path, text, seconds=0.05):
    mark(path, text)
    time.sleep(seconds)
    return text


def wait_for_own(path, started):
    """Run until the test lets this very attempt go; the result is its number."""
    attempt = int(os.environ["MLOPS_PIPELINE_ATTEMPT"])
    wait_for(f"{path}-{attempt}", started=started)
    return attempt


def read(path):
    return Path(path).read_text()

"""Mutation tests: break the code that must not break in many small ways, and see a test fail for each.

    python -m scripts.mutants                 # every target of tests/mutants/targets.toml
    python -m scripts.mutants identity guard  # those whose name contains one of the words

Each mutant is run in a fork of this process, which has loaded the libraries and nothing of the platform; the mutant is
put in the place of the module when the tests import it, so no file is written. A tool that rewrites functions alone
(mutmut 3) would leave out what decides most here: the table of roles, decorated functions and the limits in constants.
Survivors that no test can tell from the original are listed with a reason in tests/mutants/accepted.txt.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import IO, Any

import grimp
import hypothesis
import pytest
from scripts.mutations import Mutant, mutants

ROOT = Path(__file__).parents[1]
TARGETS = ROOT / "tests/mutants/targets.toml"
ACCEPTED = ROOT / "tests/mutants/accepted.txt"
_LIBRARIES = (
    "alembic", "asyncpg", "cryptography.hazmat.primitives.ciphers.aead", "duckdb", "fastapi", "httpx2",
    "joserfc.jwt", "msgspec", "numpy", "obstore", "prometheus_client", "pyarrow", "redis.asyncio", "scipy.special",
    "scipy.stats", "sqlalchemy.ext.asyncio", "structlog", "xdist.plugin", "xdist.scheduler",
    # The lowest layer of the house, which imports no target.
    "mlops_platform.contracts.ab_testing", "mlops_platform.contracts.pipelines", "mlops_platform.contracts.registry",
    # What pytest would load as its plugins in every fork.
    "_hypothesis_pytestplugin", "_pytest.debugging", "_pytest.faulthandler", "_pytest.junitxml", "_pytest.stepwise",
    "anyio.pytest_plugin", "pdb", "pytest_asyncio.plugin", "pytest_cov.plugin", "pytest_socket",
    "pytest_timeout", "schemathesis.pytest.plugin",
)  # fmt: skip
_CLEAN_EVERY = 40
_COMPOSITION = ("mlops_platform.server.catalog", "mlops_platform.server.runtime")


@dataclass(frozen=True)
class Target:
    """A module, and the tests that hold it."""

    module: str
    tests: list[str]
    database: bool

    @property
    def path(self) -> Path:
        return ROOT / "src" / (self.module.replace(".", "/") + ".py")


@dataclass
class Standing:
    """The database server beside this process, which stands when the first target needs it."""

    process: subprocess.Popen[str] | None = None
    place: dict[str, str] = field(default_factory=dict)

    def start(self) -> dict[str, str]:
        if self.process is None:
            command = [sys.executable, "-m", "tests.factories.standing"]
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # ours
            self.place = json.loads(self._line())
        return self.place

    def clean(self) -> None:
        """Drop the databases of sessions that have ended."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            self._line()

    def stop(self) -> None:
        if self.process is not None:
            self.process.communicate()

    def _line(self) -> str:
        out: IO[str] | None = self.process.stdout if self.process else None
        return out.readline() if out else ""


class _AsWorker:
    """Tells the session where the database is, as the controller of parallel tests would."""

    def __init__(self, place: dict[str, str]) -> None:
        self._place = place

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: Any) -> None:
        config.workerinput = {"workerid": "mutant", "postgres": self._place}
        config.workeroutput = {}


def main() -> None:
    """Run the chosen targets; exit 1 when a mutant survives that is not accepted, or an accepted one does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of module names")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    options = parser.parse_args()
    targets = [it for it in _targets() if not options.words or any(word in it.module for word in options.words)]
    accepted = _accepted()
    with _prepared() as standing:
        is_clean = [_apart(it, standing, options.jobs, accepted.get(it.module, set())) for it in targets]
    sys.exit(0 if all(is_clean) else 1)


def _apart(target: Target, standing: Standing, jobs: int, accepted: set[str]) -> bool:
    """Run a target in a fork, which may load what the target does not touch and the next one will."""
    if target.database:
        standing.start()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        try:
            return os.waitpid(pid, 0)[1] == 0
        except BaseException:
            os.kill(pid, signal.SIGTERM)
            raise
    is_clean = False
    try:
        if target.database:
            _load_neighbours(target.module)
        is_clean = _report(target, _survivors(target, standing, jobs), accepted)
    finally:
        sys.stdout.flush()
        os._exit(0 if is_clean else 1)


def _load_neighbours(module: str) -> None:
    """Load what the platform needs and what does not import the module, however indirectly."""
    graph = grimp.build_graph("mlops_platform")
    needed = set().union(*(graph.find_upstream_modules(name) for name in _COMPOSITION))
    needed -= graph.find_downstream_modules(module) | {module}
    for name in sorted(needed):
        importlib.import_module(name)


def _targets() -> list[Target]:
    listed = tomllib.loads(TARGETS.read_text(encoding="utf-8"))["target"]
    return [Target(one["module"], one["tests"], one.get("database", False)) for one in listed]


def _accepted() -> dict[str, set[str]]:
    """Names by module: a line with a module, lines of mutants below it, each with its reason further in."""
    found: dict[str, set[str]] = {}
    module = ""
    for line in ACCEPTED.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text and not text.startswith("#") and indent == 0:
            module = text
        elif text and indent == 2:
            found.setdefault(module, set()).add(text)
    return found


@contextlib.contextmanager
def _prepared() -> Iterator[Standing]:
    """The libraries in memory, a place for hypothesis that is not the developer's, and perhaps a server."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and the processes of mutants end with us
    for name in _LIBRARIES:
        importlib.import_module(name)
    hypothesis.settings.register_profile("mutants", deadline=None)
    hypothesis.settings.load_profile("mutants")
    standing = Standing()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        try:
            yield standing
        finally:
            standing.stop()


def _survivors(target: Target, standing: Standing, jobs: int) -> tuple[list[Mutant], int]:
    """The mutants with which all tests pass, and how many there were."""
    began = time.monotonic()
    if _wait({_fork(target, None, standing.place): None}, began + 600)[1]:
        print(f"{target.module}: its tests fail as it stands: {' '.join(target.tests)}")
        sys.exit(1)
    patience = max(20.0, 4 * (time.monotonic() - began))
    survivors: list[Mutant] = []
    running: dict[int, Mutant | None] = {}
    try:
        count = _run_all(target, standing, running, survivors, jobs=jobs, patience=patience)
    finally:
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    return sorted(survivors, key=lambda it: it.line), count


def _run_all(
    target: Target,
    standing: Standing,
    running: dict[int, Mutant | None],
    survivors: list[Mutant],
    *,
    jobs: int,
    patience: float,
) -> int:
    count = 0
    for mutant in mutants(target.path.read_text(encoding="utf-8"), str(target.path)):
        count += 1
        if len(running) >= jobs:
            _collect(running, survivors, patience)
        if target.database and count % _CLEAN_EVERY == 0:
            standing.clean()
        running[_fork(target, mutant.code, standing.place)] = mutant
    while running:
        _collect(running, survivors, patience)
    return count


def _collect(running: dict[int, Mutant | None], survivors: list[Mutant], patience: float) -> None:
    pid, is_killed = _wait(running, time.monotonic() + patience)
    mutant = running.pop(pid)
    if not is_killed and mutant is not None:
        survivors.append(mutant)
        print(f"  survived, line {mutant.line}: {mutant.name}", file=sys.stderr, flush=True)


def _wait(running: dict[int, Mutant | None], deadline: float) -> tuple[int, bool]:
    """The next of the processes that ends, and whether a test failed. One that hangs has been noticed, too."""
    while True:
        for pid in running:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return pid, os.waitstatus_to_exitcode(status) != 0
        if time.monotonic() > deadline:
            pid = next(iter(running))
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return pid, True
        time.sleep(0.01)


def _fork(target: Target, code: CodeType | None, place: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # here and there, whoever is first: its children end with it
        return pid
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if code is not None:
        _put_in_place(target.module, code)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        if code is not None or stream == 0:
            os.dup2(nowhere, stream)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", "--no-header", "--durations=0", "--hypothesis-seed=0"]
    options += [] if target.database else ["--noconftest"]  # which loads the whole platform
    options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]  # hypothesis is, on purpose
    status = 1
    try:
        status = int(pytest.main([*options, *target.tests], plugins=[_AsWorker(place)]))
    finally:
        sys.stdout.flush()
        os._exit(status)


def _put_in_place(module: str, code: CodeType) -> None:
    original = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        return code if fullname == module else original(loader, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment]


def _report(target: Target, outcome: tuple[list[Mutant], int], accepted: set[str]) -> bool:
    survivors, count = outcome
    names = {mutant.name for mutant in survivors}
    unexpected = [mutant for mutant in survivors if mutant.name not in accepted]
    stale = sorted(accepted - names)
    killed = count - len(survivors)
    print(f"{target.module}: {count} mutants, {killed} killed, {len(survivors)} survived, {len(names & accepted)} accepted")
    for mutant in unexpected:
        print(f"  survived, line {mutant.line}: {mutant.name}")
    for name in stale:
        print(f"  accepted, but killed or gone: {name}")
    sys.stdout.flush()
    return not unexpected and not stale


if __name__ == "__main__":
    main()

"""Optuna, in a process of its own that is kept between questions."""

import asyncio
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from mlops_platform.core.errors import TooManyRequests
from mlops_platform.tracking.errors import AnalysisFailed, PackageMissing

log = structlog.get_logger(__name__)

_PROGRAM = str(Path(__file__).with_name("sampler_process.py"))
_SECONDS = 30.0
_IDLE_SECONDS = 120.0
_MOST_ASKING = 8
_LONGEST_ANSWER = 4 * 1024 * 1024


class Sampler:
    """One process for this server, started with the first question. Few questions wait for each other."""

    def __init__(self, *, package: str = "optuna", seconds: float = _SECONDS, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._package = package
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._turn = asyncio.Lock()
        self._asking = 0
        self._numbers = itertools.count()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        async with self._turn:
            await self._end()

    @property
    def process_id(self) -> int | None:
        """The process that is there now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def require(self) -> None:
        """Raise `PackageMissing` before anything is made that could never be worked on."""
        if importlib.util.find_spec(self._package) is None:
            raise PackageMissing(
                f"This needs the package {self._package!r}, which is not installed on the server.",
                hint="Install 'mlops-platform[analysis]' on the server; grid and random search need no package.",
            )

    async def ask(self, question: Mapping[str, Any]) -> Any:
        """The answer to one question; the same question has the same answer."""
        self.require()
        number = next(self._numbers)
        line = await asyncio.to_thread(_line, {**question, "number": number})
        # Those who wait may hold a database connection each: there are not to be more of them than that can bear.
        if self._asking >= _MOST_ASKING:
            raise TooManyRequests(f"Optuna has {self._asking} questions to answer already.", retry_after_seconds=1)
        self._asking += 1
        try:
            async with asyncio.timeout(self._seconds), self._turn:
                answer = await self._answered(line, number)
        except TimeoutError:
            raise AnalysisFailed("analysis", f"Optuna had no answer after {self._seconds:g} s.") from None
        finally:
            self._asking -= 1
        if "error" in answer:
            log.warning("sampler.failed", complaint=answer["error"])
            raise AnalysisFailed("analysis", f"Optuna cannot go on from these trials: {answer['error']}")
        return answer["answer"]

    async def _answered(self, line: bytes, number: int) -> Any:
        try:
            return await self._asked(line, number)
        except BaseException:
            # Also when it took too long or the request is cancelled: its answer must not be taken for that of the next.
            await self._end()
            raise

    async def _asked(self, line: bytes, number: int) -> Any:
        # A process that was idle for long may end at the very moment at which it is asked.
        is_old = self.process_id is not None
        answer = await self._exchange(line)
        if not answer and is_old:
            await self._end()
            answer = await self._exchange(line)
        if not answer:
            raise AnalysisFailed("analysis", "The process that runs Optuna ended without an answer.")
        read = await asyncio.to_thread(json.loads, answer)
        if read["number"] != number:
            raise AnalysisFailed("analysis", "The process that runs Optuna answered another question.")
        return read

    async def _exchange(self, line: bytes) -> bytes:
        """Empty when the process ended."""
        process = await self._started()
        if process.stdin is None or process.stdout is None:
            raise AnalysisFailed("analysis", "The process that runs Optuna cannot be reached.")
        try:
            process.stdin.write(line)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return b""
        return await process.stdout.readline()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                _PROGRAM,
                str(self._idle_seconds),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                limit=_LONGEST_ANSWER,
            )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _line(question: Mapping[str, Any]) -> bytes:
    return json.dumps(question).encode() + b"\n"


def _environment() -> dict[str, str]:
    """What the program needs to find its packages, and none of the server's secrets."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **one_thread}

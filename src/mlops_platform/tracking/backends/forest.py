"""Parameter importance by a random forest of scikit-learn, in a process of its own."""

import asyncio
import importlib.util
import json
import math
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from mlops_platform.core.errors import TooManyRequests
from mlops_platform.tracking.errors import AnalysisFailed, PackageMissing

log = structlog.get_logger(__name__)

_PROGRAM = str(Path(__file__).with_name("forest_process.py"))
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the forest says; `permutations` maps the number of a column to mean and deviation."""

    score: float | None
    importances: Sequence[float]
    permutations: dict[int, tuple[float, float]]


class Forest:
    """Grows one forest at a time in this server process; who comes meanwhile is asked to come again."""

    _free = threading.BoundedSemaphore(1)

    def __init__(self, *, package: str = "sklearn", seconds: float = _SECONDS) -> None:
        self._package = package
        self._seconds = seconds

    def require(self) -> None:
        """Raise `PackageMissing` before anything is read for nothing."""
        if importlib.util.find_spec(self._package) is None:
            raise PackageMissing(
                "Parameter importance needs the package 'scikit-learn', which is not installed on the server.",
                hint="Install 'mlops-platform[analysis]' on the server, or ask without; correlations need no package.",
            )

    async def weigh(self, columns: Sequence[Sequence[float]], target: Sequence[float]) -> Weighed:
        """What each column is worth for the target."""
        if not self._free.acquire(blocking=False):
            raise TooManyRequests("Another importance is being computed; there is one at a time.", retry_after_seconds=5)
        try:
            plain = [[value if math.isfinite(value) else None for value in column] for column in columns]
            question = json.dumps({"columns": plain, "target": list(target)}).encode()
            answer = json.loads(await self._run(question))
        finally:
            self._free.release()
        shuffled = {int(number): (lost[0], lost[1]) for number, lost in answer["permutations"].items()}
        return Weighed(answer["score"], answer["importances"], shuffled)

    async def _run(self, question: bytes) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            _PROGRAM,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            async with asyncio.timeout(self._seconds):
                output, complaint = await process.communicate(question)
        except TimeoutError:
            raise AnalysisFailed(
                "analysis", f"The importance was not known after {self._seconds:g} s.", hint="Compare fewer parameters."
            ) from None
        finally:
            await _end(process)
        if process.returncode:
            log.warning(
                "importance.failed", returncode=process.returncode, complaint=complaint[-2000:].decode("utf-8", "replace")
            )
            raise AnalysisFailed("analysis", "The process that computes importances ended without an answer.")
        return output


async def _end(process: Any) -> None:
    """Also when the request is cancelled: nothing of it may go on computing."""
    if process.returncode is None:
        process.kill()
        await process.wait()


def _environment() -> dict[str, str]:
    """What the program needs to find its packages, and none of the server's secrets."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **one_thread}

"""Access lines, gathered and written in batches: a line per request must not cost a write per request."""

import asyncio
import random
from typing import Any

import structlog

log = structlog.get_logger("mlops_platform.access")

_FLUSH_SECONDS = 0.5
_FLUSH_LINES = 500


class AccessLog:
    """Buffers lines for at most half a second. Of successful hot requests, only the sampled share is kept."""

    def __init__(self, service: str, sample: float) -> None:
        self._service = service
        self._sample = sample
        self._lines: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None

    def keeps(self, *, is_hot: bool, status: int) -> bool:
        """Whether a line is wanted: asked first, because most lines of hot paths are not and would be made for nothing."""
        return not is_hot or status >= 400 or self._sample >= 1 or random.random() < self._sample  # noqa: S311  # sampling

    def add(self, line: dict[str, Any]) -> None:
        """Take one line."""
        self._lines.append(line)
        if len(self._lines) >= _FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what is gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        for line in lines:
            log.info("access", service=self._service, **line)

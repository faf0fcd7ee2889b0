"""One run while it is going on: what a training loop holds."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

from mlops_platform.contracts.tracking import Artifact, Run, RunStatus
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.artifacts import AsyncArtifacts
from mlops_platform.sdk.recorder import Recorder
from mlops_platform.sdk.wire import file_path, milliseconds, segment

RESERVED_KEYS = frozenset({"step", "timestamp"})
LONGEST_KEY = 250


class AsyncActiveRun:
    """A run that is being recorded. `log_metric` and its siblings return at once and never raise for the server's sake.

    As a context manager it ends the run: finished, or failed when the body raised, or killed on Ctrl-C.
    """

    def __init__(self, info: Run, recorder: Recorder, artifacts: AsyncArtifacts) -> None:
        self.info = info
        self.id = info.id
        self.experiment_id = info.experiment_id
        self._recorder = recorder
        self._artifacts = artifacts
        self._path = f"/api/experiments/{info.experiment_id}/runs/{info.id}"
        self._metrics_path = f"{self._path}/metrics"
        self._known_keys: set[str] = set()
        self._is_open = True

    def log_metric(
        self, key: str, value: SupportsFloat, *, step: int | None = None, timestamp: datetime | None = None
    ) -> None:
        """Record one value. NaN and infinities are kept. Costs an append on the caller's thread."""
        if key not in self._known_keys:
            self._check_key(key)
        at = time.time_ns() // 1_000_000 if timestamp is None else milliseconds(timestamp)
        self._recorder.point(self._metrics_path, key, float(value), step, at)

    def log_metrics(
        self, metrics: Mapping[str, SupportsFloat], *, step: int | None = None, timestamp: datetime | None = None
    ) -> None:
        """Record several values of one step."""
        at = time.time_ns() // 1_000_000 if timestamp is None else milliseconds(timestamp)
        for key, value in metrics.items():
            if key not in self._known_keys:
                self._check_key(key)
            self._recorder.point(self._metrics_path, key, float(value), step, at)

    def log_param(self, key: str, value: Any) -> None:
        """Record one parameter."""
        self.log_params({key: value})

    def log_params(self, parameters: Mapping[str, Any]) -> None:
        """Record parameters; nested ones are flattened with dots. They never change afterwards."""
        self._recorder.request("POST", f"{self._path}/params", {"parameters": dict(parameters)})

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags; None removes one."""
        self._recorder.request("PATCH", self._path, {"tags": dict(tags)})

    def set_notes(self, text: str) -> None:
        """Replace the run's notes."""
        self._recorder.request("PATCH", self._path, {"notes": text})

    def log_inputs(self, urns: Iterable[str]) -> None:
        """State what the run read (training sets, model versions), by URN: edges of the lineage graph."""
        self._recorder.request("POST", f"{self._path}/inputs", {"inputs": list(urns)})

    async def log_artifact(
        self, source: Path | str, path: str | None = None, *, progress: bool | None = None
    ) -> Sequence[Artifact]:
        """Upload a file, or all files below a directory, under `path`. Unlike metrics, this waits and raises."""
        return await self._artifacts.upload(
            f"{self._path}/artifacts", Path(source), path, answer=Artifact, progress=progress
        )

    async def log_text(self, text: str, path: str) -> Artifact:
        """Store a text as an artifact."""
        return await self._artifacts.put_bytes(
            f"{self._path}/artifacts/{file_path(path)}", text.encode(), answer=Artifact, content_type="text/plain"
        )

    async def flush(self, *, timeout_seconds: float = 30.0) -> bool:
        """Wait until the server has what was recorded. False: the rest is in the spool and will be sent later."""
        return await backend.in_thread(self._recorder.flush, timeout_seconds=timeout_seconds)

    async def finish(self, status: RunStatus | str = RunStatus.FINISHED) -> None:
        """End the run, after all that was recorded. While the server is away this too is kept and sent later."""
        if not self._is_open:
            return
        self._is_open = False
        # One reading of the clock: two would differ by a second now and then, and a run end before it began.
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        ended = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"
        self._recorder.request("PATCH", self._path, {"status": RunStatus(status).value, "end_time": ended})
        await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish(RunStatus.FINISHED)
        else:
            await self.finish(RunStatus.KILLED if issubclass(kind, KeyboardInterrupt) else RunStatus.FAILED)

    def _check_key(self, key: str) -> None:
        # Said where the mistake is made: the server would refuse the point long after the call has returned.
        if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable() or key in RESERVED_KEYS:
            raise ValueError(
                f"{key!r} cannot be a metric: its key has 1 to {LONGEST_KEY} printable characters and is not one of "
                f"{', '.join(sorted(RESERVED_KEYS))}."
            )
        self._known_keys.add(key)

    def __repr__(self) -> str:
        return f"<run {self.info.run_name!r} {segment(self.id)}>"

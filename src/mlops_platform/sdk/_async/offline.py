"""Runs that were recorded offline, on their way to the server; and the artifacts of those that are being recorded."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mlops_platform.contracts.tracking import Artifact, Experiment, Run
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.artifacts import AsyncArtifacts
from mlops_platform.sdk._async.client import AsyncServiceClient
from mlops_platform.sdk.content import content_type_of
from mlops_platform.sdk.errors import (
    ApiError,
    InvalidRequest,
    MlopsError,
    PermissionDenied,
    ServerError,
    TooManyRequests,
    Unauthenticated,
)
from mlops_platform.sdk.files import collect, sha256_of
from mlops_platform.sdk.offline import ARTIFACTS, FINAL, RUNS, Entry, OfflineRun, OfflineStore, recorded
from mlops_platform.sdk.wire import file_path, timestamp_now

BATCH_BODIES = 500
SAVED_EVERY = 20
LEFT = "mlops.offline.left"
"""The tag of a run whose process was gone before it could end it."""
NOT_YET = (ServerError, TooManyRequests, Unauthenticated, PermissionDenied)


@dataclass(frozen=True, slots=True)
class SyncedRun:
    """What became of one recorded run. `outcome`: synced, going on, waiting (and why), busy elsewhere."""

    id: str
    experiment: str
    outcome: str
    sent: int
    refused: int
    why: str | None = None


class AsyncKeptArtifacts:
    """Artifacts of an offline run: files in its folder."""

    def __init__(self, store: OfflineStore) -> None:
        self._store = store

    async def upload(
        self, url_path: str, source: Path, logical: str | None, *, answer: type[Artifact], progress: bool | None
    ) -> Sequence[Artifact]:
        files = await backend.in_thread(collect, source, logical=logical)
        return [await self._keep(url_path, file.logical, file.path, content_type_of(file.logical)) for file in files]

    async def put_bytes(self, url_path: str, content: bytes, *, answer: type[Artifact], content_type: str) -> Artifact:
        place, _, logical = url_path.partition(f"/{ARTIFACTS}/")
        return await self._keep(place, unquote(logical), content, content_type)

    async def _keep(self, url_path: str, logical: str, source: Path | bytes, content_type: str) -> Artifact:
        run_id = url_path.removeprefix(RUNS).partition("/")[0]
        target = await backend.in_thread(self._store.keep, run_id, logical, source, content_type)
        digest = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sha256_of(target)
        return Artifact(
            path=logical,
            size=target.stat().st_size,
            sha256=digest,
            content_type=content_type,
            created_at=datetime.now(UTC),
        )


class AsyncOfflineSync:
    """Sends recorded runs in the order of their recording. Whatever breaks off is taken up again where it was."""

    def __init__(
        self,
        client: AsyncServiceClient,
        artifacts: AsyncArtifacts,
        experiment: Callable[[str], backend.Later[Experiment]],
    ) -> None:
        self._client = client
        self._artifacts = artifacts
        self._experiment = experiment

    async def sync(self, root: Path) -> list[SyncedRun]:
        """All runs below a folder."""
        return [await self._held(run) for run in await backend.in_thread(recorded, root)]

    async def _held(self, run: OfflineRun) -> SyncedRun:
        state = run.state()
        before = sum(state["sent"].values())
        why = None
        with run.held() as is_mine:
            if is_mine:
                # Read again: whoever held it before may have gone on.
                state = run.state()
                before = sum(state["sent"].values())
                why = await self._sent(run, state)
        outcome = "synced" if state["done"] else "busy elsewhere" if not is_mine else "waiting" if why else "going on"
        sent = sum(state["sent"].values()) - before
        return SyncedRun(run.id, run.experiment, outcome, sent, state["refused"], why)

    async def _sent(self, run: OfflineRun, state: dict[str, Any]) -> str | None:
        """Send what has not been sent; why it could not be, when it could not."""
        if state["done"]:
            return None
        try:
            # Asked before the journal is read to its end: what is written after that is seen the next time.
            was_left = run.was_left()
            await self._create(run, state)
            await self._journal(run, state)
            await self._finish(run, state, was_left=was_left)
        except (MlopsError, OSError) as error:
            return str(error)
        finally:
            run.save(state)
        return None

    async def _create(self, run: OfflineRun, state: dict[str, Any]) -> None:
        if not state["created"]:
            found = await self._experiment(run.experiment)
            path = f"/api/experiments/{found.id}/runs"
            await self._client.send("POST", path, Run, json=run.about["run"], idempotency_key=run.about["key"])
            state["created"] = True

    async def _journal(self, run: OfflineRun, state: dict[str, Any]) -> None:
        for number, group in enumerate(_groups(run.entries(state["sent"]))):
            await self._send(run, group, state)
            for entry in group:
                state["sent"][entry.journal] = state["sent"].get(entry.journal, 0) + 1
            if number % SAVED_EVERY == 0:
                run.save(state)

    async def _send(self, run: OfflineRun, group: Sequence[Entry], state: dict[str, Any]) -> None:
        first = group[0]
        path = f"{RUNS}{run.id}/{first.suffix}".rstrip("/")
        if first.artifact is not None:
            await self._upload(run, first, state)
        elif len(group) == 1 and first.suffix != "metrics":
            await self._tried(
                state,
                run,
                first.body,
                lambda: self._client.request(first.method, path, json=first.body, idempotency_key=first.key),
            )
        else:
            await self._points(run, path, [body for entry in group for body in entry.body], state)

    async def _upload(self, run: OfflineRun, entry: Entry, state: dict[str, Any]) -> None:
        logical = entry.artifact or ""
        source = run.folder / ARTIFACTS / logical
        path = f"{RUNS}{run.id}/{ARTIFACTS}/{file_path(logical)}"
        if not source.is_file():
            self._refused(state, run, logical, "its file is gone")
            return
        await self._tried(state, run, logical, lambda: self._artifacts.put_file(path, source, Artifact))

    async def _points(self, run: OfflineRun, path: str, bodies: list[Any], state: dict[str, Any]) -> None:
        # One bad point must not take the others with it: halve until it stands alone.
        try:
            await self._client.request("POST", path, json=bodies)
        except InvalidRequest as error:
            if len(bodies) == 1:
                self._refused(state, run, bodies[0], str(error))
                return
            middle = len(bodies) // 2
            await self._points(run, path, bodies[:middle], state)
            await self._points(run, path, bodies[middle:], state)

    async def _finish(self, run: OfflineRun, state: dict[str, Any], *, was_left: bool) -> None:
        ends = [entry for entry in run.entries() if entry.suffix == "" and "status" in (entry.body or {})]
        if ends and ends[-1].body["status"] in FINAL:
            state["done"] = True
        elif was_left:
            last = max((entry.at for entry in run.entries()), default=run.about["at"])
            ended = datetime.fromtimestamp(last / 1e9, UTC).isoformat()
            body = {"status": "FAILED", "end_time": ended, "tags": {LEFT: timestamp_now()}}
            await self._client.request("PATCH", f"{RUNS}{run.id}", json=body)
            state["done"] = True

    async def _tried(
        self, state: dict[str, Any], run: OfflineRun, what: Any, call: Callable[[], backend.Later[Any]]
    ) -> None:
        try:
            await call()
        except ApiError as error:
            if isinstance(error, NOT_YET):
                raise
            self._refused(state, run, what, str(error))

    @staticmethod
    def _refused(state: dict[str, Any], run: OfflineRun, what: Any, why: str) -> None:
        """What the server will never take is set aside, for a person to look at; the rest goes on."""
        state["refused"] += 1
        run.set_aside(what, why)


def _groups(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Metrics that follow each other are sent together."""
    group: list[Entry] = []
    for entry in entries:
        if entry.suffix != "metrics":
            yield from [group] if group else []
            group = []
            yield [entry]
            continue
        group.append(entry)
        if sum(len(one.body) for one in group) >= BATCH_BODIES:
            yield group
            group = []
    if group:
        yield group

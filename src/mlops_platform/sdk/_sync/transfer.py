# Generated from sdk/_async/transfer.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""Experiments to and from files and other servers: what is kept is read and written in pages, never held whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import from_json

from mlops_platform.contracts.tracking import Artifact, Experiment, MetricsAccepted
from mlops_platform.contracts.tracking_archives import (
    EXPORTED_POINTS,
    MAX_IMPORTED_ARTIFACTS,
    ExperimentImported,
    ImportAnswer,
    Imported,
    ImportFinished,
    ImportOutcome,
)
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.artifacts import UPLOAD_PATIENCE_SECONDS, Artifacts, RemoteFile
from mlops_platform.sdk._sync.client import ServiceClient, unexpected_answer
from mlops_platform.sdk.archive.writer import ArchiveWriter
from mlops_platform.sdk.errors import (
    ApiError,
    Conflict,
    DigestMismatch,
    PermissionDenied,
    ServerError,
    TooManyRequests,
    Unauthenticated,
)
from mlops_platform.sdk.files import CHUNK_BYTES, BlobCache
from mlops_platform.sdk.transfer import ImportReport, Record, Source, SourceFile, SourceModel, SourceRun, Unreadable
from mlops_platform.sdk.wire import encode, file_path, segment

RUNS_AT_ONCE = 50
OWNERS_AT_ONCE = 100
FILES_AT_ONCE = 4
REQUEST_BYTES = 8_000_000
PAGE_SIZE = 1000
INCOMPLETE = "import_incomplete"
NOT_YET = (ServerError, TooManyRequests, Unauthenticated, PermissionDenied)
T = TypeVar("T")


class ExperimentExport:
    """Writes one experiment to one file."""

    def __init__(self, client: ServiceClient, experiment_id: str) -> None:
        self._client = client
        self._path = f"/api/experiments/{segment(experiment_id)}/export"

    def write(self, target: Path) -> None:
        """All of it. The file appears when it is complete."""
        writer = backend.in_thread(ArchiveWriter, target)
        try:
            self._write(writer)
        finally:
            backend.in_thread(writer.discard)

    def _write(self, writer: ArchiveWriter) -> None:
        experiment = self._get("")
        model_ids: list[str] = []
        for page in self._pages("/models", {}):
            backend.in_thread(writer.models, page["items"])
            model_ids += [model["id"] for model in page["items"] if model["artifacts"]]
        run_ids: list[str] = []
        for page in self._pages("/runs", {"page_size": OWNERS_AT_ONCE}):
            backend.in_thread(writer.runs, page["items"], page["datasets"])
            run_ids += [run["id"] for run in page["items"]]
        for owners in _parts(run_ids, OWNERS_AT_ONCE):
            for page in self._pages("/points", {"run_id": owners, "page_size": EXPORTED_POINTS}):
                backend.in_thread(writer.points, page)
        for owner, ids in (("model", model_ids), ("run", run_ids)):
            for owners in _parts(ids, OWNERS_AT_ONCE):
                query = {"owner_id": owners, "owners": f"{owner}s", "page_size": PAGE_SIZE}
                for page in self._pages("/artifacts", query):
                    self._files(writer, owner, page["items"], experiment["number"])
        backend.in_thread(writer.finish, experiment)

    def _files(self, writer: ArchiveWriter, owner: str, items: Sequence[Record], number: int) -> None:
        artifacts = Artifacts(self._client, BlobCache(writer.folder / "blobs"))
        fresh: dict[str, Record] = {}
        for item in items:
            backend.in_thread(writer.artifact, owner, item)
            if not writer.has_blob(item["sha256"]):
                fresh[item["sha256"]] = item

        def bring(item: Record) -> tuple[str, Path]:
            url = _url(owner, item["owner_id"], item["path"], number)
            file = RemoteFile(item["path"], item["sha256"], item["size"], url)
            return item["sha256"], artifacts.blob(file, _silent)

        for part in _parts(list(fresh.values()), FILES_AT_ONCE):
            for sha256, path in backend.for_each(part, bring, at_once=FILES_AT_ONCE):
                backend.in_thread(writer.blob, sha256, path)

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            page = self._get(path, {**query, "page_token": token})
            yield page
            token = page.get("next_page_token")
            if token is None:
                return

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        response = self._client.request("GET", self._path + path, params=query)
        try:
            found = from_json(response.content)
        except ValueError as error:
            raise unexpected_answer(response) from error
        if not isinstance(found, dict):
            raise unexpected_answer(response)
        return found


class ExperimentImport:
    """Brings one experiment in from a source. Whatever breaks off is taken up by doing it again."""

    def __init__(self, client: ServiceClient, source: Source) -> None:
        self._client = client
        self._source = source
        self.report = ImportReport()
        self._path = ""
        self._number = 0

    def bring(self, *, name: str | None = None) -> ImportReport:
        """All of it; what became of it."""
        record = backend.in_thread(self._source.experiment)
        body = {"experiment": record, **({"name": name} if name else {})}
        made = self._client.send("POST", "/api/experiments/import", ExperimentImported, json=body)
        self.report.experiment_id, self.report.name = made.id, made.name
        self._path = f"/api/experiments/{made.id}/import"
        backend.in_thread(self._source.aim, made.id)
        found = self._client.get(Experiment, f"/api/experiments/{made.id}")
        self._number = found.number or 0
        if made.outcome is ImportOutcome.CONFLICT:
            self.report.conflicts.append(f"experiment {made.id}: {', '.join(made.differs)}")
        if found.deleted_at is None and found.archived_at is None:
            self._contents()
        if not self._source.follows or record.get("deleted_at"):
            self._client.send("POST", f"{self._path}/finish", ImportFinished, json={"experiment": True})
        self.report.left_out += backend.in_thread(self._source.left_out)
        return self.report

    def _contents(self) -> None:
        models = backend.in_thread(self._source.models)
        while part := backend.in_thread(_taken, models, RUNS_AT_ONCE):
            self._models(part)
        runs = backend.in_thread(self._source.runs)
        waiting: list[SourceRun] = []
        size = 0
        while some := backend.in_thread(_taken, runs, 1):
            length = len(encode({"run": some[0].record, "datasets": some[0].datasets}))
            if waiting and (len(waiting) >= RUNS_AT_ONCE or size + length > REQUEST_BYTES):
                self._runs(waiting)
                waiting, size = [], 0
            waiting += some
            size += length
        if waiting:
            self._runs(waiting)

    def _models(self, part: Sequence[SourceModel]) -> None:
        for some in _by_size(part, lambda it: it.record):
            body = {"models": [it.record for it in some]}
            answer = self._client.send("POST", f"{self._path}/models", ImportAnswer, json=body)
            fresh = self._outcomes("logged model", answer.items)
            ended = {it.record["id"] for it in some if it.has_ended}
            self._complete(fresh, ended, "models")

    def _runs(self, part: Sequence[SourceRun]) -> None:
        datasets = {(it["name"], it["digest"]): it for run in part for it in run.datasets}
        body = {
            "runs": [run.record for run in part],
            "datasets": list(datasets.values()),
            "follow": self._source.follows,
        }
        answer = self._client.send("POST", f"{self._path}/runs", ImportAnswer, json=body)
        fresh = self._outcomes("run", answer.items)
        if fresh:
            points = backend.in_thread(self._source.points, fresh)
            while some := backend.in_thread(_taken, points, 1):
                stored = self._client.send("POST", f"{self._path}/points", MetricsAccepted, json=some[0])
                self.report.points += stored.stored
        self._complete(fresh, {run.record["id"] for run in part if run.has_ended}, "runs")

    def _outcomes(self, what: str, items: Sequence[Imported]) -> list[str]:
        fresh = []
        for item in items:
            if item.outcome is ImportOutcome.CREATED:
                fresh.append(item.id)
                self.report.created += 1
            elif item.outcome is ImportOutcome.UNCHANGED:
                self.report.unchanged += 1
            else:
                self.report.conflicts.append(f"{what} {item.id}: {', '.join(item.differs)}")
            self.report.left_out += [f"{what} {item.id}: {name}" for name in item.left_out]
        return fresh

    def _complete(self, fresh: Sequence[str], ended: set[str], what: str) -> None:
        """Send the files of those that are new, and say of those that have ended that they are complete."""
        if not fresh:
            return
        there = {(it["owner_id"], it["path"], it["sha256"]) for it in self._stored(fresh, what)}
        files: dict[str, list[dict[str, str]]] = {owner: [] for owner in fresh}
        source = backend.in_thread(lambda: self._source.files(fresh, of_models=what == "models"))
        while part := backend.in_thread(_taken, source, FILES_AT_ONCE):
            missing = [it for it in part if (it.owner_id, it.path, it.sha256) not in there]
            kept = [it for it in part if (it.owner_id, it.path, it.sha256) in there]
            sent = backend.for_each(missing, lambda it: self._send(it, what), at_once=FILES_AT_ONCE)
            for file, sha256 in [*((it, it.sha256) for it in kept), *zip(missing, sent, strict=True)]:
                if sha256 is not None:
                    files[file.owner_id].append({"path": file.path, "sha256": sha256, "created_at": file.created_at})
        held_up: set[str] = set()
        for body in _ends([(owner, files[owner]) for owner in fresh if owner in ended], what):
            self._finish(body[what], what, held_up)

    def _finish(self, ends: Sequence[dict[str, Any]], what: str, held_up: set[str]) -> None:
        """Say what is complete. What lacks a file that the server never takes is named, and holds up no other."""
        ends = [end for end in ends if end["id"] not in held_up]
        if not ends:
            return
        try:
            self._client.send("POST", f"{self._path}/finish", ImportFinished, json={what: ends})
        except Conflict as error:
            if error.code != INCOMPLETE:
                raise
            if len(ends) > 1:
                # The server completes all of a request or none, and says one name.
                for end in ends:
                    self._finish([end], what, held_up)
                return
            held_up.add(ends[0]["id"])
            self.report.left_out.append(f"{what.removesuffix('s')} {ends[0]['id']}: its end: {error}")

    def _stored(self, owners: Sequence[str], what: str) -> Iterator[dict[str, Any]]:
        path = self._path.removesuffix("/import") + "/export/artifacts"
        query: dict[str, Any] = {"owner_id": owners, "owners": what, "page_size": PAGE_SIZE}
        while True:
            page = from_json((self._client.request("GET", path, params=query)).content)
            yield from page["items"]
            if page["next_page_token"] is None:
                return
            query["page_token"] = page["next_page_token"]

    def _send(self, file: SourceFile, what: str) -> str | None:
        """Send one file; its digest, or None when the server will never take it."""
        url = _url(what.removesuffix("s"), file.owner_id, file.path, self._number)

        def body() -> Iterator[bytes]:
            opened = backend.in_thread(file.open)
            try:
                while chunk := backend.in_thread(opened.read, CHUNK_BYTES):
                    yield chunk
            finally:
                backend.in_thread(opened.close)

        headers = {"Content-Type": file.content_type}
        if file.size is not None:
            headers["Content-Length"] = str(file.size)
        try:
            response = self._client.request(
                "PUT", url, content=body, headers=headers, patience_seconds=UPLOAD_PATIENCE_SECONDS
            )
        except (ApiError, OSError, Unreadable) as error:
            if isinstance(error, NOT_YET):
                raise
            self.report.left_out.append(f"{file.owner_id}: the file {file.path!r}: {error}")
            return None
        self.report.files += 1
        sha256 = self._client.read(Artifact, response).sha256 if what == "runs" else file.sha256
        if file.sha256 is not None and sha256 != file.sha256:
            raise DigestMismatch(f"{file.path}: {file.sha256} was sent and {sha256} was stored.")
        return sha256


def _taken(items: Iterator[T], count: int) -> list[T]:
    return list(islice(items, count))


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _by_size(items: Sequence[T], record: Callable[[T], Record]) -> Iterator[list[T]]:
    """In parts that fit into one request."""
    part: list[T] = []
    size = 0
    for item in items:
        length = len(encode(record(item)))
        if part and size + length > REQUEST_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part


def _ends(owners: Sequence[tuple[str, list[dict[str, str]]]], what: str) -> Iterator[dict[str, Any]]:
    """What is complete, in requests of a bounded number of files."""
    ends: list[dict[str, Any]] = []
    count = 0
    for owner, files in owners:
        parts = list(_parts(files, MAX_IMPORTED_ARTIFACTS)) or [[]]
        for number, part in enumerate(parts):
            if ends and (count + len(part) > MAX_IMPORTED_ARTIFACTS or number > 0):
                yield {what: ends}
                ends, count = [], 0
            ends.append({"id": owner, "artifacts": part, "more": number < len(parts) - 1})
            count += len(part)
    if ends:
        yield {what: ends}


def _url(owner: str, owner_id: str, path: str, number: int) -> str:
    if owner == "run":
        return f"/api/runs/{segment(owner_id)}/artifacts/{file_path(path)}"
    return f"/api/2.0/mlflow-artifacts/artifacts/{number}/models/m-{segment(owner_id)}/artifacts/{file_path(path)}"


def _silent(_: int) -> None:
    return

"""HTTP of experiments that leave whole: pages of what is kept, as it is kept. A client makes one file of them."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import Depends, Query, Response

from mlops_platform.contracts.common import ID_PATTERN, Page
from mlops_platform.contracts.tracking_archives import (
    EXPORTED_POINTS,
    MAX_IMPORTED_RUNS,
    MAX_MODEL_METRICS,
    ArchivedArtifact,
    ArchivedExperiment,
    ArchivedModel,
    ArchivedOwner,
    ExportedPoints,
    ExportedRuns,
)
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf, PageRequest, encode_token, pages_of
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.keys import context_of
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.errors import ExperimentNotFound, ModelTooLarge
from mlops_platform.tracking.repository.archives import ArchiveReader
from mlops_platform.tracking.repository.artifacts import MODELS, RUNS
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.service import archives

router = platform_router(tags=["archives"])

OwnerIds = Annotated[
    list[Annotated[str, Query(pattern=ID_PATTERN)]], Query(max_length=MAX_IMPORTED_RUNS, description="Which; at most 100.")
]
_read = requires(EXPERIMENTS_READ)
_errors = problems(ExperimentNotFound)


@router.get("/api/experiments/{experiment_id}/export", dependencies=[_read], responses=_errors)
async def export_experiment(experiment_id: ExperimentId, work: Work) -> ArchivedExperiment:
    """An experiment as an import takes it, with its goals and views. That somebody begins to export it is audited."""
    return await archives.begin_export(work, experiment_id)


@router.get("/api/experiments/{experiment_id}/export/runs", dependencies=[_read], responses=_errors)
async def export_runs(experiment_id: ExperimentId, caller: Caller, session: Reading, page: PageOf) -> ExportedRuns:
    """Runs as an import takes them, deleted ones too. A page ends early when it becomes long."""
    await _check(experiment_id, caller, session)
    after = page.after[0] if page.after else None
    size = min(page.size, MAX_IMPORTED_RUNS)
    ids, is_more = await ArchiveReader(session, caller).run_ids(experiment_id, after=after, limit=size)
    items = await archives.archived_runs(session, caller, ids)
    named = {(used.name, used.digest) for run in items for used in run.inputs}
    token = encode_token(page.key, (ids[-1],)) if is_more else None
    datasets = await archives.archived_datasets(session, caller, sorted(named))
    return ExportedRuns(items=items, datasets=datasets, next_page_token=token)


@router.get(
    "/api/experiments/{experiment_id}/export/models",
    dependencies=[_read],
    responses=problems(ExperimentNotFound, ModelTooLarge),
)
async def export_models(experiment_id: ExperimentId, caller: Caller, session: Reading, page: PageOf) -> Page[ArchivedModel]:
    """Logged models as an import takes them, deleted ones too, with the points that speak of them."""
    await _check(experiment_id, caller, session)
    reader = ArchiveReader(session, caller)
    after = page.after[0] if page.after else None
    size = min(page.size, MAX_IMPORTED_RUNS)
    rows = await reader.models(experiment_id, after=after, limit=size + 1)
    items: list[ArchivedModel] = []
    points = 0
    for row in rows[:size]:
        metrics = await reader.model_metrics(row.id, limit=MAX_MODEL_METRICS + 1)
        if len(metrics) > MAX_MODEL_METRICS:
            raise ModelTooLarge.of(row.id, MAX_MODEL_METRICS)
        points += len(metrics)
        if items and points > MAX_MODEL_METRICS:
            break
        items.append(archives.archived_model(row, metrics))
    token = encode_token(page.key, (items[-1].id,)) if len(items) < len(rows) else None
    return Page(items=items, next_page_token=token)


@router.get("/api/experiments/{experiment_id}/export/artifacts", dependencies=[_read], responses=_errors)
async def export_artifacts(
    experiment_id: ExperimentId,
    caller: Caller,
    session: Reading,
    page: PageOf,
    owner_id: OwnerIds,
    owners: Annotated[ArchivedOwner, Query(description="Whether these are runs or logged models.")] = ArchivedOwner.RUNS,
) -> Page[ArchivedArtifact]:
    """The files of some runs or logged models of the experiment, by owner and path."""
    await _check(experiment_id, caller, session)
    reader, shelf = ArchiveReader(session, caller), MODELS if owners is ArchivedOwner.MODELS else RUNS
    ids = await reader.those_within(shelf, experiment_id, owner_id)
    rows = await reader.artifacts(shelf, ids, after=page.after, limit=page.size + 1)
    return page.answer(rows, _artifact, lambda row: (row.owner_id, row.path))


@router.get(
    "/api/experiments/{experiment_id}/export/points", response_model=ExportedPoints, dependencies=[_read], responses=_errors
)
async def export_points(
    experiment_id: ExperimentId,
    caller: Caller,
    session: Reading,
    page: Annotated[PageRequest, Depends(pages_of(EXPORTED_POINTS))],
    run_id: OwnerIds,
) -> Response:
    """The exact points of some runs of the experiment as columns, by run; at most 10,000 a page."""
    await _check(experiment_id, caller, session)
    reader = ArchiveReader(session, caller)
    counts = await reader.point_counts(experiment_id, run_id)
    rows, is_more = await _points(reader, counts, page)
    keys = await reader.keys(sorted({row.key_id for row in rows}))
    token = None
    if is_more:
        last = rows[-1]
        token = encode_token(page.key, (last.run_id, last.key_id, last.step, last.timestamp, last.value))
    body = await asyncio.to_thread(_columns, rows, keys, token)
    return Response(body, media_type="application/json")


async def _points(reader: ArchiveReader, counts: Mapping[str, int], page: PageRequest) -> tuple[list[Record], bool]:
    """A page, run by run: small runs are read together, and a large one from where the page before ended."""
    after, most = page.after, page.size + 1
    left = [run_id for run_id in sorted(counts) if counts[run_id] and (after is None or run_id > after[0])]
    rows: list[Record] = []
    if after is not None:
        rows += await reader.points([after[0]], after=after[1:], limit=most)
    while left and len(rows) < most:
        together, room = [left.pop(0)], most - len(rows)
        held = counts[together[0]]
        while left and held + counts[left[0]] <= room:
            held += counts[left[0]]
            together.append(left.pop(0))
        rows += await reader.points(together, after=None, limit=room)
    return rows[: page.size], len(rows) > page.size


def _columns(rows: Sequence[Record], keys: Mapping[int, Record], token: str | None) -> bytes:
    runs: dict[str, int] = {}
    numbers = {key_id: number for number, key_id in enumerate(keys)}
    return msgspec.json.encode(
        {
            "run": [runs.setdefault(row.run_id, len(runs)) for row in rows],
            "key": [numbers[row.key_id] for row in rows],
            "step": [row.step for row in rows],
            "time_us": [archives.microseconds(row.timestamp) for row in rows],
            "value": [row.value if math.isfinite(row.value) else _spelled(row.value) for row in rows],
            "arrived": [row.arrived for row in rows],
            "run_ids": list(runs),
            "keys": [{"name": key.name, "context": context_of(key.context)} for key in keys.values()],
            "next_page_token": token,
        }
    )


def _spelled(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _artifact(row: Record) -> ArchivedArtifact:
    return ArchivedArtifact(
        owner_id=row.owner_id,
        path=row.path,
        size=row.size,
        sha256=row.sha256,
        content_type=row.content_type,
        created_at=row.created_at,
    )


async def _check(experiment_id: str, caller: Principal, session: ReadSession) -> None:
    if await ExperimentReader(session, caller).experiment(experiment_id) is None:
        raise ExperimentNotFound.of(experiment_id)

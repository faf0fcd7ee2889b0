"""Histories of metrics on MLflow's wire."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf
from mlops_platform.core.http.routing import platform_router
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.domain.keys import read_key
from mlops_platform.tracking.domain.mlflow_rules import checked_run_id, mistyped, required
from mlops_platform.tracking.endpoints.mlflow.answers import to_metric
from mlops_platform.tracking.endpoints.mlflow.experiments import digest_of
from mlops_platform.tracking.endpoints.mlflow.runs import found_run
from mlops_platform.tracking.endpoints.mlflow.wire import API, FieldsOf, answer, on_wire, place_of_token, token_of
from mlops_platform.tracking.errors import MlflowInvalid, MlflowMissing
from mlops_platform.tracking.repository import metrics
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ

router = platform_router(tags=["mlflow"])

MOST_AT_ONCE = 1_000_000
MAX_BULK = 25_000
_LONG = 5000
MAX_RUNS = 100
MAX_SAMPLES = 2500


@on_wire(router, "GET", "/metrics/get-history", permission=EXPERIMENTS_READ)
async def get_history(fields: FieldsOf, caller: Caller, session: Reading, runtime: RuntimeOf) -> Response:
    """All points of a metric by step, time and value; without a page size in one answer."""
    run_id, key = fields.run_id(), fields.needed("metric_key")
    size = fields.integer("max_results")
    if size is not None and size <= 0:
        raise MlflowInvalid(f"Invalid value {size} for parameter 'max_results' supplied. It must be a positive integer.")
    size = min(size or MOST_AT_ONCE, MOST_AT_ONCE)
    pepper, digest = runtime.auth_keys.pepper, digest_of("history", run_id, key)
    after = place_of_token(pepper, digest, fields.optional("page_token"))
    await found_run(session, caller, run_id)
    ids = await metrics.key_ids(session, caller, {read_key(key)})
    rows = await metrics.history(session, caller, run_id, list(ids.values()), limit=size + 1, after=after) if ids else ()
    shown = rows[:size]
    rest: dict[str, Any] = {}
    if len(rows) > len(shown):
        last = shown[-1]
        rest["next_page_token"] = token_of(pepper, digest, (last.key_id, last.step, last.timestamp, last.value))
    if len(shown) < _LONG:
        return answer(_history(shown, key) | rest)
    # Others must not wait while a hundred thousand points are written out.
    return await asyncio.to_thread(lambda: answer(_history(shown, key) | rest))


def _history(rows: Sequence[Record], key: str) -> dict[str, Any]:
    return {"metrics": [to_metric(row, key) for row in rows]} if rows else {}


@on_wire(router, "GET", "/metrics/get-history-bulk", permission=EXPERIMENTS_READ, prefixes=API[1:])
async def get_history_bulk(fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    """The points of one metric in several runs, run after run."""
    run_ids = fields.texts("run_id")
    if not run_ids:
        raise MlflowInvalid("GetMetricHistoryBulk request must specify at least one run_id.")
    _check_number("GetMetricHistoryBulk request cannot specify", run_ids)
    if "metric_key" not in fields:
        raise MlflowInvalid("GetMetricHistoryBulk request must specify a metric_key.")
    key = fields.text("metric_key")
    left = min(max(fields.integer("max_results") or MAX_BULK, 1), MAX_BULK)
    ids = list((await metrics.key_ids(session, caller, {read_key(key)})).values())
    points: list[dict[str, Any]] = []
    for run_id in sorted(await _all_found(session, caller, run_ids)):
        if ids and left:
            rows = await metrics.history(session, caller, run_id, ids, limit=left)
            points += [to_metric(row, key, run_id=run_id) for row in rows]
            left -= len(rows)
    return answer({"metrics": points})


@on_wire(router, "GET", "/metrics/get-history-bulk-interval", permission=EXPERIMENTS_READ)
async def get_history_bulk_interval(fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    """Points for a chart: for each run so many, evenly chosen by the database, the first and the last among them."""
    run_ids = fields.texts("run_ids")
    if not run_ids:
        raise required("run_ids")
    _check_number("GetMetricHistoryBulkInterval request must specify at most", run_ids)
    key = fields.needed("metric_key")
    most = fields.integer("max_results") if "max_results" in fields else MAX_SAMPLES
    if most is None or not 1 <= most <= MAX_SAMPLES:
        raise MlflowInvalid(f"max_results must be between 1 and {MAX_SAMPLES}.")
    start, end = fields.integer("start_step"), fields.integer("end_step")
    if (start is None) is not (end is None):
        raise MlflowInvalid("If either start step or end step are specified, both must be specified.")
    if start is not None and end is not None and start > end:
        raise MlflowInvalid(f"end_step must be greater than start_step. Found start_step={start} and end_step={end}.")
    found = await _all_found(session, caller, run_ids)
    ids = await metrics.key_ids(session, caller, {read_key(key)})
    steps = None if start is None or end is None else (start, end)
    rows = await metrics.sampled(session, caller, found, list(ids.values()), most=most, steps=steps) if ids else ()
    points = [to_metric(row, key, run_id=row.run_id) for row in rows]
    return answer({"metrics": points} if points else {})


def _check_number(sentence: str, run_ids: Sequence[str]) -> None:
    if len(run_ids) > MAX_RUNS:
        more = "more than " if sentence.endswith("specify") else ""
        raise MlflowInvalid(f"{sentence} {more}{MAX_RUNS} run_ids. Received {len(run_ids)} run_ids.")


async def _all_found(session: ReadSession, caller: Principal, given: Sequence[str]) -> list[str]:
    run_ids = list(dict.fromkeys(given))
    for run_id in run_ids:
        if not isinstance(run_id, str):
            raise mistyped("run_ids", run_id)
        if not is_id(checked_run_id(run_id)):
            raise MlflowMissing(f"Run with id={run_id} not found")
        await found_run(session, caller, run_id)
    return run_ids

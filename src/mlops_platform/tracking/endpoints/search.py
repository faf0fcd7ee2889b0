"""HTTP of run search: one search behind the list of an experiment's runs, the list of all, and the posted search."""

import hashlib
from typing import Annotated, Any

from fastapi import Query

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.tracking import Run, RunFilter, RunSearch
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf
from mlops_platform.core.http.pages import decode_token, encode_token
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Principal
from mlops_platform.core.query.errors import QueryError
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.tracking.domain.search import read_question, read_selection
from mlops_platform.tracking.endpoints.answers import to_run
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.errors import ExperimentNotFound
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.repository.search import Place, Search, find

router = platform_router(tags=["runs"])

_read = requires(EXPERIMENTS_READ)


@router.post("/api/runs/search", dependencies=[_read], responses=problems(QueryError))
async def search_runs(body: RunSearch, caller: Caller, session: Reading, runtime: RuntimeOf) -> Page[Run]:
    """Find runs across experiments. Without an order the newest come first."""
    return await _search(body, caller, session, runtime)


@router.get("/api/runs", dependencies=[_read], responses=problems(QueryError))
async def list_runs(
    query: Annotated[RunSearch, Query()], caller: Caller, session: Reading, runtime: RuntimeOf
) -> Page[Run]:
    """The same search as a query string."""
    return await _search(query, caller, session, runtime)


@router.get(
    "/api/experiments/{experiment_id}/runs", dependencies=[_read], responses=problems(ExperimentNotFound, QueryError)
)
async def list_runs_of_experiment(
    experiment_id: ExperimentId,
    query: Annotated[RunFilter, Query()],
    caller: Caller,
    session: Reading,
    runtime: RuntimeOf,
) -> Page[Run]:
    """The runs of one experiment, the newest first unless an order is given."""
    if await ExperimentReader(session, caller).experiment(experiment_id) is None:
        raise ExperimentNotFound.of(experiment_id)
    search = RunSearch(experiment_ids=[experiment_id], **query.model_dump())
    return await _search(search, caller, session, runtime)


async def _search(asked: RunSearch, caller: Principal, session: ReadSession, runtime: Runtime) -> Page[Run]:
    limit = runtime.settings.max_page_size
    if asked.page_size > limit:
        raise InvalidInput.of("page_size", f"must be at most {limit}", asked.page_size)
    selection = read_selection(asked.fields)
    question = read_question(asked.filter, asked.order_by)
    search = Search(question, tuple(dict.fromkeys(asked.experiment_ids)), asked.deleted)
    key = runtime.auth_keys.pepper
    after = _place(asked, decode_token(key, asked.page_token)) if asked.page_token else None
    found = await find(session, caller, search, limit=asked.page_size + 1, after=after)
    shown = [place.run_id for place in found[: asked.page_size]]
    reader = RunReader(session, caller)
    rows, data = await reader.runs(shown), await reader.data(shown, selection)
    token = None
    if len(found) > asked.page_size:
        token = encode_token(key, (_digest(asked), *found[asked.page_size - 1].wire()))
    return Page(items=[to_run(row, data[row.id]) for row in rows], next_page_token=token)


def _place(asked: RunSearch, values: tuple[Any, ...]) -> Place:
    """Where to go on. A token belongs to its search: in another one it would point at a place that is not there."""
    if not values or values[0] != _digest(asked):
        raise InvalidInput.of(
            "page_token", "belongs to another search", hint="Keep filter, order_by, deleted and experiments while paging."
        )
    return Place.read(values[1:])


def _digest(asked: RunSearch) -> bytes:
    decisive = repr((asked.filter, asked.order_by, asked.deleted.value, asked.experiment_ids))
    return hashlib.sha256(decisive.encode()).digest()[:12]

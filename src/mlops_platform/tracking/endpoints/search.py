"""HTTP of run search: one search behind the list of an experiment's runs, the list of all, and the posted search."""

import hashlib
from typing import Annotated, Any

from fastapi import Query

from mlops_platform.contracts.common import ID_PATTERN, Page
from mlops_platform.contracts.tracking import MAX_EXPERIMENTS, MAX_ORDER_KEYS, DeletedFilter, Run, RunSearch
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
Filter = Annotated[str, Query(max_length=10_000, description="The search language, as in `metrics.accuracy > 0.9`.")]
OrderBy = Annotated[
    list[str], Query(max_length=MAX_ORDER_KEYS, description="`metrics.accuracy DESC`, most important first.")
]
Fields = Annotated[list[str] | None, Query(max_length=1000, description="Keep only these, as in `metrics.accuracy`.")]
Size = Annotated[int, Query(ge=1, le=1000, description="Runs per page.")]
Token = Annotated[str | None, Query(max_length=20_000, description="`next_page_token` of the page before.")]
Deleted = Annotated[DeletedFilter, Query(description="Whether deleted runs are found.")]
Experiments = Annotated[
    list[Annotated[str, Query(pattern=ID_PATTERN)]], Query(max_length=MAX_EXPERIMENTS, description="Within these.")
]


@router.post("/api/runs/search", dependencies=[_read], responses=problems(QueryError))
async def search_runs(body: RunSearch, caller: Caller, session: Reading, runtime: RuntimeOf) -> Page[Run]:
    """Find runs across experiments. Without an order the newest come first."""
    return await _search(body, caller, session, runtime)


@router.get("/api/runs", dependencies=[_read], responses=problems(QueryError))
async def list_runs(
    caller: Caller,
    session: Reading,
    runtime: RuntimeOf,
    experiment_id: Experiments = [],  # noqa: B006  # FastAPI copies it
    filter: Filter = "",  # noqa: A002  # the wire name
    order_by: OrderBy = [],  # noqa: B006  # FastAPI copies it
    deleted: Deleted = DeletedFilter.EXCLUDE,
    fields: Fields = None,
    page_size: Size = 100,
    page_token: Token = None,
) -> Page[Run]:
    """The same search as a query string."""
    search = RunSearch(
        experiment_ids=experiment_id,
        filter=filter,
        order_by=order_by,
        deleted=deleted,
        fields=fields,
        page_size=page_size,
        page_token=page_token,
    )
    return await _search(search, caller, session, runtime)


@router.get(
    "/api/experiments/{experiment_id}/runs", dependencies=[_read], responses=problems(ExperimentNotFound, QueryError)
)
async def list_runs_of_experiment(
    experiment_id: ExperimentId,
    caller: Caller,
    session: Reading,
    runtime: RuntimeOf,
    filter: Filter = "",  # noqa: A002  # the wire name
    order_by: OrderBy = [],  # noqa: B006  # FastAPI copies it
    deleted: Deleted = DeletedFilter.EXCLUDE,
    fields: Fields = None,
    page_size: Size = 100,
    page_token: Token = None,
) -> Page[Run]:
    """The runs of one experiment, the newest first unless an order is given."""
    if await ExperimentReader(session, caller).experiment(experiment_id) is None:
        raise ExperimentNotFound.of(experiment_id)
    search = RunSearch(
        experiment_ids=[experiment_id],
        filter=filter,
        order_by=order_by,
        deleted=deleted,
        fields=fields,
        page_size=page_size,
        page_token=page_token,
    )
    return await _search(search, caller, session, runtime)


async def _search(asked: RunSearch, caller: Principal, session: ReadSession, runtime: Runtime) -> Page[Run]:
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

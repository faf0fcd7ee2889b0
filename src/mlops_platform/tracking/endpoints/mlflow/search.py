"""Search of runs and datasets on MLflow's wire."""

from typing import Any

from starlette.responses import Response

from mlops_platform.contracts.tracking import DeletedFilter
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf
from mlops_platform.core.http.routing import platform_router
from mlops_platform.tracking.domain import mlflow_rules as rules
from mlops_platform.tracking.domain.mlflow_search import read_runs
from mlops_platform.tracking.endpoints.mlflow.answers import runs_of
from mlops_platform.tracking.endpoints.mlflow.experiments import digest_of, view_of
from mlops_platform.tracking.endpoints.mlflow.wire import FieldsOf, answer, on_wire, place_of_token, present, token_of
from mlops_platform.tracking.errors import MlflowInvalid
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, ExperimentReader
from mlops_platform.tracking.repository.inputs import InputReader
from mlops_platform.tracking.repository.runs import RunReader
from mlops_platform.tracking.repository.search import Place, Search, find

router = platform_router(tags=["mlflow"])

MAX_EXPERIMENTS = 1000
MAX_OF_DATASETS = 20
MAX_SUMMARIES = 1000
DEFAULT_RESULTS = 1000


@on_wire(router, "POST", "/runs/search", permission=EXPERIMENTS_READ)
async def search_runs(fields: FieldsOf, caller: Caller, session: Reading, runtime: RuntimeOf) -> Response:
    """In no experiment there is nothing to find; elsewhere what is asked is found as MLflow would find it."""
    size = fields.integer("max_results") if "max_results" in fields else DEFAULT_RESULTS
    rules.check_results(size)
    asked = (fields.text("filter"), tuple(fields.texts("order_by")), view_of(fields, "run_view_type"))
    numbers = _numbers(fields.texts("experiment_ids"), MAX_EXPERIMENTS)
    question = read_runs(asked[0], asked[1])
    key, digest = runtime.auth_keys.pepper, digest_of("runs", *asked, numbers)
    place = place_of_token(key, digest, fields.optional("page_token"))
    experiments = {row.id: row for row in await ExperimentReader(session, caller).of_numbers(numbers)}
    search = _search(question, list(experiments.values()), asked[2])
    if not search.experiment_ids:
        return answer({})
    found = await find(session, caller, search, limit=(size or 0) + 1, after=Place.read(place) if place else None)
    shown = found[:size]
    rows = await RunReader(session, caller).runs([each.run_id for each in shown])
    body: dict[str, Any] = {"runs": await runs_of(session, caller, rows, experiments)}
    if len(found) > len(shown):
        body["next_page_token"] = token_of(key, digest, shown[-1].wire())
    return answer(body)


@on_wire(router, "POST", "/experiments/search-datasets", permission=EXPERIMENTS_READ)
async def search_datasets(fields: FieldsOf, caller: Caller, session: Reading) -> Response:
    given = fields.texts("experiment_ids")
    if not given:
        raise MlflowInvalid("SearchDatasets request must specify at least one experiment_id.")
    if len(given) > MAX_OF_DATASETS:
        raise MlflowInvalid(
            f"SearchDatasets request cannot specify more than {MAX_OF_DATASETS} experiment_ids. Received {len(given)} "
            "experiment_ids."
        )
    numbers = _numbers(given, MAX_OF_DATASETS)
    experiments = {row.id: row.number for row in await ExperimentReader(session, caller).of_numbers(numbers)}
    rows = await InputReader(session, caller).summaries(list(experiments), limit=MAX_SUMMARIES)
    summaries = [
        present(experiment_id=str(experiments[row.experiment_id]), name=row.name, digest=row.digest, context=row.context)
        for row in rows
    ]
    return answer({"dataset_summaries": summaries} if summaries else {})


def _numbers(given: list[str], most: int) -> tuple[int, ...]:
    if len(given) > most:
        raise MlflowInvalid(f"A request names at most {most} experiments. Received {len(given)} experiment_ids.")
    return tuple(dict.fromkeys(rules.experiment_number(each) for each in given))


def _search(question: Any, experiments: list[Record], deleted: DeletedFilter) -> Search:
    """The runs of a deleted experiment count as deleted, each of them."""
    gone = tuple(row.id for row in experiments if row.deleted_at is not None)
    ids = tuple(row.id for row in experiments if row.deleted_at is None or deleted is not DeletedFilter.EXCLUDE)
    return Search(question, ids, deleted=deleted, deleted_experiments=gone)

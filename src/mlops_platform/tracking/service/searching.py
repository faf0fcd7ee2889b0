"""What a request asks to be found, read once for all who search."""

from collections.abc import Sequence

from mlops_platform.contracts.tracking import DeletedFilter
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.search import check_goals, read_question
from mlops_platform.tracking.repository import goals
from mlops_platform.tracking.repository.search import Search


async def read_search(
    session: ReadSession,
    principal: Principal,
    filter_text: str,
    *,
    order_by: Sequence[str] = (),
    experiment_ids: Sequence[str] = (),
    deleted: DeletedFilter = DeletedFilter.EXCLUDE,
) -> Search:
    """A search that can be run. Raises `QueryError` with the column, also for `best` of a metric without a goal."""
    question = read_question(filter_text, order_by)
    experiments = tuple(dict.fromkeys(experiment_ids))
    declared = await goals.declared(session, principal, question.names_with_goal, experiments)
    check_goals(question, declared)
    return Search(question, experiments, declared, deleted)

"""Emptying a project."""

from sqlalchemy import delete

from mlops_platform.core.auth.visibility import in_project
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.tables import METADATA, metric_keys

# Processes remember the numbers of keys, which therefore never go.
_KEPT = frozenset({metric_keys.name})


async def remove_everything(session: WriteSession, principal: Principal) -> dict[str, int]:
    """Delete the rows of the project from every table, those that others refer to last; how many by table."""
    removed: dict[str, int] = {}
    for table in reversed(METADATA.sorted_tables):
        if table.name not in _KEPT:
            gone = await session.execute(delete(table).where(in_project(principal, table)))
            removed[table.name] = gone.rowcount
    return {name: count for name, count in sorted(removed.items()) if count}

"""What a project has written, so that a refusal can be shown to have written nothing."""

from typing import Any

from sqlalchemy import BigInteger, Table, Text, cast, func, literal, literal_column, select, union_all

from mlops_platform.core.work.runtime import Runtime
from mlops_platform.migrations.metadata import ALL
from tests.conftest import Caller

# A key's last use is noted also when it was used in vain; exposures of routed units are written a little later.
_LIVELY = {"credentials", "exposures"}
_TABLES: list[Table] = [
    table for metadata in ALL for table in metadata.tables.values() if "project_id" in table.c and table.name not in _LIVELY
]

Footprint = dict[str, tuple[int, int]]


async def footprint(runtime: Runtime, caller: Caller) -> Footprint:
    """For each table the number of the project's rows, and the last transaction that touched one."""
    rows: Any
    async with runtime.database.read() as session:
        rows = await session.all(union_all(*(_touches(table, caller.project) for table in _TABLES)))
    return {name: (count, last) for name, count, last in rows}


def _touches(table: Table, project: str) -> Any:
    writer = cast(cast(literal_column(f"{table.fullname}.xmin"), Text), BigInteger)
    columns = literal(table.fullname), func.count(), func.coalesce(func.max(writer), 0)
    return select(*columns).select_from(table).where(table.c.project_id == project)

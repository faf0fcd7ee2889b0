"""Log lines in chunks."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.pipelines.tables import task_logs


async def insert_chunks(session: WriteSession, chunks: Sequence[Mapping[str, Any]]) -> None:
    """Store chunks. One that is stored already (the answer to its commit was lost) may have grown since."""
    if chunks:
        statement = upsert(task_logs)
        grown = statement.on_conflict_do_update(
            constraint="task_logs_pkey",
            set_={name: statement.excluded[name] for name in ("line_count", "lines")},
            where=task_logs.c.line_count < statement.excluded.line_count,
        )
        await session.execute(grown, chunks)


async def list_chunks(
    session: ReadSession, principal: Principal, task_run_id: str, *, attempt: int, offset: int, limit: int
) -> Sequence[Row[Any]]:
    """The chunks that hold lines from `offset` on, at most `limit` lines' worth of them."""
    end = task_logs.c.first_line + task_logs.c.line_count
    return await session.all(
        visible_to(principal, task_logs)
        .where(
            task_logs.c.task_run_id == task_run_id,
            task_logs.c.attempt == attempt,
            end > offset,
            task_logs.c.first_line < offset + limit,
        )
        .order_by(task_logs.c.first_line)
    )


async def count_lines(session: ReadSession, principal: Principal, task_run_id: str, attempt: int) -> int:
    """How many lines an attempt has written."""
    visible = (
        visible_to(principal, task_logs)
        .where(task_logs.c.task_run_id == task_run_id, task_logs.c.attempt == attempt)
        .subquery()
    )
    return int(await session.scalar(select(func.coalesce(func.max(visible.c.first_line + visible.c.line_count), 0))))

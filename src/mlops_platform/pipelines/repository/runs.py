"""Runs and their tasks: made, listed, cancelled, taken up again."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Integer, Row, Select, and_, bindparam, case, func, literal, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.contracts.pipelines import PipelineRunState, TaskRunState
from mlops_platform.core.auth.visibility import names_allowed, visible_to
from mlops_platform.core.db.schema import HexId
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Permission, Principal, new_id
from mlops_platform.pipelines.domain.states import OPEN_TASKS, task_sources
from mlops_platform.pipelines.tables import (
    NO_ITEM,
    attempts,
    in_states,
    pipeline_edges,
    pipeline_runs,
    pipeline_tasks,
    pipeline_versions,
    pipelines,
    task_runs,
)

_NOW = func.statement_timestamp()


def _with_names(statement: Select[Any]) -> Select[Any]:
    return (
        statement.add_columns(pipelines.c.name.label("pipeline"), pipeline_versions.c.version)
        .join(pipelines, pipelines.c.id == pipeline_runs.c.pipeline_id)
        .join(pipeline_versions, pipeline_versions.c.id == pipeline_runs.c.version_id)
    )


async def find_run(session: ReadSession, principal: Principal, run_id: str) -> Row[Any] | None:
    """A run with the names of what it runs."""
    return await session.first(_with_names(visible_to(principal, pipeline_runs)).where(pipeline_runs.c.id == run_id))


async def lock_run(session: WriteSession, principal: Principal, run_id: str) -> Row[Any] | None:
    """The same, held: whoever changes the tasks of a run holds its row."""
    statement = _with_names(visible_to(principal, pipeline_runs)).where(pipeline_runs.c.id == run_id)
    return await session.first(statement.with_for_update(of=pipeline_runs, key_share=True))


async def list_runs(
    session: ReadSession,
    principal: Principal,
    permission: Permission,
    *,
    pipeline: str | None,
    state: PipelineRunState | None,
    before: str | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Runs, newest first."""
    statement = _with_names(visible_to(principal, pipeline_runs)).order_by(pipeline_runs.c.id.desc()).limit(limit)
    if pipeline is not None:
        statement = statement.where(pipelines.c.name == pipeline)
    if state is not None:
        statement = statement.where(pipeline_runs.c.state == state.value)
    if before is not None:
        statement = statement.where(pipeline_runs.c.id < before)
    if (allowed := names_allowed(principal, permission, pipelines.c.name)) is not None:
        statement = statement.where(allowed)
    return await session.all(statement)


async def insert_run(session: WriteSession, values: Mapping[str, Any], task_count: int) -> bool:
    """Add a run and its tasks in one statement each. False when this instant of the schedule has its run already."""
    statement = upsert(pipeline_runs).values(**values, created_at=_NOW)
    made = await session.scalar(statement.on_conflict_do_nothing().returning(pipeline_runs.c.id))
    if made is None:
        return False
    ids = (
        func.unnest(bindparam("ids", type_=ARRAY(HexId)))
        .table_valued("id", with_ordinality="place", name="fresh")
        .render_derived()
    )
    tasks = (
        select(
            sql_cast(ids.c.id, HexId),
            pipeline_tasks.c.project_id,
            literal(values["id"], HexId),
            pipeline_tasks.c.version_id,
            pipeline_tasks.c.position,
            literal(NO_ITEM),
            pipeline_tasks.c.name,
            literal(TaskRunState.WAITING.value),
            pipeline_tasks.c.upstream_count,
            pipeline_tasks.c.module,
            pipeline_tasks.c.cpus,
            pipeline_tasks.c.memory_mb,
            pipeline_tasks.c.gpus,
        )
        .join(ids, sql_cast(ids.c.place, Integer) == pipeline_tasks.c.position + 1)
        .where(pipeline_tasks.c.version_id == values["version_id"])
    )
    columns = ("id", "project_id", "run_id", "version_id", "position", "item", "task", "state", "pending")
    needs = ("module", "cpus", "memory_mb", "gpus")
    await session.execute(
        task_runs.insert().from_select([*columns, *needs], tasks), {"ids": [new_id() for _ in range(task_count)]}
    )
    return True


async def start_run(session: WriteSession, run_id: str) -> None:
    """Open a run: what waits for nothing is ready."""
    await session.execute(
        update(pipeline_runs)
        .where(pipeline_runs.c.id == run_id)
        .values(
            state=PipelineRunState.RUNNING.value,
            started_at=func.coalesce(pipeline_runs.c.started_at, _NOW),
            finished_at=None,
        )
    )
    await session.execute(
        update(task_runs)
        .where(task_runs.c.run_id == run_id, task_runs.c.pending == 0, task_runs.c.state == TaskRunState.WAITING.value)
        .values(state=TaskRunState.READY.value, not_before=_NOW)
    )


async def set_run_state(session: WriteSession, run_id: str, state: PipelineRunState, *, is_final: bool) -> None:
    """Move the run that is held."""
    values: dict[str, Any] = {"state": state.value} | ({"finished_at": _NOW} if is_final else {})
    await session.execute(update(pipeline_runs).where(pipeline_runs.c.id == run_id).values(values))


async def cancel_tasks(session: WriteSession, run_id: str) -> None:
    """End at once what no process works on. What runs is ended by its worker, which sees the state of the run."""
    is_idle = and_(
        task_runs.c.run_id == run_id,
        task_runs.c.state.in_([s.value for s in task_sources(TaskRunState.CANCELLED)]),
        task_runs.c.state.not_in([TaskRunState.RUNNING.value, TaskRunState.EXPANDED.value]),
    )
    values = {"state": TaskRunState.CANCELLED.value, "finished_at": _NOW, "not_before": None}
    cancelled = await session.execute(
        update(task_runs).where(is_idle).values(values).returning(task_runs.c.position, task_runs.c.item)
    )
    groups: dict[int, int] = {}
    for row in cancelled:
        if row.item != NO_ITEM:
            groups[row.position] = groups.get(row.position, 0) + 1
    for position, count in groups.items():
        await session.execute(
            update(task_runs)
            .where(task_runs.c.run_id == run_id, task_runs.c.position == position, task_runs.c.item == NO_ITEM)
            .values(pending=task_runs.c.pending - count)
        )
    done = update(task_runs).where(
        task_runs.c.run_id == run_id, task_runs.c.state == TaskRunState.EXPANDED.value, task_runs.c.pending == 0
    )
    await session.execute(done.values(values))


async def has_open_tasks(session: ReadSession, run_id: str) -> bool:
    """Whether anything of the run is still to end."""
    statement = (
        select(task_runs.c.id).where(task_runs.c.run_id == run_id, in_states(task_runs.c.state, OPEN_TASKS)).limit(1)
    )
    return await session.scalar(statement) is not None


async def reset_unsuccessful(session: WriteSession, run_id: str) -> int:
    """Make everything that did not succeed wait again, with its counter counted anew; how many tasks that were.

    The attempt numbers go on: a process of the time before is still too late.
    """
    succeeded = TaskRunState.SUCCEEDED.value
    again = and_(task_runs.c.run_id == run_id, task_runs.c.state != succeeded)
    items = task_runs.alias("items")
    up = task_runs.alias("up")
    open_items = (
        select(func.count())
        .where(
            items.c.run_id == run_id,
            items.c.position == task_runs.c.position,
            items.c.item != NO_ITEM,
            items.c.state != succeeded,
        )
        .scalar_subquery()
    )
    has_items = (
        select(items.c.id)
        .where(items.c.run_id == run_id, items.c.position == task_runs.c.position, items.c.item != NO_ITEM)
        .exists()
    )
    open_upstream = (
        select(func.count())
        .select_from(pipeline_edges)
        .join(
            up,
            and_(up.c.run_id == run_id, up.c.position == pipeline_edges.c.upstream, up.c.item == NO_ITEM),
        )
        .where(
            pipeline_edges.c.version_id == task_runs.c.version_id,
            pipeline_edges.c.downstream == task_runs.c.position,
            up.c.state != succeeded,
        )
        .scalar_subquery()
    )
    is_group = and_(task_runs.c.item == NO_ITEM, has_items)
    pending = case(
        (task_runs.c.item != NO_ITEM, 0),
        (is_group, open_items),
        else_=open_upstream,
    )
    state = case((is_group, TaskRunState.EXPANDED.value), else_=TaskRunState.WAITING.value)
    fresh: dict[str, Any] = {"failures": 0, "losses": 0, "error": None, "finished_at": None, "not_before": None}
    changed = await session.execute(update(task_runs).where(again).values(state=state, pending=pending, **fresh))
    return changed.rowcount


async def count_tasks(session: ReadSession, principal: Principal, run_id: str) -> dict[TaskRunState, int]:
    """How many tasks of a run are in each state."""
    visible = visible_to(principal, task_runs).where(task_runs.c.run_id == run_id).subquery()
    rows = await session.all(select(visible.c.state, func.count().label("tasks")).group_by(visible.c.state))
    return {TaskRunState(row.state): row.tasks for row in rows}


async def list_task_runs(
    session: ReadSession,
    principal: Principal,
    run_id: str,
    *,
    state: TaskRunState | None,
    after: tuple[int, int] | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """The tasks of a run in the order of the document, items after their fan-out."""
    statement = (
        visible_to(principal, task_runs)
        .where(task_runs.c.run_id == run_id)
        .order_by(task_runs.c.position, task_runs.c.item)
        .limit(limit)
    )
    if state is not None:
        statement = statement.where(task_runs.c.state == state.value)
    if after is not None:
        place = func.row(task_runs.c.position, task_runs.c.item)
        statement = statement.where(place > func.row(*after))
    return await session.all(statement)


async def find_task_run(
    session: ReadSession, principal: Principal, run_id: str, *, task: str, item: int | None
) -> Row[Any] | None:
    """One task of a run, or one item of a fan-out."""
    return await session.first(
        visible_to(principal, task_runs).where(
            task_runs.c.run_id == run_id,
            task_runs.c.task == task,
            task_runs.c.item == (NO_ITEM if item is None else item),
        )
    )


async def list_attempts(session: ReadSession, principal: Principal, task_run_id: str) -> Sequence[Row[Any]]:
    """The attempts of a task, first to last."""
    statement = visible_to(principal, attempts).where(attempts.c.task_run_id == task_run_id)
    return await session.all(statement.order_by(attempts.c.number))

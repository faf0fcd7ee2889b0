"""What follows from the end of attempts, in SQL. The caller holds the rows of the runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Float, Row, and_, bindparam, case, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import JSONB

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState, TaskRunState
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.identity import new_id
from mlops_platform.pipelines.domain.states import OPEN_TASKS, task_sources
from mlops_platform.pipelines.tables import (
    NO_ITEM,
    attempts,
    in_states,
    pipeline_edges,
    pipeline_runs,
    pipeline_tasks,
    pipelines,
    task_runs,
)

_NOW = func.statement_timestamp()
_WAITING = TaskRunState.WAITING.value
_READY = TaskRunState.READY.value
_RUNNING = TaskRunState.RUNNING.value


async def lock_runs_of(
    session: WriteSession, task_run_ids: Sequence[str], *, skip_locked: bool = False
) -> Mapping[str, Row[Any]]:
    """Hold the runs of these tasks, always in the same order, so that two settlements never wait for each other."""
    of_tasks = select(task_runs.c.run_id).where(task_runs.c.id.in_(task_run_ids))
    rows = await session.all(
        select(pipeline_runs, pipelines.c.name.label("pipeline"))
        .join(pipelines, pipelines.c.id == pipeline_runs.c.pipeline_id)
        .where(pipeline_runs.c.id.in_(of_tasks))
        .order_by(pipeline_runs.c.id)
        .with_for_update(of=pipeline_runs, key_share=True, skip_locked=skip_locked)
    )
    return {row.id: row for row in rows}


async def running_tasks(
    session: WriteSession, task_run_ids: Sequence[str], *, skip_locked: bool = False
) -> Sequence[Row[Any]]:
    """Those of the tasks that have an attempt under way, with what decides about the next."""
    return await session.all(
        select(task_runs, pipeline_tasks.c.spec)
        .join(
            pipeline_tasks,
            and_(
                pipeline_tasks.c.version_id == task_runs.c.version_id,
                pipeline_tasks.c.position == task_runs.c.position,
            ),
        )
        .where(task_runs.c.id.in_(task_run_ids), task_runs.c.state == _RUNNING)
        # The rows, too: a heartbeat must not extend a lease that ends here.
        .with_for_update(of=task_runs, skip_locked=skip_locked)
    )


async def end_attempts(session: WriteSession, ended: Sequence[Mapping[str, Any]]) -> None:
    """Close attempts. The keys are the bind parameters."""
    await session.execute(
        update(attempts)
        .where(
            attempts.c.task_run_id == bindparam("task_run"),
            attempts.c.number == bindparam("fence"),
            attempts.c.state == AttemptState.RUNNING.value,
        )
        .values(
            state=bindparam("ended"),
            exit_code=bindparam("code"),
            error=bindparam("why", type_=JSONB(none_as_null=True)),
            finished_at=_NOW,
        ),
        ended,
    )


async def move_tasks(session: WriteSession, moves: Sequence[Mapping[str, Any]]) -> None:
    """Move tasks on from `running`, each guarded by its fence. The keys are the bind parameters."""
    delay = bindparam("delay_seconds", type_=Float) * literal_column("interval '1 second'")
    # Written as literals: the values of an executemany are its rows' alone.
    is_over = in_states(bindparam("target"), frozenset(TaskRunState) - OPEN_TASKS)
    await session.execute(
        update(task_runs)
        .where(
            task_runs.c.id == bindparam("task_run"),
            task_runs.c.attempt == bindparam("fence"),
            task_runs.c.state == _RUNNING,
        )
        .values(
            state=bindparam("target"),
            failures=bindparam("failed"),
            losses=bindparam("lost"),
            pending=bindparam("open_items"),
            result=bindparam("value", type_=JSONB(none_as_null=True)),
            error=bindparam("why", type_=JSONB(none_as_null=True)),
            not_before=_NOW + delay,
            finished_at=case((is_over, _NOW), else_=None),
            lease_until=None,
            worker_id=None,
        ),
        moves,
    )


async def insert_items(session: WriteSession, group: Row[Any], items: Sequence[Any]) -> None:
    """The items of a fan-out, ready to run."""
    same = ("project_id", "run_id", "version_id", "position", "task", "module", "cpus", "memory_mb", "gpus")
    shared = {name: getattr(group, name) for name in same}
    await session.execute(
        task_runs.insert().values(not_before=_NOW),
        [
            {**shared, "id": new_id(), "item": index, "item_value": value, "state": _READY, "pending": 0}
            for index, value in enumerate(items)
        ],
    )


async def fold_items(session: WriteSession, ended: Mapping[tuple[str, int], int]) -> list[Row[Any]]:
    """Count ended items down on their fan-outs; those with none left end too, and are returned.

    `ended` counts by (run, position).
    """
    folded: list[Row[Any]] = []
    unsuccessful = task_runs.alias("unsuccessful")
    failed = (
        select(unsuccessful.c.id)
        .where(
            unsuccessful.c.run_id == task_runs.c.run_id,
            unsuccessful.c.position == task_runs.c.position,
            unsuccessful.c.item != NO_ITEM,
            unsuccessful.c.state != TaskRunState.SUCCEEDED.value,
        )
        .exists()
    )
    for (run_id, position), count in ended.items():
        left = task_runs.c.pending - count
        is_cancelling = pipeline_runs.c.state == PipelineRunState.CANCELLING.value
        done = case(
            (left > 0, TaskRunState.EXPANDED.value),
            (~failed, TaskRunState.SUCCEEDED.value),
            (is_cancelling, TaskRunState.CANCELLED.value),
            else_=TaskRunState.FAILED.value,
        )
        rows = await session.execute(
            update(task_runs)
            .where(
                task_runs.c.run_id == run_id,
                task_runs.c.position == position,
                task_runs.c.item == NO_ITEM,
                task_runs.c.state == TaskRunState.EXPANDED.value,
                pipeline_runs.c.id == task_runs.c.run_id,
            )
            .values(pending=left, state=done, finished_at=case((left > 0, None), else_=_NOW))
            .returning(task_runs.c.id, task_runs.c.run_id, task_runs.c.task, task_runs.c.state)
        )
        folded += [row for row in rows if row.state != TaskRunState.EXPANDED.value]
    return folded


async def release_downstream(session: WriteSession, task_run_ids: Sequence[str]) -> int:
    """Count down on everything that waited for these; what waits for nothing more is ready. How many that were."""
    up = task_runs.alias("up")
    freed = (
        select(up.c.run_id, pipeline_edges.c.downstream, func.count().label("count"))
        .join(
            pipeline_edges,
            and_(pipeline_edges.c.version_id == up.c.version_id, pipeline_edges.c.upstream == up.c.position),
        )
        .where(up.c.id.in_(task_run_ids))
        .group_by(up.c.run_id, pipeline_edges.c.downstream)
        .subquery("freed")
    )
    left = task_runs.c.pending - freed.c.count
    rows = await session.execute(
        update(task_runs)
        .where(
            task_runs.c.run_id == freed.c.run_id,
            task_runs.c.position == freed.c.downstream,
            task_runs.c.item == NO_ITEM,
            task_runs.c.state == _WAITING,
        )
        .values(
            pending=left,
            state=case((left == 0, _READY), else_=_WAITING),
            not_before=case((left == 0, _NOW), else_=None),
        )
        .returning(task_runs.c.state)
    )
    return sum(row.state == _READY for row in rows)


async def fail_downstream(session: WriteSession, task_run_ids: Sequence[str]) -> None:
    """Everything that can never run now, however far down, says so."""
    reached = (
        select(task_runs.c.run_id, task_runs.c.version_id, task_runs.c.position)
        .where(task_runs.c.id.in_(task_run_ids))
        .cte("reached", recursive=True)
    )
    reached = reached.union(
        select(reached.c.run_id, reached.c.version_id, pipeline_edges.c.downstream).join(
            pipeline_edges,
            and_(pipeline_edges.c.version_id == reached.c.version_id, pipeline_edges.c.upstream == reached.c.position),
        )
    )
    await session.execute(
        update(task_runs)
        .where(
            task_runs.c.run_id == reached.c.run_id,
            task_runs.c.position == reached.c.position,
            task_runs.c.state.in_([s.value for s in task_sources(TaskRunState.UPSTREAM_FAILED)]),
        )
        .values(state=TaskRunState.UPSTREAM_FAILED.value, finished_at=_NOW)
    )


async def ended_runs(session: WriteSession, run_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Those of the runs that have no open task, and whether every task succeeded."""
    is_open = (
        select(task_runs.c.id)
        .where(task_runs.c.run_id == pipeline_runs.c.id, in_states(task_runs.c.state, OPEN_TASKS))
        .exists()
    )
    is_marred = (
        select(task_runs.c.id)
        .where(task_runs.c.run_id == pipeline_runs.c.id, task_runs.c.state != TaskRunState.SUCCEEDED.value)
        .exists()
    )
    return await session.all(
        select(pipeline_runs.c.id, is_marred.label("is_marred")).where(pipeline_runs.c.id.in_(run_ids), ~is_open)
    )

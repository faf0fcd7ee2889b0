"""Pipelines, their versions and their schedules, as a caller sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, insert, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, names_allowed, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.pipelines.domain.graph import Graph
from mlops_platform.pipelines.tables import pipeline_edges, pipeline_tasks, pipeline_versions, pipelines, schedules


async def find_pipeline(
    session: ReadSession, principal: Principal, name: str, *, with_deleted: bool = False
) -> Row[Any] | None:
    """The pipeline of this name."""
    statement = visible_to(principal, pipelines).where(pipelines.c.name == name)
    return await session.first(statement if with_deleted else statement.where(pipelines.c.deleted_at.is_(None)))


async def lock_pipeline(session: WriteSession, principal: Principal, name: str) -> Row[Any] | None:
    """The pipeline of this name, deleted or not, held until the end of the transaction."""
    return await session.first(visible_to(principal, pipelines).where(pipelines.c.name == name).with_for_update())


async def list_pipelines(
    session: ReadSession,
    principal: Principal,
    permission: Permission,
    *,
    with_deleted: bool,
    after: str | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """Pipelines by name."""
    statement = visible_to(principal, pipelines).order_by(pipelines.c.name).limit(limit)
    if not with_deleted:
        statement = statement.where(pipelines.c.deleted_at.is_(None))
    if (allowed := names_allowed(principal, permission, pipelines.c.name)) is not None:
        statement = statement.where(allowed)
    return await session.all(statement.where(pipelines.c.name > after) if after else statement)


async def insert_pipeline(session: WriteSession, values: Mapping[str, Any]) -> bool:
    """Add a pipeline; False when its name was taken meanwhile."""
    made = await session.scalar(upsert(pipelines).values(values).on_conflict_do_nothing().returning(pipelines.c.id))
    return made is not None


async def update_pipeline(session: WriteSession, principal: Principal, pipeline_id: str, **values: Any) -> None:
    """Change the row that `lock_pipeline` holds."""
    await session.execute(
        update(pipelines).where(in_project(principal, pipelines), pipelines.c.id == pipeline_id).values(values)
    )


async def find_version(
    session: ReadSession, principal: Principal, pipeline_id: str, *, version: int | None = None, digest: str | None = None
) -> Row[Any] | None:
    """A version by number or by content."""
    statement = visible_to(principal, pipeline_versions).where(pipeline_versions.c.pipeline_id == pipeline_id)
    if version is not None:
        statement = statement.where(pipeline_versions.c.version == version)
    if digest is not None:
        statement = statement.where(pipeline_versions.c.digest == digest)
    return await session.first(statement)


async def list_versions(
    session: ReadSession, principal: Principal, pipeline_id: str, *, before: int | None, limit: int
) -> Sequence[Row[Any]]:
    """Versions, newest first."""
    statement = (
        visible_to(principal, pipeline_versions)
        .where(pipeline_versions.c.pipeline_id == pipeline_id)
        .order_by(pipeline_versions.c.version.desc())
        .limit(limit)
    )
    return await session.all(statement.where(pipeline_versions.c.version < before) if before else statement)


async def list_task_specs(session: ReadSession, principal: Principal, version_id: str) -> Sequence[Row[Any]]:
    """The tasks of a version in the order of its document."""
    return await session.all(
        visible_to(principal, pipeline_tasks)
        .where(pipeline_tasks.c.version_id == version_id)
        .order_by(pipeline_tasks.c.position)
    )


async def insert_version(session: WriteSession, values: Mapping[str, Any], graph: Graph) -> None:
    """Write a version with its tasks and edges."""
    await session.execute(insert(pipeline_versions).values(values))
    of_version = {"project_id": values["project_id"], "version_id": values["id"]}
    await session.execute(
        insert(pipeline_tasks),
        [
            {
                **of_version,
                "position": node.position,
                "name": node.spec.name,
                "module": node.spec.entry_point.partition(":")[0],
                "upstream_count": len(node.upstream),
                **node.spec.resources.model_dump(),
                "spec": node.spec.model_dump(mode="json"),
            }
            for node in graph.nodes
        ],
    )
    if edges := graph.edges:
        await session.execute(
            insert(pipeline_edges), [{**of_version, "upstream": up, "downstream": down} for up, down in edges]
        )


async def find_schedule(session: ReadSession, principal: Principal, pipeline_id: str) -> Row[Any] | None:
    """The schedule of a pipeline."""
    return await session.first(visible_to(principal, schedules).where(schedules.c.pipeline_id == pipeline_id))


async def list_schedules(session: ReadSession, principal: Principal, pipeline_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The schedules of several pipelines, by pipeline."""
    rows = await session.all(visible_to(principal, schedules).where(schedules.c.pipeline_id.in_(pipeline_ids)))
    return {row.pipeline_id: row for row in rows}


async def put_schedule(session: WriteSession, values: Mapping[str, Any]) -> None:
    """Set the schedule of a pipeline, in place of the one that it had."""
    kept = {"id", "created_at", "project_id", "pipeline_id"}
    statement = upsert(schedules).values(values)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["pipeline_id"], set_={key: statement.excluded[key] for key in values if key not in kept}
        )
    )


async def update_schedule(session: WriteSession, principal: Principal, pipeline_id: str, **values: Any) -> None:
    """Pause, resume, or move the next instant."""
    of_pipeline = and_(in_project(principal, schedules), schedules.c.pipeline_id == pipeline_id)
    await session.execute(update(schedules).where(of_pipeline).values(values))


async def delete_schedule(session: WriteSession, principal: Principal, pipeline_id: str) -> bool:
    """Remove the schedule; whether there was one."""
    of_pipeline = and_(in_project(principal, schedules), schedules.c.pipeline_id == pipeline_id)
    return (await session.execute(delete(schedules).where(of_pipeline))).rowcount == 1

"""Experiments that were there before they had numbers."""

from alembic import command
from sqlalchemy import pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from mlops_platform.core.db import migrate
from mlops_platform.core.db.database import sqlalchemy_url
from mlops_platform.core.identity import new_id

BEFORE = "0009_tracking_metrics"
INSERT = text(
    "INSERT INTO tracking.experiments (id, project_id, name, created_by, created_at, updated_at, deleted_at)"
    " VALUES (:id, :project, :name, 'x', now(), now(), CASE WHEN :deleted THEN now() END)"
)


async def test_they_are_numbered_in_the_order_of_their_making_and_default_is_0(fresh_database):
    first, second = new_id(), new_id()
    given = [
        (first, "a", False),
        (first, "Default", True),
        (first, "Default", False),
        (second, "z", False),
        (first, "b", True),
    ]
    ids = sorted(new_id() for _ in range(len(given) + 2))  # those of one millisecond are in no order of their own
    engine = create_async_engine(sqlalchemy_url(fresh_database.owner_dsn), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(lambda it: command.downgrade(migrate.config(it), BEFORE))
        for id_, (project, name, deleted) in zip(ids, given, strict=False):
            await connection.execute(INSERT, {"id": id_, "project": project, "name": name, "deleted": deleted})
        await connection.run_sync(lambda it: command.upgrade(migrate.config(it), "head"))
        await connection.execute(INSERT, {"id": ids[-2], "project": first, "name": "c", "deleted": False})
        await connection.execute(INSERT, {"id": ids[-1], "project": second, "name": "Default", "deleted": False})
        rows = await connection.execute(text("SELECT project_id, name, number FROM tracking.experiments ORDER BY id"))
        found = [(row.project_id.hex, row.name, row.number) for row in rows]
        await connection.commit()
    await engine.dispose()
    assert found == [
        (first, "a", 1),
        (first, "Default", 2),
        (first, "Default", 0),
        (second, "z", 1),
        (first, "b", 3),
        (first, "c", 4),
        (second, "Default", 0),
    ]

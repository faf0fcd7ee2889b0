"""Uploads that were under way when the platform was upgraded, while replicas of the version before still serve."""

from alembic import command
from sqlalchemy import pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from mlops_platform.core.db import migrate
from mlops_platform.core.db.database import sqlalchemy_url
from mlops_platform.core.identity import new_id

BEFORE = "0013_tracking_imports"
INSERT = text(
    "INSERT INTO tracking.uploads (id, project_id, target, parts, created_at) VALUES (:id, :project, 'x', 3, now())"
)


async def test_uploads_under_way_are_found_by_the_new_version_and_by_the_one_before(fresh_database):
    upload, project = new_id(), new_id()
    engine = create_async_engine(sqlalchemy_url(fresh_database.owner_dsn), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(lambda it: command.downgrade(migrate.config(it), BEFORE))
        await connection.execute(INSERT, {"id": upload, "project": project})
        await connection.run_sync(lambda it: command.upgrade(migrate.config(it), "head"))
        found = [
            [(row.id.hex, row.target, row.parts) for row in await connection.execute(text(statement))]
            for statement in ("SELECT * FROM core.uploads", "SELECT * FROM tracking.uploads")
        ]
        await connection.commit()
    await engine.dispose()
    assert found == [[(upload, "x", 3)]] * 2

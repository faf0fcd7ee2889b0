"""Write a migration from the difference between the tables and the history.

python scripts/new_migration.py 0009 "what changes" [schema ...]
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

from mlops_platform.core.db import migrate
from mlops_platform.core.db.database import sqlalchemy_url
from mlops_platform.core.db.embedded.server import EmbeddedPostgres


async def write(dsn: str, revision: str, message: str, schemas: set[str]) -> None:
    """Migrate an empty database as far as the history goes, then write what is missing."""

    def revise(connection: Connection) -> None:
        config = migrate.config(connection)
        config.attributes["schemas"] = schemas
        for schema in schemas:
            connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        if migrate.head_revision() != "None":
            command.upgrade(config, "head")
        slug = message.replace(" ", "_").lower()
        config.set_main_option("file_template", f"{revision}_{slug}")
        command.revision(config, message=message, autogenerate=True, rev_id=f"{revision}_{slug}")
        print(
            f"Written to {migrate.SCRIPTS / 'versions'}: read it, and call schemas.create_service_schema for a new schema."
        )

    engine = create_async_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(revise)
        await connection.commit()
    await engine.dispose()


def main() -> None:
    """Start a database of its own and stop it."""
    revision, message, *schemas = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        server = EmbeddedPostgres(Path(home) / "home", fsync=False)
        try:
            asyncio.run(write(server.start().owner_dsn(), revision, message, set(schemas)))
        finally:
            server.stop()


if __name__ == "__main__":
    main()

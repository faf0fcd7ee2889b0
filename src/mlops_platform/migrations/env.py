"""Alembic's entry: compares and migrates over the connection that `core.db.migrate` gives."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import text

from mlops_platform.core.db.migrate import VERSION_SCHEMA
from mlops_platform.core.db.schema import HexId, UtcTime
from mlops_platform.migrations.metadata import ALL

connection = context.config.attributes["connection"]
schemas = context.config.attributes.get("schemas") or {metadata.schema for metadata in ALL}


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Look at our schemas alone, and not at Alembic's own table."""
    if kind == "schema":
        return name in schemas
    return kind != "table" or name != "alembic_version"


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write our column types as what they are in the database: a migration never depends on today's code."""
    if kind == "type" and isinstance(item, HexId):
        return "postgresql.UUID(as_uuid=True)"
    if kind == "type" and isinstance(item, UtcTime):
        return "sa.DateTime(timezone=True)"
    return False


connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {VERSION_SCHEMA}"))
connection.commit()
context.configure(
    connection=connection,
    target_metadata=[metadata for metadata in ALL if metadata.schema in schemas],
    version_table_schema=VERSION_SCHEMA,
    include_schemas=True,
    include_name=include_name,
    render_item=render_item,
    compare_type=True,
    compare_server_default=False,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()

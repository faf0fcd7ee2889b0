"""Tables of the Model Registry, in the PostgreSQL schema `registry`."""

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from mlops_platform.core.db.schema import (
    HexId,
    UtcTime,
    created_column,
    id_column,
    json_column,
    project_column,
    service_metadata,
    sorted_text,
)

METADATA = service_metadata("registry")

registered_models = Table(
    "registered_models",
    METADATA,
    id_column(),
    project_column(),
    Column("name", sorted_text(), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Index("registered_models_name_idx", "project_id", "name", unique=True),
)

model_versions = Table(
    "model_versions",
    METADATA,
    id_column(),
    project_column(),
    Column("model_id", HexId, nullable=False),
    Column("version", sorted_text(), nullable=False),
    Column("status", Text, nullable=False),
    Column("framework", Text),
    json_column("metrics"),
    Column("tags", ARRAY(Text), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    json_column("params"),
    Column("run_id", HexId),
    Column("training_set_id", HexId),
    Column("pipeline_run_id", HexId),
    Column("manifest_digest", Text),
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Index("model_versions_version_idx", "project_id", "model_id", "version", unique=True),
    Index("model_versions_recent_idx", "model_id", "id"),
    Index("model_versions_tags_idx", "tags", postgresql_using="gin"),
    Index("model_versions_run_idx", "project_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
)

aliases = Table(
    "aliases",
    METADATA,
    Column("model_id", HexId, primary_key=True),
    Column("alias", sorted_text(), primary_key=True),
    project_column(),
    Column("version_id", HexId, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index(None, "version_id"),
)

lineage_edges = Table(
    "lineage_edges",
    METADATA,
    project_column(),
    Column("subject", sorted_text(), nullable=False),
    Column("relation", sorted_text(), nullable=False),
    Column("object", sorted_text(), nullable=False),
    Column("stated_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("project_id", "subject", "relation", "object"),
    Index("lineage_edges_object_idx", "project_id", "object"),
)

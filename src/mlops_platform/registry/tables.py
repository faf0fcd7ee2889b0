"""Tables of the Model Registry, in the PostgreSQL schema `registry`."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, PrimaryKeyConstraint, Table, Text, text
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
    # While pending these two are kept by each upload, under the lock of the row.
    Column("size", BigInteger, nullable=False, server_default="0"),
    Column("file_count", Integer, nullable=False, server_default="0"),
    Column("formats", ARRAY(Text), nullable=False, server_default="{}"),
    Column("finalized_at", UtcTime),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Index("model_versions_version_idx", "project_id", "model_id", "version", unique=True),
    Index("model_versions_recent_idx", "model_id", "id"),
    Index("model_versions_tags_idx", "tags", postgresql_using="gin"),
    Index("model_versions_run_idx", "project_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
)

artifacts = Table(
    "artifacts",
    METADATA,
    # Kept when a file is replaced: the blob store knows by it what holds the content.
    id_column(),
    project_column(),
    Column("version_id", HexId, nullable=False),
    Column("path", sorted_text(), nullable=False),
    Column("blob_id", HexId, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("is_encrypted", Boolean, nullable=False),
    Column("format", Text, nullable=False),
    Column("stored_at", UtcTime, nullable=False),
    Index("artifacts_path_idx", "version_id", "path", unique=True),
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
    # The same edge as a dependency, so that both ways through the graph are one index lookup a step.
    Column("dependent", sorted_text(), nullable=False),
    Column("source", sorted_text(), nullable=False),
    Column("stated_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("project_id", "subject", "relation", "object"),
    Index("lineage_edges_dependent_idx", "project_id", "dependent"),
    Index("lineage_edges_source_idx", "project_id", "source"),
)

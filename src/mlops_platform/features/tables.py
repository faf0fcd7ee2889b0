"""Tables of the Feature Store, in the PostgreSQL schema `features`."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text, text
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

METADATA = service_metadata("features")

feature_sets = Table(
    "feature_sets",
    METADATA,
    id_column(),
    project_column(),
    Column("name", sorted_text(), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("entity", Text, nullable=False),
    Column("ttl_seconds", BigInteger),
    Column("is_online", Boolean, nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("owner", Text),
    Column("version", Integer, nullable=False),
    json_column("features", default="[]"),
    Column("next_slot", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Index("feature_sets_name_idx", "project_id", "name", unique=True),
    Index("feature_sets_tags_idx", "tags", postgresql_using="gin"),
)

feature_set_versions = Table(
    "feature_set_versions",
    METADATA,
    Column("feature_set_id", HexId, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    project_column(),
    json_column("features", default="[]"),
    Column("next_slot", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
)

# Rows that are not in a segment yet: one table row for each ingest, not for each feature row. Once several ingests have
# been merged into one, the payload holds the stamp of each row.
recent_rows = Table(
    "recent_rows",
    METADATA,
    Column("batch_id", HexId, primary_key=True),
    project_column(),
    Column("feature_set_id", HexId, nullable=False),
    Column("row_count", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("is_merged", Boolean, nullable=False, server_default=text("false")),
    Column("payload", LargeBinary, nullable=False),
    Index(None, "project_id", "feature_set_id", "created_us"),
)

# The manifest of the Parquet files. A file that is not listed here does not exist for any reader.
segments = Table(
    "segments",
    METADATA,
    id_column(),
    project_column(),
    Column("feature_set_id", HexId, nullable=False),
    # The stamp of all rows of a file that is one ingest; null where the file holds the stamp of each row.
    Column("batch_id", HexId),
    Column("created_us", BigInteger),
    Column("blob_id", HexId, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("is_encrypted", Boolean, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("first_event_us", BigInteger, nullable=False),
    Column("last_event_us", BigInteger, nullable=False),
    created_column(),
    Index(None, "project_id", "feature_set_id", "first_event_us"),
)

# Ingests whose rows are not known to be online yet. A crash between the commit and the online write leaves its row here.
online_pending = Table(
    "online_pending",
    METADATA,
    Column("batch_id", HexId, primary_key=True),
    project_column(),
    Column("feature_set_id", HexId, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Index(None, "created_us"),
)

# The durable part of the embedded online store.
online_values = Table(
    "online_values",
    METADATA,
    Column("project_id", HexId, primary_key=True),
    Column("feature_set_id", HexId, primary_key=True),
    Column("entity", sorted_text(), primary_key=True),
    Column("rank", sorted_text(), nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

training_sets = Table(
    "training_sets",
    METADATA,
    id_column(),
    project_column(),
    Column("name", sorted_text()),
    Column("description", Text, nullable=False, server_default=""),
    Column("blob_id", HexId, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("is_encrypted", Boolean, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    json_column("columns", default="[]"),
    json_column("sources", default="[]"),
    Column("as_known", Boolean, nullable=False),
    Column("known_until", UtcTime, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
    Index(None, "project_id", "id"),
)

"""Which blobs exist, and what holds them."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, PrimaryKeyConstraint, Table, Text, text

from mlops_platform.core.db.schema import CORE, HexId, UtcTime, created_column, id_column, project_column

blobs = Table(
    "blobs",
    CORE,
    id_column(),
    project_column(),
    Column("state", Text, nullable=False),
    Column("sha256", Text),
    Column("size", BigInteger),
    Column("is_encrypted", Boolean),
    created_column(),
    Index("blobs_content_idx", "project_id", "sha256", postgresql_where=text("state = 'stored'")),
    Index("blobs_created_idx", "created_at"),
)

blob_references = Table(
    "blob_references",
    CORE,
    project_column(),
    # What holds the blob, as its service names it, for example `model-version/<id>/<path>`.
    Column("holder", Text, nullable=False),
    Column("blob_id", HexId, nullable=False),
    PrimaryKeyConstraint("project_id", "holder"),
    Index(None, "blob_id"),
)

# An upload in parts; each part is a blob that is held in the upload's name until all are one.
uploads = Table(
    "uploads",
    CORE,
    id_column(),
    project_column(),
    # Who began it and alone goes on with it; null for what was begun before this was kept.
    Column("principal_id", HexId),
    # What it will be, as its service names it.
    Column("target", Text, nullable=False),
    Column("parts", Integer, nullable=False),
    # What the client promises; null where its protocol promises nothing.
    Column("sha256", Text),
    Column("size", BigInteger),
    Column("part_bytes", BigInteger),
    Column("content_type", Text),
    created_column(),
    Column("touched_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Index("uploads_touched_idx", "touched_at"),
    Index("uploads_content_idx", "project_id", "sha256"),
)

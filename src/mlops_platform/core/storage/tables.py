"""Which blobs exist, and what holds them."""

from sqlalchemy import BigInteger, Boolean, Column, Index, PrimaryKeyConstraint, Table, Text, text

from mlops_platform.core.db.schema import CORE, HexId, created_column, id_column, project_column

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

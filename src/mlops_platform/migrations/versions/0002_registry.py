"""registry"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from mlops_platform.migrations import schemas

revision = "0002_registry"
down_revision = "0001_core"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schemas.create_service_schema("registry")
    op.create_table(
        "aliases",
        sa.Column("model_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("alias", sa.Text(collation="C"), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("version_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "alias", name=op.f("aliases_pkey")),
        schema="registry",
    )
    op.create_index(op.f("aliases_version_id_idx"), "aliases", ["version_id"], unique=False, schema="registry")
    op.create_table(
        "artifacts",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("version_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("blob_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("is_encrypted", sa.Boolean(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("artifacts_pkey")),
        schema="registry",
    )
    op.create_index("artifacts_path_idx", "artifacts", ["version_id", "path"], unique=True, schema="registry")
    op.create_table(
        "lineage_edges",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("subject", sa.Text(collation="C"), nullable=False),
        sa.Column("relation", sa.Text(collation="C"), nullable=False),
        sa.Column("object", sa.Text(collation="C"), nullable=False),
        sa.Column("dependent", sa.Text(collation="C"), nullable=False),
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("stated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "subject", "relation", "object", name=op.f("lineage_edges_pkey")),
        schema="registry",
    )
    op.create_index(
        "lineage_edges_dependent_idx", "lineage_edges", ["project_id", "dependent"], unique=False, schema="registry"
    )
    op.create_index("lineage_edges_source_idx", "lineage_edges", ["project_id", "source"], unique=False, schema="registry")
    op.create_table(
        "model_versions",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("model_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("version", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("framework", sa.Text(), nullable=True),
        sa.Column(
            "metrics", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("training_set_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("pipeline_run_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("manifest_digest", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("file_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("formats", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("finalized_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("model_versions_pkey")),
        schema="registry",
    )
    op.create_index("model_versions_recent_idx", "model_versions", ["model_id", "id"], unique=False, schema="registry")
    op.create_index(
        "model_versions_run_idx",
        "model_versions",
        ["project_id", "run_id"],
        unique=False,
        schema="registry",
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.create_index(
        "model_versions_tags_idx", "model_versions", ["tags"], unique=False, schema="registry", postgresql_using="gin"
    )
    op.create_index(
        "model_versions_version_idx",
        "model_versions",
        ["project_id", "model_id", "version"],
        unique=True,
        schema="registry",
    )
    op.create_table(
        "registered_models",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("registered_models_pkey")),
        schema="registry",
    )
    op.create_index(
        "registered_models_name_idx", "registered_models", ["project_id", "name"], unique=True, schema="registry"
    )


def downgrade() -> None:
    op.drop_index("registered_models_name_idx", table_name="registered_models", schema="registry")
    op.drop_table("registered_models", schema="registry")
    op.drop_index("model_versions_version_idx", table_name="model_versions", schema="registry")
    op.drop_index("model_versions_tags_idx", table_name="model_versions", schema="registry", postgresql_using="gin")
    op.drop_index(
        "model_versions_run_idx",
        table_name="model_versions",
        schema="registry",
        postgresql_where=sa.text("run_id IS NOT NULL"),
    )
    op.drop_index("model_versions_recent_idx", table_name="model_versions", schema="registry")
    op.drop_table("model_versions", schema="registry")
    op.drop_index("lineage_edges_source_idx", table_name="lineage_edges", schema="registry")
    op.drop_index("lineage_edges_dependent_idx", table_name="lineage_edges", schema="registry")
    op.drop_table("lineage_edges", schema="registry")
    op.drop_index("artifacts_path_idx", table_name="artifacts", schema="registry")
    op.drop_table("artifacts", schema="registry")
    op.drop_index(op.f("aliases_version_id_idx"), table_name="aliases", schema="registry")
    op.drop_table("aliases", schema="registry")

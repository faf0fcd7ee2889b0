"""features"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from mlops_platform.migrations import schemas

revision = "0004_features"
down_revision = "0003_tracking"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schemas.create_service_schema("features")
    op.create_table(
        "feature_set_versions",
        sa.Column("feature_set_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column(
            "features", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("next_slot", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("feature_set_id", "version", name=op.f("feature_set_versions_pkey")),
        schema="features",
    )
    op.create_table(
        "feature_sets",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("ttl_seconds", sa.BigInteger(), nullable=True),
        sa.Column("is_online", sa.Boolean(), nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "features", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("next_slot", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("feature_sets_pkey")),
        schema="features",
    )
    op.create_index("feature_sets_name_idx", "feature_sets", ["project_id", "name"], unique=True, schema="features")
    op.create_index(
        "feature_sets_tags_idx", "feature_sets", ["tags"], unique=False, schema="features", postgresql_using="gin"
    )
    op.create_table(
        "online_pending",
        sa.Column("batch_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("feature_set_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("online_pending_pkey")),
        schema="features",
    )
    op.create_index(
        op.f("online_pending_created_us_idx"), "online_pending", ["created_us"], unique=False, schema="features"
    )
    op.create_table(
        "online_values",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("feature_set_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("entity", sa.Text(collation="C"), nullable=False),
        sa.Column("rank", sa.Text(collation="C"), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "feature_set_id", "entity", name=op.f("online_values_pkey")),
        schema="features",
    )
    op.create_table(
        "recent_rows",
        sa.Column("batch_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("feature_set_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("is_merged", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("recent_rows_pkey")),
        schema="features",
    )
    op.create_index(
        op.f("recent_rows_project_id_feature_set_id_created_us_idx"),
        "recent_rows",
        ["project_id", "feature_set_id", "created_us"],
        unique=False,
        schema="features",
    )
    op.create_table(
        "segments",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("feature_set_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("batch_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=True),
        sa.Column("blob_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("is_encrypted", sa.Boolean(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("first_event_us", sa.BigInteger(), nullable=False),
        sa.Column("last_event_us", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("segments_pkey")),
        schema="features",
    )
    op.create_index(
        op.f("segments_project_id_feature_set_id_first_event_us_idx"),
        "segments",
        ["project_id", "feature_set_id", "first_event_us"],
        unique=False,
        schema="features",
    )
    op.create_table(
        "training_sets",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=True),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("blob_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_encrypted", sa.Boolean(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column(
            "columns", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column(
            "sources", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("as_known", sa.Boolean(), nullable=False),
        sa.Column("known_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("training_sets_pkey")),
        schema="features",
    )
    op.create_index(
        op.f("training_sets_project_id_id_idx"), "training_sets", ["project_id", "id"], unique=False, schema="features"
    )


def downgrade() -> None:
    op.drop_index(op.f("training_sets_project_id_id_idx"), table_name="training_sets", schema="features")
    op.drop_table("training_sets", schema="features")
    op.drop_index(op.f("segments_project_id_feature_set_id_first_event_us_idx"), table_name="segments", schema="features")
    op.drop_table("segments", schema="features")
    op.drop_index(op.f("recent_rows_project_id_feature_set_id_created_us_idx"), table_name="recent_rows", schema="features")
    op.drop_table("recent_rows", schema="features")
    op.drop_table("online_values", schema="features")
    op.drop_index(op.f("online_pending_created_us_idx"), table_name="online_pending", schema="features")
    op.drop_table("online_pending", schema="features")
    op.drop_index("feature_sets_tags_idx", table_name="feature_sets", schema="features", postgresql_using="gin")
    op.drop_index("feature_sets_name_idx", table_name="feature_sets", schema="features")
    op.drop_table("feature_sets", schema="features")
    op.drop_table("feature_set_versions", schema="features")

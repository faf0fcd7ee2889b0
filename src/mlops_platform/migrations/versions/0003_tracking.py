"""tracking"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from mlops_platform.migrations import schemas

revision = "0003_tracking"
down_revision = "0002_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schemas.create_service_schema("tracking")
    op.create_table(
        "experiments",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("tags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("experiments_pkey")),
        schema="tracking",
    )
    op.create_index(
        "experiments_live_name_key",
        "experiments",
        ["project_id", "name"],
        unique=True,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("experiments_name_idx", "experiments", ["project_id", "name", "id"], unique=False, schema="tracking")
    op.create_index(
        "experiments_tags_idx",
        "experiments",
        ["tags"],
        unique=False,
        schema="tracking",
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
    )
    op.create_table(
        "metric_keys",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("metric_keys_pkey")),
        sa.UniqueConstraint("project_id", "name", name=op.f("metric_keys_project_id_name_key")),
        schema="tracking",
    )
    op.create_table(
        "metric_points",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("arrived", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "key_id", "step", "timestamp", "value", name=op.f("metric_points_pkey")),
        schema="tracking",
    )
    op.create_index(
        "metric_points_arrived_key",
        "metric_points",
        ["run_id", "key_id", "step", "value"],
        unique=True,
        schema="tracking",
        postgresql_where=sa.text("arrived"),
    )
    op.create_table(
        "run_metrics",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("last_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_value", sa.Double(), nullable=False),
        sa.Column("min_value", sa.Double(), nullable=True),
        sa.Column("max_value", sa.Double(), nullable=True),
        sa.Column("total", sa.Double(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("nan_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "key_id", name=op.f("run_metrics_pkey")),
        schema="tracking",
    )
    op.create_index(
        "run_metrics_value_idx",
        "run_metrics",
        ["project_id", "experiment_id", "key_id", "last_value", "run_id"],
        unique=False,
        schema="tracking",
    )
    op.create_table(
        "run_counts",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(collation="C"), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["experiment_id"], ["tracking.experiments.id"], name=op.f("run_counts_experiment_id_fkey")),
        sa.PrimaryKeyConstraint("experiment_id", "shard", "status", name=op.f("run_counts_pkey")),
        schema="tracking",
    )
    op.create_table(
        "runs",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.Text(collation="C"), nullable=False),
        sa.Column("user_name", sa.Text(collation="C"), nullable=True),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parent_run_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('SCHEDULED', 'RUNNING', 'FINISHED', 'FAILED', 'KILLED')", name=op.f("runs_status_check")
        ),
        sa.ForeignKeyConstraint(["experiment_id"], ["tracking.experiments.id"], name=op.f("runs_experiment_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("runs_pkey")),
        schema="tracking",
    )
    op.create_index(
        "runs_end_idx",
        "runs",
        ["project_id", "experiment_id", "end_time", "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "runs_name_idx",
        "runs",
        ["project_id", "experiment_id", sa.literal_column("left(name, 250)"), "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "runs_newest_idx",
        "runs",
        ["project_id", "experiment_id", "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "runs_parent_idx",
        "runs",
        ["project_id", "parent_run_id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("parent_run_id IS NOT NULL"),
    )
    op.create_index(
        "runs_start_idx",
        "runs",
        ["project_id", "experiment_id", "start_time", "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "runs_status_idx",
        "runs",
        ["project_id", "experiment_id", "status", "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "runs_user_idx",
        "runs",
        ["project_id", "experiment_id", "user_name", "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "run_params",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["tracking.runs.id"], name=op.f("run_params_run_id_fkey")),
        sa.PrimaryKeyConstraint("run_id", "key", name=op.f("run_params_pkey")),
        schema="tracking",
    )
    op.create_index(
        "run_params_number_idx",
        "run_params",
        ["project_id", "experiment_id", "key", "number", "run_id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("number IS NOT NULL"),
    )
    op.create_index(
        "run_params_text_idx",
        "run_params",
        ["project_id", "experiment_id", "key", sa.literal_column("left(text, 250)"), "run_id"],
        unique=False,
        schema="tracking",
    )
    op.create_table(
        "run_tags",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("value", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["tracking.runs.id"], name=op.f("run_tags_run_id_fkey")),
        sa.PrimaryKeyConstraint("run_id", "key", name=op.f("run_tags_pkey")),
        schema="tracking",
    )
    op.create_index(
        "run_tags_value_idx",
        "run_tags",
        ["project_id", "experiment_id", "key", sa.literal_column("left(value, 250)"), "run_id"],
        unique=False,
        schema="tracking",
    )


def downgrade() -> None:
    op.drop_index("run_tags_value_idx", table_name="run_tags", schema="tracking")
    op.drop_table("run_tags", schema="tracking")
    op.drop_index("run_params_text_idx", table_name="run_params", schema="tracking")
    op.drop_index(
        "run_params_number_idx", table_name="run_params", schema="tracking", postgresql_where=sa.text("number IS NOT NULL")
    )
    op.drop_table("run_params", schema="tracking")
    op.drop_index("runs_user_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index("runs_status_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index("runs_start_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index(
        "runs_parent_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("parent_run_id IS NOT NULL")
    )
    op.drop_index("runs_newest_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index("runs_name_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index("runs_end_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_table("runs", schema="tracking")
    op.drop_table("run_counts", schema="tracking")
    op.drop_index("run_metrics_value_idx", table_name="run_metrics", schema="tracking")
    op.drop_table("run_metrics", schema="tracking")
    op.drop_index(
        "metric_points_arrived_key", table_name="metric_points", schema="tracking", postgresql_where=sa.text("arrived")
    )
    op.drop_table("metric_points", schema="tracking")
    op.drop_table("metric_keys", schema="tracking")
    op.drop_index(
        "experiments_tags_idx",
        table_name="experiments",
        schema="tracking",
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
    )
    op.drop_index("experiments_name_idx", table_name="experiments", schema="tracking")
    op.drop_index(
        "experiments_live_name_key",
        table_name="experiments",
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_table("experiments", schema="tracking")

"""tracking runs"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009_tracking_runs"
down_revision = "0008_made_with"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_chores",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "kind", name=op.f("run_chores_pkey")),
        schema="tracking",
    )
    op.create_index(op.f("run_chores_since_idx"), "run_chores", ["since"], unique=False, schema="tracking")
    op.create_table(
        "saved_views",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column(
            "order_by", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column(
            "columns", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("charts", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["tracking.experiments.id"], name=op.f("saved_views_experiment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("saved_views_pkey")),
        sa.UniqueConstraint("experiment_id", "name", name=op.f("saved_views_experiment_id_name_key")),
        schema="tracking",
    )
    op.create_table(
        "run_comments",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("author_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "mentions", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("edited_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["tracking.runs.id"], name=op.f("run_comments_run_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("run_comments_pkey")),
        schema="tracking",
    )
    op.create_index(op.f("run_comments_run_id_id_idx"), "run_comments", ["run_id", "id"], unique=False, schema="tracking")
    op.create_table(
        "run_leases",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_seconds", sa.Integer(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["tracking.runs.id"], name=op.f("run_leases_run_id_fkey")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_leases_pkey")),
        schema="tracking",
    )
    op.create_index(
        "run_leases_due_idx",
        "run_leases",
        ["due_at"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.add_column("experiments", sa.Column("owner", sa.Text(), nullable=True), schema="tracking")
    op.add_column("experiments", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True), schema="tracking")
    op.add_column("experiments", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True), schema="tracking")
    op.add_column("experiments", sa.Column("retention_days", sa.Integer(), nullable=True), schema="tracking")
    op.add_column(
        "experiments", sa.Column("baseline_run_id", postgresql.UUID(as_uuid=True), nullable=True), schema="tracking"
    )
    op.add_column("runs", sa.Column("group_name", sa.Text(collation="C"), nullable=True), schema="tracking")
    op.add_column("runs", sa.Column("status_reason", sa.Text(), nullable=True), schema="tracking")
    op.add_column("runs", sa.Column("heartbeat_seconds", sa.Integer(), nullable=True), schema="tracking")
    op.create_index(
        "runs_deleted_idx",
        "runs",
        ["deleted_at"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "runs_group_idx",
        "runs",
        ["project_id", "experiment_id", "group_name", "id"],
        unique=False,
        schema="tracking",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("runs_group_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NULL"))
    op.drop_index(
        "runs_deleted_idx", table_name="runs", schema="tracking", postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    op.drop_column("runs", "heartbeat_seconds", schema="tracking")
    op.drop_column("runs", "status_reason", schema="tracking")
    op.drop_column("runs", "group_name", schema="tracking")
    op.drop_column("experiments", "baseline_run_id", schema="tracking")
    op.drop_column("experiments", "retention_days", schema="tracking")
    op.drop_column("experiments", "purged_at", schema="tracking")
    op.drop_column("experiments", "archived_at", schema="tracking")
    op.drop_column("experiments", "owner", schema="tracking")
    op.drop_index(
        "run_leases_due_idx", table_name="run_leases", schema="tracking", postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.drop_table("run_leases", schema="tracking")
    op.drop_index(op.f("run_comments_run_id_id_idx"), table_name="run_comments", schema="tracking")
    op.drop_table("run_comments", schema="tracking")
    op.drop_table("saved_views", schema="tracking")
    op.drop_index(op.f("run_chores_since_idx"), table_name="run_chores", schema="tracking")
    op.drop_table("run_chores", schema="tracking")

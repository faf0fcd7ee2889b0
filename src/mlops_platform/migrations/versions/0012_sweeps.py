"""sweeps"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012_sweeps"
down_revision = "0011_tracking_runs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column(
            "objectives", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("pruner", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("max_trials", sa.Integer(), nullable=True),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("startup_trials", sa.Integer(), nullable=False),
        sa.Column("heartbeat_seconds", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["tracking.runs.id"], name=op.f("sweeps_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("sweeps_pkey")),
        schema="tracking",
    )
    op.create_index("sweeps_project_idx", "sweeps", ["project_id", "id"], unique=False, schema="tracking")
    op.create_table(
        "sweep_trials",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("sweep_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.CheckConstraint("outcome IN ('COMPLETE', 'PRUNED', 'FAILED')", name=op.f("sweep_trials_outcome_check")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["tracking.runs.id"], name=op.f("sweep_trials_run_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"], ["tracking.sweeps.id"], name=op.f("sweep_trials_sweep_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep_id", "number", name=op.f("sweep_trials_pkey")),
        sa.UniqueConstraint("run_id", name=op.f("sweep_trials_run_id_key")),
        sa.UniqueConstraint("sweep_id", "slot", "attempt", name=op.f("sweep_trials_sweep_id_slot_attempt_key")),
        schema="tracking",
    )


def downgrade() -> None:
    op.drop_table("sweep_trials", schema="tracking")
    op.drop_index("sweeps_project_idx", table_name="sweeps", schema="tracking")
    op.drop_table("sweeps", schema="tracking")

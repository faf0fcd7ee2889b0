"""metric segments"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015_metric_segments"
down_revision = "0014_resumable_uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metric_segments",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("key_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("last_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_value", sa.Double(), nullable=False),
        sa.Column("blocks", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "key_id"],
            ["tracking.run_metrics.run_id", "tracking.run_metrics.key_id"],
            name=op.f("metric_segments_run_id_key_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "key_id", "number", name=op.f("metric_segments_pkey")),
        schema="tracking",
    )
    # Whoever takes points away, also a replica of before that knows of no segments: what stood for them goes with them.
    op.execute("""
        CREATE FUNCTION tracking.forget_segments() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM tracking.metric_segments WHERE run_id = NEW.run_id AND key_id = NEW.key_id;
            RETURN NULL;
        END $$
    """)
    op.execute(
        "CREATE TRIGGER cut AFTER UPDATE OF count ON tracking.run_metrics FOR EACH ROW "
        "WHEN (NEW.count < OLD.count) EXECUTE FUNCTION tracking.forget_segments()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER cut ON tracking.run_metrics")
    op.execute("DROP FUNCTION tracking.forget_segments()")
    op.drop_table("metric_segments", schema="tracking")

"""tracking imports"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013_tracking_imports"
down_revision = "0012_sweeps"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("source_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("left", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('experiment', 'run', 'model')", name=op.f("imports_kind_check")),
        sa.PrimaryKeyConstraint("target_id", "kind", name=op.f("imports_pkey")),
        schema="tracking",
    )
    op.create_index("imports_source_idx", "imports", ["project_id", "kind", "source_id"], unique=False, schema="tracking")


def downgrade() -> None:
    op.drop_index("imports_source_idx", table_name="imports", schema="tracking")
    op.drop_table("imports", schema="tracking")

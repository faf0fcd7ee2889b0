"""resumable uploads"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014_resumable_uploads"
down_revision = "0013_tracking_imports"
branch_labels = None
depends_on = None

# What is under way goes on, also where replicas of the version before go on with it: those read the old rows, which stay
# until they are forgotten. Whoever began one was not kept.
TAKE_OVER = """
INSERT INTO core.uploads (id, project_id, target, parts, created_at, touched_at)
SELECT id, project_id, target, parts, created_at, created_at FROM tracking.uploads
"""


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("principal_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("part_bytes", sa.BigInteger(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("uploads_pkey")),
        schema="core",
    )
    op.create_index("uploads_content_idx", "uploads", ["project_id", "sha256"], unique=False, schema="core")
    op.create_index("uploads_touched_idx", "uploads", ["touched_at"], unique=False, schema="core")
    # Not CONCURRENTLY: that waits for every transaction with a snapshot, and a process that waits for its turn to migrate
    # has one: they would wait for each other until one fails. Files cannot be stored while these are built.
    op.create_index(
        "logged_model_artifacts_content_idx",
        "logged_model_artifacts",
        ["project_id", "sha256"],
        unique=False,
        schema="tracking",
    )
    op.create_index("run_artifacts_content_idx", "run_artifacts", ["project_id", "sha256"], unique=False, schema="tracking")
    op.execute(TAKE_OVER)


def downgrade() -> None:
    op.drop_index("run_artifacts_content_idx", table_name="run_artifacts", schema="tracking")
    op.drop_index("logged_model_artifacts_content_idx", table_name="logged_model_artifacts", schema="tracking")
    op.drop_index("uploads_touched_idx", table_name="uploads", schema="core")
    op.drop_index("uploads_content_idx", table_name="uploads", schema="core")
    op.drop_table("uploads", schema="core")

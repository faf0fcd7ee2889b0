"""what was made with a token ends with it"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008_made_with"
down_revision = "0007_run_traces"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("credentials", sa.Column("made_with", postgresql.UUID(as_uuid=True), nullable=True), schema="core")
    op.create_index(
        "credentials_made_with_idx",
        "credentials",
        ["made_with"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("made_with IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "credentials_made_with_idx",
        table_name="credentials",
        schema="core",
        postgresql_where=sa.text("made_with IS NOT NULL"),
    )
    op.drop_column("credentials", "made_with", schema="core")

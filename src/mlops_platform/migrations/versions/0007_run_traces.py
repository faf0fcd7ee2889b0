"""run traces"""

import sqlalchemy as sa
from alembic import op

revision = "0007_run_traces"
down_revision = "0006_ab_testing"
branch_labels = None
depends_on = None

SCHEMA = "pipelines"


def upgrade() -> None:
    op.add_column("pipeline_runs", sa.Column("trace_parent", sa.Text(), nullable=True), schema=SCHEMA)


def downgrade() -> None:
    op.drop_column("pipeline_runs", "trace_parent", schema=SCHEMA)

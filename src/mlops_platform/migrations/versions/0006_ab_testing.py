"""ab_testing"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from mlops_platform.migrations import schemas

revision = "0006_ab_testing"
down_revision = "0005_pipelines"
branch_labels = None
depends_on = None

SCHEMA = "ab_testing"
UUID = postgresql.UUID(as_uuid=True)
TIME = sa.DateTime(timezone=True)


def _list(name: str) -> sa.Column[object]:
    return sa.Column(name, postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False)


def upgrade() -> None:
    schemas.create_service_schema(SCHEMA)
    op.create_table(
        "ab_tests",
        sa.Column("id", UUID, nullable=False),
        sa.Column("project_id", UUID, nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("unit_type", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("control", sa.Text(), nullable=False),
        _list("variants"),
        sa.Column("traffic_share", sa.Double(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), nullable=False),
        sa.Column("has_open_metrics", sa.Boolean(), nullable=False),
        sa.Column("winner", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("stopped_at", TIME, nullable=True),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('draft', 'running', 'paused', 'stopped', 'archived')", name=op.f("ab_tests_status_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("ab_tests_pkey")),
        schema=SCHEMA,
    )
    op.create_index(
        "ab_tests_project_id_name_key",
        "ab_tests",
        ["project_id", "name"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "allocations",
        sa.Column("project_id", UUID, nullable=False),
        sa.Column("test_id", UUID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _list("weights"),
        sa.Column("traffic_share", sa.Double(), nullable=False),
        _list("ends"),
        _list("owners"),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["test_id"], [f"{SCHEMA}.ab_tests.id"], name=op.f("allocations_test_id_fkey")),
        sa.PrimaryKeyConstraint("project_id", "test_id", "version", name=op.f("allocations_pkey")),
        schema=SCHEMA,
    )
    op.create_table(
        "outcome_metrics",
        sa.Column("project_id", UUID, nullable=False),
        sa.Column("test_id", UUID, nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.CheckConstraint("kind IN ('proportion', 'mean', 'count')", name=op.f("outcome_metrics_kind_check")),
        sa.CheckConstraint("goal IN ('increase', 'decrease')", name=op.f("outcome_metrics_goal_check")),
        sa.ForeignKeyConstraint(["test_id"], [f"{SCHEMA}.ab_tests.id"], name=op.f("outcome_metrics_test_id_fkey")),
        sa.PrimaryKeyConstraint("project_id", "test_id", "name", name=op.f("outcome_metrics_pkey")),
        schema=SCHEMA,
    )
    op.create_table(
        "exposures",
        sa.Column("project_id", UUID, nullable=False),
        sa.Column("test_id", UUID, nullable=False),
        sa.Column("unit_id", sa.Text(collation="C"), nullable=False),
        sa.Column("variant", sa.SmallInteger(), nullable=False),
        sa.Column("allocation_version", sa.Integer(), nullable=False),
        sa.Column("first_exposed_at", TIME, nullable=False),
        sa.Column("last_exposed_at", TIME, nullable=False),
        sa.Column("exposures", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "test_id", "unit_id", "variant", name=op.f("exposures_pkey")),
        schema=SCHEMA,
    )
    op.create_table(
        "outcomes",
        sa.Column("project_id", UUID, nullable=False),
        sa.Column("test_id", UUID, nullable=False),
        sa.Column("identity", UUID, nullable=False),
        sa.Column("unit_id", sa.Text(collation="C"), nullable=False),
        sa.Column("metric", sa.Text(collation="C"), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "test_id", "identity", name=op.f("outcomes_pkey")),
        schema=SCHEMA,
    )
    op.create_index("outcomes_unit_idx", "outcomes", ["project_id", "test_id", "unit_id"], schema=SCHEMA)
    op.create_table(
        "revisions",
        sa.Column("project_id", UUID, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("revisions_pkey")),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("revisions", schema=SCHEMA)
    op.drop_index("outcomes_unit_idx", table_name="outcomes", schema=SCHEMA)
    op.drop_table("outcomes", schema=SCHEMA)
    op.drop_table("exposures", schema=SCHEMA)
    op.drop_table("outcome_metrics", schema=SCHEMA)
    op.drop_table("allocations", schema=SCHEMA)
    op.drop_index("ab_tests_project_id_name_key", table_name="ab_tests", schema=SCHEMA)
    op.drop_table("ab_tests", schema=SCHEMA)

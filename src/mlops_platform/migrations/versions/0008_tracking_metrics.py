"""tracking metrics"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008_tracking_metrics"
down_revision = "0008_made_with"
branch_labels = None
depends_on = None

# Arithmetic of the search language that cannot fail: PostgreSQL refuses what overflows or underflows, and a filter must not
# fail for the values of one run. Beyond 8e307 counts as infinite, below 1e-307 as zero, and nothing is divided by zero.
PLUS = """
    CREATE FUNCTION tracking.plus(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    BEGIN
        RETURN CASE
            WHEN (abs(a) < 8e307 AND abs(b) < 8e307) OR abs(a) >= 'Infinity' OR abs(b) >= 'Infinity' OR (a < 0) <> (b < 0)
                THEN a + b
            WHEN a > 0 OR b > 0 THEN 'Infinity' ELSE '-Infinity' END;
    END $$
"""
TIMES = """
    CREATE FUNCTION tracking.times(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    BEGIN
        RETURN CASE
            WHEN a = 0 OR b = 0 OR abs(a) >= 'Infinity' OR abs(b) >= 'Infinity' THEN a * b
            WHEN log(abs(a)) + log(abs(b)) > 307.9 THEN sign(a) * sign(b) * 'Infinity'
            WHEN log(abs(a)) + log(abs(b)) < -307 THEN 0 ELSE a * b END;
    END $$
"""
DIVIDE = """
    CREATE FUNCTION tracking.divide(a float8, b float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    BEGIN
        RETURN CASE
            WHEN b = 0 THEN NULL
            WHEN a = 0 OR abs(a) >= 'Infinity' OR abs(b) >= 'Infinity' THEN a / b
            WHEN log(abs(a)) - log(abs(b)) > 307.9 THEN sign(a) * sign(b) * 'Infinity'
            WHEN log(abs(a)) - log(abs(b)) < -307 THEN 0 ELSE a / b END;
    END $$
"""


def upgrade() -> None:
    op.create_table(
        "metric_goals",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("goal IN ('minimize', 'maximize')", name=op.f("metric_goals_goal_check")),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["tracking.experiments.id"], name=op.f("metric_goals_experiment_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("experiment_id", "key", name=op.f("metric_goals_pkey")),
        schema="tracking",
    )
    op.create_index("metric_goals_key_idx", "metric_goals", ["project_id", "key"], unique=False, schema="tracking")
    op.add_column(
        "metric_keys", sa.Column("context", sa.Text(collation="C"), server_default="", nullable=False), schema="tracking"
    )
    op.drop_constraint(op.f("metric_keys_project_id_name_key"), "metric_keys", schema="tracking", type_="unique")
    op.create_unique_constraint(
        op.f("metric_keys_project_id_name_context_key"), "metric_keys", ["project_id", "name", "context"], schema="tracking"
    )
    op.execute(PLUS)
    op.execute(TIMES)
    op.execute(DIVIDE)


def downgrade() -> None:
    for name in ("plus", "times", "divide"):
        op.execute(f"DROP FUNCTION tracking.{name}(float8, float8)")
    op.drop_constraint(op.f("metric_keys_project_id_name_context_key"), "metric_keys", schema="tracking", type_="unique")
    op.create_unique_constraint(
        op.f("metric_keys_project_id_name_key"),
        "metric_keys",
        ["project_id", "name"],
        schema="tracking",
        postgresql_nulls_not_distinct=False,
    )
    op.drop_column("metric_keys", "context", schema="tracking")
    op.drop_index("metric_goals_key_idx", table_name="metric_goals", schema="tracking")
    op.drop_table("metric_goals", schema="tracking")

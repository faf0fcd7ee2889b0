"""tracking mlflow"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010_tracking_mlflow"
down_revision = "0009_tracking_metrics"
branch_labels = None
depends_on = None

# 0 is kept for the one that is called Default; an experiment that is inserted with a number keeps it.
NUMBERING = """
CREATE FUNCTION tracking.number_experiment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.number IS NULL AND NEW.name = 'Default' AND NOT EXISTS (
        SELECT 1 FROM tracking.experiments WHERE project_id = NEW.project_id AND number = 0
    ) THEN
        NEW.number := 0;
    END IF;
    INSERT INTO tracking.experiment_numbers AS n (project_id, last) VALUES (NEW.project_id, coalesce(NEW.number, 1))
    ON CONFLICT (project_id) DO UPDATE
        SET last = CASE WHEN NEW.number IS NULL THEN n.last + 1 ELSE greatest(n.last, NEW.number) END
    RETURNING coalesce(NEW.number, last) INTO NEW.number;
    RETURN NEW;
END $$
"""
NUMBER_EXISTING = """
UPDATE tracking.experiments e SET number = CASE WHEN e.id = n.default_id THEN 0 ELSE n.number END
FROM (
    SELECT id, default_id,
           row_number() OVER (PARTITION BY project_id, id IS NOT DISTINCT FROM default_id ORDER BY id) AS number
    FROM (
        SELECT id, project_id,
               (array_agg(id) FILTER (WHERE name = 'Default' AND deleted_at IS NULL)
                   OVER (PARTITION BY project_id))[1] AS default_id
        FROM tracking.experiments
    ) AS all_of_them
) AS n
WHERE n.id = e.id
"""


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.Text(collation="C"), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("datasets_pkey")),
        sa.UniqueConstraint("project_id", "name", "digest", name=op.f("datasets_project_id_name_digest_key")),
        schema="tracking",
    )
    op.create_table(
        "experiment_numbers",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("experiment_numbers_pkey")),
        schema="tracking",
    )
    op.create_table(
        "uploads",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("uploads_pkey")),
        schema="tracking",
    )
    op.create_index("uploads_created_idx", "uploads", ["created_at"], unique=False, schema="tracking")
    op.create_table(
        "logged_models",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("status", sa.Text(collation="C"), nullable=False),
        sa.Column("model_type", sa.Text(collation="C"), nullable=True),
        sa.Column("source_run_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("params", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("tags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('PENDING', 'READY', 'UPLOAD_FAILED')", name=op.f("logged_models_status_check")),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["tracking.experiments.id"], name=op.f("logged_models_experiment_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("logged_models_pkey")),
        schema="tracking",
    )
    op.create_index(
        "logged_models_experiment_idx",
        "logged_models",
        ["project_id", "experiment_id", "id"],
        unique=False,
        schema="tracking",
    )
    op.create_index(
        "logged_models_run_idx", "logged_models", ["project_id", "source_run_id"], unique=False, schema="tracking"
    )
    op.create_table(
        "logged_model_artifacts",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("model_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("path", sa.Text(collation="C"), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["tracking.logged_models.id"],
            name=op.f("logged_model_artifacts_model_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_id", "path", name=op.f("logged_model_artifacts_pkey")),
        schema="tracking",
    )
    op.create_table(
        "logged_model_metrics",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("model_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("dataset_name", sa.Text(collation="C"), nullable=True),
        sa.Column("dataset_digest", sa.Text(collation="C"), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_id"], ["tracking.logged_models.id"], name=op.f("logged_model_metrics_model_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "model_id", "key", "run_id", "step", "timestamp", "value", name=op.f("logged_model_metrics_pkey")
        ),
        schema="tracking",
    )
    op.create_index(
        "logged_model_metrics_run_idx", "logged_model_metrics", ["project_id", "run_id"], unique=False, schema="tracking"
    )
    op.create_table(
        "run_inputs",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("experiment_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("dataset_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("context", sa.Text(collation="C"), nullable=True),
        sa.Column("tags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["tracking.datasets.id"], name=op.f("run_inputs_dataset_id_fkey")),
        sa.ForeignKeyConstraint(["run_id"], ["tracking.runs.id"], name=op.f("run_inputs_run_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "dataset_id", name=op.f("run_inputs_pkey")),
        schema="tracking",
    )
    op.create_index(
        "run_inputs_dataset_idx", "run_inputs", ["project_id", "dataset_id", "run_id"], unique=False, schema="tracking"
    )
    op.create_index(
        "run_inputs_experiment_idx",
        "run_inputs",
        ["project_id", "experiment_id", "dataset_id"],
        unique=False,
        schema="tracking",
    )
    op.create_table(
        "run_models",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("run_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("model_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("direction IN ('input', 'output')", name=op.f("run_models_direction_check")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["tracking.logged_models.id"], name=op.f("run_models_model_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["tracking.runs.id"], name=op.f("run_models_run_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "model_id", "direction", name=op.f("run_models_pkey")),
        schema="tracking",
    )
    op.create_index("run_models_model_idx", "run_models", ["project_id", "model_id"], unique=False, schema="tracking")
    op.add_column("experiments", sa.Column("number", sa.BigInteger(), nullable=True), schema="tracking")
    # The old version goes on inserting while this one starts: what numbers a row must not be in either of them.
    op.execute(NUMBERING)
    op.execute(
        "CREATE TRIGGER numbered BEFORE INSERT ON tracking.experiments"
        " FOR EACH ROW EXECUTE FUNCTION tracking.number_experiment()"
    )
    op.execute(NUMBER_EXISTING)
    op.execute(
        "INSERT INTO tracking.experiment_numbers (project_id, last)"
        " SELECT project_id, max(number) FROM tracking.experiments GROUP BY project_id"
    )
    op.alter_column("experiments", "number", nullable=False, schema="tracking")
    op.add_column("experiments", sa.Column("artifact_location", sa.Text(), nullable=True), schema="tracking")
    op.create_index("experiments_number_key", "experiments", ["project_id", "number"], unique=True, schema="tracking")


def downgrade() -> None:
    op.execute("DROP TRIGGER numbered ON tracking.experiments")
    op.execute("DROP FUNCTION tracking.number_experiment()")
    op.drop_index("experiments_number_key", table_name="experiments", schema="tracking")
    op.drop_column("experiments", "artifact_location", schema="tracking")
    op.drop_column("experiments", "number", schema="tracking")
    op.drop_index("run_models_model_idx", table_name="run_models", schema="tracking")
    op.drop_table("run_models", schema="tracking")
    op.drop_index("run_inputs_experiment_idx", table_name="run_inputs", schema="tracking")
    op.drop_index("run_inputs_dataset_idx", table_name="run_inputs", schema="tracking")
    op.drop_table("run_inputs", schema="tracking")
    op.drop_index("logged_model_metrics_run_idx", table_name="logged_model_metrics", schema="tracking")
    op.drop_table("logged_model_metrics", schema="tracking")
    op.drop_table("logged_model_artifacts", schema="tracking")
    op.drop_index("logged_models_run_idx", table_name="logged_models", schema="tracking")
    op.drop_index("logged_models_experiment_idx", table_name="logged_models", schema="tracking")
    op.drop_table("logged_models", schema="tracking")
    op.drop_index("uploads_created_idx", table_name="uploads", schema="tracking")
    op.drop_table("uploads", schema="tracking")
    op.drop_table("experiment_numbers", schema="tracking")
    op.drop_table("datasets", schema="tracking")

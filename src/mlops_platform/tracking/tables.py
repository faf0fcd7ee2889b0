"""Tables of Experiment Tracking, in the PostgreSQL schema `tracking`.

The model: a run has one row in `run_metrics` for each of its metrics (what search and tables read), and the points
themselves lie in `metric_points`, narrow and only ever inserted. Metric keys are interned to small integers. Parameters
and tags are rows, so that each can be ordered by and found through an index. See docs/adr/0007-metric-storage.md.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from mlops_platform.core.db.schema import (
    HexId,
    UtcTime,
    created_column,
    id_column,
    json_column,
    project_column,
    service_metadata,
    sorted_text,
)

METADATA = service_metadata("tracking")
SORTED_LENGTH = 250
"""Texts are ordered, and found by index, by this many first characters: a B-tree entry must fit on a page."""

experiments = Table(
    "experiments",
    METADATA,
    id_column(),
    project_column(),
    # Filled by a trigger from `experiment_numbers`: small, and unique within the project. 0 is `Default`.
    Column("number", BigInteger, nullable=False),
    Column("name", sorted_text(), nullable=False),
    Column("description", Text),
    # Where its runs' files lie when their client stores them by itself; null is here.
    Column("artifact_location", Text),
    json_column("tags"),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Column("owner", Text),
    Column("archived_at", UtcTime),
    # From here on nobody sees it; its runs are removed in the background, and the row last.
    Column("purged_at", UtcTime),
    Column("retention_days", Integer),
    Column("baseline_run_id", HexId),
    Index("experiments_live_name_key", "project_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
    Index("experiments_number_key", "project_id", "number", unique=True),
    Index("experiments_name_idx", "project_id", "name", "id"),
    Index("experiments_tags_idx", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
)

runs = Table(
    "runs",
    METADATA,
    id_column(),
    project_column(),
    Column("experiment_id", HexId, ForeignKey("tracking.experiments.id"), nullable=False),
    Column("name", sorted_text(), nullable=False),
    Column("status", sorted_text(), nullable=False),
    Column("user_name", sorted_text()),
    Column("start_time", UtcTime),
    Column("end_time", UtcTime),
    Column("parent_run_id", HexId),
    Column("notes", Text),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Column("group_name", sorted_text()),
    Column("status_reason", Text),
    Column("heartbeat_seconds", Integer),
    CheckConstraint("status IN ('SCHEDULED', 'RUNNING', 'FINISHED', 'FAILED', 'KILLED')", name="status"),
)

_LIVE: dict[str, Any] = {"postgresql_where": runs.c.deleted_at.is_(None)}
# Each ends in the run id, the tie-break of every order, so that a page starts at one place of one index.
Index("runs_newest_idx", runs.c.project_id, runs.c.experiment_id, runs.c.id, **_LIVE)
Index("runs_name_idx", runs.c.project_id, runs.c.experiment_id, func.left(runs.c.name, SORTED_LENGTH), runs.c.id, **_LIVE)
Index("runs_status_idx", runs.c.project_id, runs.c.experiment_id, runs.c.status, runs.c.id, **_LIVE)
Index("runs_user_idx", runs.c.project_id, runs.c.experiment_id, runs.c.user_name, runs.c.id, **_LIVE)
Index("runs_start_idx", runs.c.project_id, runs.c.experiment_id, runs.c.start_time, runs.c.id, **_LIVE)
Index("runs_end_idx", runs.c.project_id, runs.c.experiment_id, runs.c.end_time, runs.c.id, **_LIVE)
Index("runs_parent_idx", runs.c.project_id, runs.c.parent_run_id, postgresql_where=runs.c.parent_run_id.is_not(None))

Index("runs_group_idx", runs.c.project_id, runs.c.experiment_id, runs.c.group_name, runs.c.id, **_LIVE)
Index("runs_deleted_idx", runs.c.deleted_at, postgresql_where=runs.c.deleted_at.is_not(None))

run_counts = Table(
    "run_counts",
    METADATA,
    project_column(),
    Column("experiment_id", HexId, ForeignKey("tracking.experiments.id"), nullable=False),
    Column("shard", SmallInteger, nullable=False),
    Column("status", sorted_text(), nullable=False),
    Column("runs", BigInteger, nullable=False),
    PrimaryKeyConstraint("experiment_id", "shard", "status"),
)

run_params = Table(
    "run_params",
    METADATA,
    project_column(),
    Column("experiment_id", HexId, nullable=False),
    Column("run_id", HexId, ForeignKey("tracking.runs.id"), nullable=False),
    Column("key", sorted_text(), nullable=False),
    Column("kind", Text, nullable=False),
    Column("text", sorted_text(), nullable=False),
    Column("number", Double),
    PrimaryKeyConstraint("run_id", "key"),
)
_PARAM = (run_params.c.project_id, run_params.c.experiment_id, run_params.c.key)
Index(
    "run_params_number_idx",
    *_PARAM,
    run_params.c.number,
    run_params.c.run_id,
    postgresql_where=run_params.c.number.is_not(None),
)
Index("run_params_text_idx", *_PARAM, func.left(run_params.c.text, SORTED_LENGTH), run_params.c.run_id)

run_tags = Table(
    "run_tags",
    METADATA,
    project_column(),
    Column("experiment_id", HexId, nullable=False),
    Column("run_id", HexId, ForeignKey("tracking.runs.id"), nullable=False),
    Column("key", sorted_text(), nullable=False),
    Column("value", sorted_text(), nullable=False),
    PrimaryKeyConstraint("run_id", "key"),
)
Index(
    "run_tags_value_idx",
    run_tags.c.project_id,
    run_tags.c.experiment_id,
    run_tags.c.key,
    func.left(run_tags.c.value, SORTED_LENGTH),
    run_tags.c.run_id,
)

run_artifacts = Table(
    "run_artifacts",
    METADATA,
    project_column(),
    Column("run_id", HexId, ForeignKey("tracking.runs.id"), nullable=False),
    # A name and nothing else: no storage key and no file path is ever made of it.
    Column("path", sorted_text(), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    created_column(),
    PrimaryKeyConstraint("run_id", "path"),
    Index("run_artifacts_content_idx", "project_id", "sha256"),
)

metric_keys = Table(
    "metric_keys",
    METADATA,
    Column("id", Integer, Identity(always=True), primary_key=True),
    project_column(),
    Column("name", sorted_text(), nullable=False),
    # Canonical JSON such as {"split":"val"}; empty for a key without one. It is compared as a whole and never looked into.
    Column("context", sorted_text(), nullable=False, server_default=""),
    UniqueConstraint("project_id", "name", "context"),
)

metric_goals = Table(
    "metric_goals",
    METADATA,
    project_column(),
    Column("experiment_id", HexId, ForeignKey("tracking.experiments.id", ondelete="CASCADE"), nullable=False),
    Column("key", sorted_text(), nullable=False),
    Column("goal", Text, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("experiment_id", "key"),
    CheckConstraint("goal IN ('minimize', 'maximize')", name="goal"),
    Index("metric_goals_key_idx", "project_id", "key"),
)

run_metrics = Table(
    "run_metrics",
    METADATA,
    project_column(),
    Column("experiment_id", HexId, nullable=False),
    Column("run_id", HexId, nullable=False),
    Column("key_id", Integer, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("last_timestamp", UtcTime, nullable=False),
    Column("last_value", Double, nullable=False),
    Column("min_value", Double),
    Column("max_value", Double),
    Column("total", Double, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("nan_count", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "key_id"),
    Index("run_metrics_value_idx", "project_id", "experiment_id", "key_id", "last_value", "run_id"),
)

# No foreign key: it would cost a look-up for each point. The one statement that inserts here joins the live runs.
metric_points = Table(
    "metric_points",
    METADATA,
    project_column(),
    Column("run_id", HexId, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("timestamp", UtcTime, nullable=False),
    Column("value", Double, nullable=False),
    Column("key_id", Integer, nullable=False),
    Column("arrived", Boolean, nullable=False),
    PrimaryKeyConstraint("run_id", "key_id", "step", "timestamp", "value"),
    Index(
        "metric_points_arrived_key",
        "run_id",
        "key_id",
        "step",
        "value",
        unique=True,
        postgresql_where=text("arrived"),
    ),
)

# What charts need of many points; see repository/segments.py. Whatever removes the metric removes these with it.
metric_segments = Table(
    "metric_segments",
    METADATA,
    project_column(),
    Column("run_id", HexId, nullable=False),
    Column("key_id", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("points", Integer, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("last_timestamp", UtcTime, nullable=False),
    Column("last_value", Double, nullable=False),
    Column("blocks", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "key_id", "number"),
    ForeignKeyConstraint(
        ["run_id", "key_id"], ["tracking.run_metrics.run_id", "tracking.run_metrics.key_id"], ondelete="CASCADE"
    ),
)

# Who writes a run, apart from the run: a heartbeat then touches one narrow row, and none of the indexes of `runs`.
run_leases = Table(
    "run_leases",
    METADATA,
    project_column(),
    Column("run_id", HexId, ForeignKey("tracking.runs.id"), primary_key=True),
    Column("writer", Text, nullable=False),
    Column("taken_at", UtcTime, nullable=False),
    Column("beat_at", UtcTime, nullable=False),
    Column("heartbeat_seconds", Integer),
    Column("due_at", UtcTime),
    Index("run_leases_due_idx", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

# What is left to do after a change, when statements that began before it have ended. No foreign key: the run may be gone.
# A run that was purged may come into another project under its id, and be purged there too. The key has no project, since
# replicas of the version before insert ON CONFLICT (run_id, kind): a second project's chore has its project in its kind.
run_chores = Table(
    "run_chores",
    METADATA,
    project_column(),
    Column("run_id", HexId, nullable=False),
    Column("kind", Text, nullable=False),
    Column("since", UtcTime, nullable=False),
    PrimaryKeyConstraint("run_id", "kind"),
    Index(None, "since"),
)

run_comments = Table(
    "run_comments",
    METADATA,
    id_column(),
    project_column(),
    Column("run_id", HexId, ForeignKey("tracking.runs.id"), nullable=False),
    Column("author_id", HexId, nullable=False),
    Column("author", Text, nullable=False),
    Column("text", Text, nullable=False),
    json_column("mentions", default="[]"),
    created_column(),
    Column("edited_at", UtcTime),
    Index(None, "run_id", "id"),
)

saved_views = Table(
    "saved_views",
    METADATA,
    id_column(),
    project_column(),
    Column("experiment_id", HexId, ForeignKey("tracking.experiments.id"), nullable=False),
    Column("name", sorted_text(), nullable=False),
    Column("filter", Text, nullable=False),
    json_column("order_by", default="[]"),
    json_column("columns", default="[]"),
    json_column("charts", default="[]"),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    UniqueConstraint("experiment_id", "name"),
)

experiment_numbers = Table(
    "experiment_numbers",
    METADATA,
    project_column(),
    Column("last", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id"),
)

datasets = Table(
    "datasets",
    METADATA,
    id_column(),
    project_column(),
    Column("name", sorted_text(), nullable=False),
    Column("digest", sorted_text(), nullable=False),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
    created_column(),
    UniqueConstraint("project_id", "name", "digest"),
)

run_inputs = Table(
    "run_inputs",
    METADATA,
    project_column(),
    Column("experiment_id", HexId, nullable=False),
    Column("run_id", HexId, ForeignKey("tracking.runs.id", ondelete="CASCADE"), nullable=False),
    Column("dataset_id", HexId, ForeignKey("tracking.datasets.id"), nullable=False),
    Column("context", sorted_text()),
    json_column("tags"),
    created_column(),
    PrimaryKeyConstraint("run_id", "dataset_id"),
    Index("run_inputs_dataset_idx", "project_id", "dataset_id", "run_id"),
    Index("run_inputs_experiment_idx", "project_id", "experiment_id", "dataset_id"),
)

logged_models = Table(
    "logged_models",
    METADATA,
    id_column(),
    project_column(),
    Column("experiment_id", HexId, ForeignKey("tracking.experiments.id"), nullable=False),
    Column("name", sorted_text(), nullable=False),
    Column("status", sorted_text(), nullable=False),
    Column("model_type", sorted_text()),
    Column("source_run_id", HexId),
    json_column("params"),
    json_column("tags"),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    CheckConstraint("status IN ('PENDING', 'READY', 'UPLOAD_FAILED')", name="status"),
    Index("logged_models_experiment_idx", "project_id", "experiment_id", "id"),
    Index("logged_models_run_idx", "project_id", "source_run_id"),
)

run_models = Table(
    "run_models",
    METADATA,
    project_column(),
    Column("run_id", HexId, ForeignKey("tracking.runs.id", ondelete="CASCADE"), nullable=False),
    Column("model_id", HexId, ForeignKey("tracking.logged_models.id", ondelete="CASCADE"), nullable=False),
    Column("direction", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    CheckConstraint("direction IN ('input', 'output')", name="direction"),
    PrimaryKeyConstraint("run_id", "model_id", "direction"),
    Index("run_models_model_idx", "project_id", "model_id"),
)

# The points themselves are the run's; here is which model, and which data, a point speaks of.
logged_model_metrics = Table(
    "logged_model_metrics",
    METADATA,
    project_column(),
    Column("model_id", HexId, ForeignKey("tracking.logged_models.id", ondelete="CASCADE"), nullable=False),
    Column("run_id", HexId, nullable=False),
    Column("key", sorted_text(), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("timestamp", UtcTime, nullable=False),
    Column("value", Double, nullable=False),
    Column("dataset_name", sorted_text()),
    Column("dataset_digest", sorted_text()),
    PrimaryKeyConstraint("model_id", "key", "run_id", "step", "timestamp", "value"),
    Index("logged_model_metrics_run_idx", "project_id", "run_id"),
)

logged_model_artifacts = Table(
    "logged_model_artifacts",
    METADATA,
    project_column(),
    Column("model_id", HexId, ForeignKey("tracking.logged_models.id", ondelete="CASCADE"), nullable=False),
    Column("path", sorted_text(), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    created_column(),
    PrimaryKeyConstraint("model_id", "path"),
    Index("logged_model_artifacts_content_idx", "project_id", "sha256"),
)

# Uploads in parts of the version before, which may still begin some while this one starts; they are in `core` now.
uploads = Table(
    "uploads",
    METADATA,
    id_column(),
    project_column(),
    Column("target", Text, nullable=False),
    Column("parts", Integer, nullable=False),
    created_column(),
    Index("uploads_created_idx", "created_at"),
)

# What was brought in from elsewhere, and by which content it is known again. No foreign key: it is of three kinds.
# `left` is what its end still has to do, such as hiding a run that was deleted where it came from.
imports = Table(
    "imports",
    METADATA,
    project_column(),
    Column("kind", Text, nullable=False),
    Column("target_id", HexId, nullable=False),
    Column("source_id", HexId, nullable=False),
    Column("digest", Text, nullable=False),
    json_column("left"),
    Column("begun_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    CheckConstraint("kind IN ('experiment', 'run', 'model')", name="kind"),
    PrimaryKeyConstraint("target_id", "kind"),
    Index("imports_source_idx", "project_id", "kind", "source_id"),
)

# A sweep is a run with a search space: its children are the trials. What it finds is read from those runs.
sweeps = Table(
    "sweeps",
    METADATA,
    Column("id", HexId, ForeignKey("tracking.runs.id", ondelete="CASCADE"), primary_key=True),
    project_column(),
    Column("method", Text, nullable=False),
    # Text, and not jsonb: a grid is walked in the order in which its parameters were written.
    Column("parameters", Text, nullable=False),
    json_column("objectives", default="[]"),
    json_column("pruner"),
    Column("max_trials", Integer),
    Column("timeout_seconds", Double),
    Column("deadline", UtcTime),
    Column("max_attempts", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("startup_trials", Integer, nullable=False),
    Column("heartbeat_seconds", Integer, nullable=False),
    # How many points there are to try: the cells of the grid, or so many trials.
    Column("size", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
    Index("sweeps_project_idx", "project_id", "id"),
)

# Which run is which attempt at which point. No parameter and no value stands here.
sweep_trials = Table(
    "sweep_trials",
    METADATA,
    project_column(),
    Column("sweep_id", HexId, ForeignKey("tracking.sweeps.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("run_id", HexId, ForeignKey("tracking.runs.id", ondelete="CASCADE"), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("outcome", Text),
    CheckConstraint("outcome IN ('COMPLETE', 'PRUNED', 'FAILED')", name="outcome"),
    PrimaryKeyConstraint("sweep_id", "number"),
    UniqueConstraint("run_id"),
    UniqueConstraint("sweep_id", "slot", "attempt"),
)

"""The tables of the Pipeline Orchestrator, in the PostgreSQL schema `pipelines`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from mlops_platform.contracts.pipelines import PipelineRunState, TaskRunState
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
from mlops_platform.pipelines.domain.states import CLAIMABLE_TASKS, OPEN_RUNS, OPEN_TASKS

METADATA = service_metadata("pipelines")

# The item of a task run that is not one of a fan-out: part of a unique key, where NULL would be distinct from itself.
NO_ITEM = -1


def in_states(
    column: ColumnElement[str], states: "frozenset[TaskRunState] | frozenset[PipelineRunState]"
) -> ColumnElement[bool]:
    """The condition with its values written into the statement: a partial index is not found through parameters."""
    return column.in_([literal_column(f"'{state.value}'") for state in sorted(states)])


pipelines = Table(
    "pipelines",
    METADATA,
    id_column(),
    project_column(),
    Column("name", sorted_text(), nullable=False),
    Column("description", Text),
    # The version posted last, which may be an older one posted again.
    Column("current_version", Integer, nullable=False),
    Column("version_count", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    UniqueConstraint("project_id", "name"),
)

pipeline_versions = Table(
    "pipeline_versions",
    METADATA,
    id_column(),
    project_column(),
    Column("pipeline_id", HexId, ForeignKey("pipelines.pipelines.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    json_column("parameters"),
    Column("task_count", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
    UniqueConstraint("pipeline_id", "version"),
    UniqueConstraint("pipeline_id", "digest"),
)

# A version is immutable, so its tasks and edges are written once and read by position.
pipeline_tasks = Table(
    "pipeline_tasks",
    METADATA,
    project_column(),
    Column("version_id", HexId, ForeignKey("pipelines.pipeline_versions.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", sorted_text(), nullable=False),
    Column("module", sorted_text(), nullable=False),
    Column("upstream_count", Integer, nullable=False),
    Column("cpus", Float, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    json_column("spec"),
    PrimaryKeyConstraint("version_id", "position"),
)

pipeline_edges = Table(
    "pipeline_edges",
    METADATA,
    project_column(),
    Column("version_id", HexId, ForeignKey("pipelines.pipeline_versions.id"), nullable=False),
    Column("upstream", Integer, nullable=False),
    Column("downstream", Integer, nullable=False),
    PrimaryKeyConstraint("version_id", "upstream", "downstream"),
    Index(None, "version_id", "downstream"),
)

schedules = Table(
    "schedules",
    METADATA,
    id_column(),
    project_column(),
    Column("pipeline_id", HexId, ForeignKey("pipelines.pipelines.id"), nullable=False, unique=True),
    Column("cron", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("catch_up", Text, nullable=False),
    Column("catch_up_limit", Integer, nullable=False),
    Column("overlap", Text, nullable=False),
    json_column("parameters"),
    Column("is_paused", Boolean, nullable=False, server_default="false"),
    Column("next_at", UtcTime),
    Column("last_at", UtcTime),
    # Whose runs these are: the principal that set the schedule, with no more than that credential could do.
    Column("principal_id", HexId, nullable=False),
    Column("principal_name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Index("schedules_due_idx", "next_at", postgresql_where=literal_column("NOT is_paused")),
)

pipeline_runs = Table(
    "pipeline_runs",
    METADATA,
    id_column(),
    project_column(),
    Column("pipeline_id", HexId, ForeignKey("pipelines.pipelines.id"), nullable=False),
    Column("version_id", HexId, ForeignKey("pipelines.pipeline_versions.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("schedule_id", HexId),
    Column("scheduled_for", UtcTime),
    json_column("parameters"),
    Column("principal_id", HexId, nullable=False),
    Column("principal_name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    created_column(),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    # Of the request that started it: its tasks belong to the same trace.
    Column("trace_parent", Text),
    # One run for each instant of a schedule, however many schedulers are alive.
    UniqueConstraint("schedule_id", "scheduled_for"),
    Index(None, "project_id", "id"),
    Index(None, "pipeline_id", "id"),
)
Index(
    "pipeline_runs_open_idx",
    pipeline_runs.c.schedule_id,
    pipeline_runs.c.id,
    postgresql_where=in_states(pipeline_runs.c.state, OPEN_RUNS),
)

task_runs = Table(
    "task_runs",
    METADATA,
    id_column(),
    project_column(),
    Column("run_id", HexId, ForeignKey("pipelines.pipeline_runs.id"), nullable=False),
    Column("version_id", HexId, nullable=False),
    Column("position", Integer, nullable=False),
    Column("item", Integer, nullable=False),
    Column("item_value", JSONB(none_as_null=True)),
    Column("task", sorted_text(), nullable=False),
    Column("state", Text, nullable=False),
    # How many of those that this one waits for have not succeeded; for an expanded fan-out, how many items are open.
    Column("pending", Integer, nullable=False),
    # The number of the latest attempt: the fence. Whoever comes with another number is too late.
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("module", sorted_text(), nullable=False),
    Column("cpus", Float, nullable=False),
    Column("memory_mb", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("not_before", UtcTime),
    Column("worker_id", HexId),
    Column("worker", Text),
    Column("lease_until", UtcTime),
    Column("result", JSONB(none_as_null=True)),
    Column("error", JSONB(none_as_null=True)),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    UniqueConstraint("run_id", "position", "item"),
    Index(None, "run_id", "task"),
    Index("task_runs_leased_idx", "lease_until", postgresql_where=literal_column("lease_until IS NOT NULL")),
)
Index(
    "task_runs_claimable_idx",
    task_runs.c.not_before,
    task_runs.c.id,
    postgresql_where=in_states(task_runs.c.state, CLAIMABLE_TASKS),
)
Index("task_runs_open_idx", task_runs.c.run_id, postgresql_where=in_states(task_runs.c.state, OPEN_TASKS))

attempts = Table(
    "attempts",
    METADATA,
    project_column(),
    Column("task_run_id", HexId, ForeignKey("pipelines.task_runs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("worker_id", HexId, nullable=False),
    Column("worker", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime),
    Column("exit_code", Integer),
    Column("error", JSONB(none_as_null=True)),
    PrimaryKeyConstraint("task_run_id", "number"),
)

# Lines in chunks: a row a line would cost more than the line.
task_logs = Table(
    "task_logs",
    METADATA,
    project_column(),
    Column("task_run_id", HexId, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("first_line", BigInteger, nullable=False),
    Column("line_count", Integer, nullable=False),
    # [[milliseconds since 1970, stream, text], ...]
    json_column("lines", default="[]"),
    PrimaryKeyConstraint("task_run_id", "attempt", "first_line"),
)

# The service tokens that workers hold for a run, so that they end with it.
run_tokens = Table(
    "run_tokens",
    METADATA,
    project_column(),
    Column("run_id", HexId, ForeignKey("pipelines.pipeline_runs.id"), nullable=False),
    Column("credential_id", HexId, nullable=False),
    PrimaryKeyConstraint("run_id", "credential_id"),
)

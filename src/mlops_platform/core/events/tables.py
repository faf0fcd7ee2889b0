"""The outbox and those who read it."""

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from mlops_platform.core.db.schema import CORE, HexId, UtcTime, created_column, id_column, project_column

events = Table(
    "events",
    CORE,
    id_column(),
    # Order of insertion; transactions commit in another order, so nobody reads by it.
    Column("sequence", BigInteger, Identity(always=True), nullable=False),
    # Given after the commit, one by one: whoever reads by position misses nothing.
    Column("position", BigInteger, unique=True),
    project_column(),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    Column("occurred_at", UtcTime, nullable=False),
    Column("principal_id", HexId),
    Column("trace_parent", Text),
    Index("events_unplaced_idx", "sequence", postgresql_where=text("position IS NULL")),
    Index("events_project_position_idx", "project_id", "position"),
)

event_cursors = Table(
    "event_cursors",
    CORE,
    Column("consumer", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("retry_at", UtcTime),
)

event_dead_letters = Table(
    "event_dead_letters",
    CORE,
    Column("consumer", Text, primary_key=True),
    Column("event_id", HexId, primary_key=True),
    Column("error", Text, nullable=False),
    Column("failed_at", UtcTime, nullable=False),
)

webhooks = Table(
    "webhooks",
    CORE,
    id_column(),
    project_column(),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("is_active", Boolean, nullable=False, server_default="true"),
    created_column(),
    Column("deleted_at", UtcTime),
    Index(None, "project_id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    CORE,
    id_column(),
    project_column(),
    Column("webhook_id", HexId, nullable=False),
    Column("event_id", HexId, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UtcTime),
    Column("delivered_at", UtcTime),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("is_dead", Boolean, nullable=False, server_default="false"),
    created_column(),
    Index("webhook_deliveries_once_idx", "webhook_id", "event_id", unique=True),
    Index(
        "webhook_deliveries_due_idx",
        "next_attempt_at",
        postgresql_where=text("delivered_at IS NULL AND NOT is_dead"),
    ),
)

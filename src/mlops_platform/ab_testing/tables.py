"""Tables of A/B Testing.

They answer three questions. Which test routes whom: `ab_tests` with its current row of `allocations`; `revisions` counts
the changes of a project, so that a replica sees in one small read whether its snapshot is stale. Who met what: one row of
`exposures` per unit and variant, however often they met. What came of it: one row of `outcomes` per identity.

Exposures and outcomes have no foreign key to their test: tests are never erased, and the check would be paid per row.
A variant is known by its position, which never changes.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
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

METADATA = service_metadata("ab_testing")

ab_tests = Table(
    "ab_tests",
    METADATA,
    id_column(),
    project_column(),
    Column("name", sorted_text(), nullable=False),
    Column("description", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("unit_type", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("control", Text, nullable=False),
    json_column("variants", default="[]"),
    Column("traffic_share", Double, nullable=False),
    Column("allocation_version", Integer, nullable=False),
    Column("has_open_metrics", Boolean, nullable=False),
    Column("winner", Text),
    Column("note", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    created_column(),
    Column("updated_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("stopped_at", UtcTime),
    Column("deleted_at", UtcTime),
    CheckConstraint("status IN ('draft', 'running', 'paused', 'stopped', 'archived')", name="status"),
)
Index(
    "ab_tests_project_id_name_key",
    ab_tests.c.project_id,
    ab_tests.c.name,
    unique=True,
    postgresql_where=text("deleted_at IS NULL"),
)

allocations = Table(
    "allocations",
    METADATA,
    project_column(),
    Column("test_id", HexId, nullable=False),
    Column("version", Integer, nullable=False),
    json_column("weights", default="[]"),
    Column("traffic_share", Double, nullable=False),
    json_column("ends", default="[]"),
    json_column("owners", default="[]"),
    created_column(),
    PrimaryKeyConstraint("project_id", "test_id", "version"),
    ForeignKeyConstraint(["test_id"], ["ab_testing.ab_tests.id"]),
)

outcome_metrics = Table(
    "outcome_metrics",
    METADATA,
    project_column(),
    Column("test_id", HexId, nullable=False),
    Column("name", sorted_text(), nullable=False),
    Column("kind", Text, nullable=False),
    Column("goal", Text, nullable=False),
    Column("is_primary", Boolean, nullable=False),
    PrimaryKeyConstraint("project_id", "test_id", "name"),
    ForeignKeyConstraint(["test_id"], ["ab_testing.ab_tests.id"]),
    CheckConstraint("kind IN ('proportion', 'mean', 'count')", name="kind"),
    CheckConstraint("goal IN ('increase', 'decrease')", name="goal"),
)

exposures = Table(
    "exposures",
    METADATA,
    project_column(),
    Column("test_id", HexId, nullable=False),
    Column("unit_id", sorted_text(), nullable=False),
    Column("variant", SmallInteger, nullable=False),
    Column("allocation_version", Integer, nullable=False),
    Column("first_exposed_at", UtcTime, nullable=False),
    Column("last_exposed_at", UtcTime, nullable=False),
    Column("exposures", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "test_id", "unit_id", "variant"),
)

outcomes = Table(
    "outcomes",
    METADATA,
    project_column(),
    Column("test_id", HexId, nullable=False),
    Column("identity", HexId, nullable=False),
    Column("unit_id", sorted_text(), nullable=False),
    Column("metric", sorted_text(), nullable=False),
    Column("value", Double, nullable=False),
    Column("occurred_at", UtcTime, nullable=False),
    Column("recorded_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("project_id", "test_id", "identity"),
)
Index("outcomes_unit_idx", outcomes.c.project_id, outcomes.c.test_id, outcomes.c.unit_id)

revisions = Table(
    "revisions",
    METADATA,
    Column("project_id", HexId, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

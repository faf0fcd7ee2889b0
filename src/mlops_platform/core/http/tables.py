"""What HTTP itself keeps: the answers to idempotency keys."""

from sqlalchemy import Column, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from mlops_platform.core.db.schema import CORE, UtcTime, project_column

idempotency_keys = Table(
    "idempotency_keys",
    CORE,
    # SHA-256 over principal, project, method, path and key.
    Column("scope", LargeBinary, primary_key=True),
    project_column(),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", Text),
    Column("expires_at", UtcTime, nullable=False),
    Index(None, "expires_at"),
)

"""Who does which background duty until when."""

from sqlalchemy import Column, Integer, Table, Text

from mlops_platform.core.db.schema import CORE, UtcTime

duties = Table(
    "duties",
    CORE,
    Column("name", Text, primary_key=True),
    Column("claimed_by", Text),
    Column("claimed_until", UtcTime),
    Column("due_at", UtcTime, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
)

"""The audit record: entries that nobody edits, and the hash chain that shows it if somebody did."""

from sqlalchemy import BigInteger, Column, Identity, Index, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from mlops_platform.core.db.schema import CORE, HexId, UtcTime, id_column

# The application role has INSERT and SELECT on these three; a trigger refuses UPDATE, DELETE and TRUNCATE to everyone.
audit_entries = Table(
    "audit_entries",
    CORE,
    id_column(),
    Column("sequence", BigInteger, Identity(always=True), nullable=False, unique=True),
    Column("project_id", HexId),
    Column("occurred_at", UtcTime, nullable=False),
    Column("principal_id", HexId),
    Column("principal_name", Text, nullable=False),
    Column("credential_id", HexId),
    Column("on_behalf_of", Text),
    Column("action", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("before_digest", Text),
    Column("after_digest", Text),
    Column("detail", JSONB),
    Column("request_id", Text),
    Index(None, "project_id", "sequence"),
)

audit_chain = Table(
    "audit_chain",
    CORE,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("entry_id", HexId, nullable=False, unique=True),
    Column("entry_digest", LargeBinary, nullable=False),
    Column("chain_hash", LargeBinary, nullable=False),
)

audit_heads = Table(
    "audit_heads",
    CORE,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("chain_hash", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("sealed_at", UtcTime, nullable=False),
)

# Entries that wait for their place in the chain: written with the entry, removed by the sealer.
audit_pending = Table("audit_pending", CORE, Column("entry_id", HexId, primary_key=True))

"""Projects, principals, what they may do, and the credentials they hold."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from mlops_platform.core.db.schema import CORE, HexId, UtcTime, created_column, id_column, project_column, sorted_text

projects = Table(
    "projects",
    CORE,
    id_column(),
    Column("name", sorted_text(), nullable=False, unique=True),
    Column("description", Text, nullable=False, server_default=""),
    created_column(),
    Column("archived_at", UtcTime),
)

principals = Table(
    "principals",
    CORE,
    id_column(),
    Column("name", sorted_text(), nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    created_column(),
    Column("disabled_at", UtcTime),
)

role_bindings = Table(
    "role_bindings",
    CORE,
    id_column(),
    Column("principal_id", HexId, nullable=False),
    project_column(),
    Column("role", Text, nullable=False),
    Column("pattern", Text, nullable=False, server_default="*"),
    created_column(),
    Column("created_by", HexId),
    Index("role_bindings_once_idx", "principal_id", "project_id", "role", "pattern", unique=True),
    Index(None, "project_id"),
)

# One table for both kinds: a service token is a signed statement about its row, so that it can be revoked like a key.
credentials = Table(
    "credentials",
    CORE,
    id_column(),
    Column("kind", Text, nullable=False),
    Column("principal_id", HexId, nullable=False),
    # A credential is bound to one project, or to none: then the request names it.
    Column("project_id", HexId),
    Column("name", Text, nullable=False),
    # HMAC-SHA256 of the key with the server's pepper; null for tokens, which are found by id.
    Column("digest", LargeBinary, unique=True),
    Column("hint", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("on_behalf_of", Text),
    created_column(),
    Column("created_by", HexId),
    Column("expires_at", UtcTime),
    Column("last_used_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("replaced_by", HexId),
    # The token with which it was made, or what that token had made: it ends with all of these.
    Column("made_with", HexId),
    Index("credentials_made_with_idx", "made_with", postgresql_where=text("made_with IS NOT NULL")),
    Index("credentials_principal_idx", "principal_id"),
    Index("credentials_project_idx", "project_id", "id", postgresql_where=text("revoked_at IS NULL")),
)

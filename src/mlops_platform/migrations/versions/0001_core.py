"""core"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from mlops_platform.migrations import schemas

revision = "0001_core"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    schemas.create_service_schema("core")
    schemas.show_revision()
    op.create_table(
        "audit_chain",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("entry_digest", sa.LargeBinary(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("audit_chain_pkey")),
        sa.UniqueConstraint("entry_id", name=op.f("audit_chain_entry_id_key")),
        schema="core",
    )
    op.create_table(
        "audit_entries",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("principal_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("principal_name", sa.Text(), nullable=False),
        sa.Column("credential_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("on_behalf_of", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("before_digest", sa.Text(), nullable=True),
        sa.Column("after_digest", sa.Text(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_entries_pkey")),
        sa.UniqueConstraint("sequence", name=op.f("audit_entries_sequence_key")),
        schema="core",
    )
    op.create_index(
        op.f("audit_entries_project_id_sequence_idx"),
        "audit_entries",
        ["project_id", "sequence"],
        unique=False,
        schema="core",
    )
    op.create_table(
        "audit_heads",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("audit_heads_pkey")),
        schema="core",
    )
    op.create_table(
        "audit_pending",
        sa.Column("entry_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("audit_pending_pkey")),
        schema="core",
    )
    op.create_table(
        "blob_references",
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("blob_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "holder", name=op.f("blob_references_pkey")),
        schema="core",
    )
    op.create_index(op.f("blob_references_blob_id_idx"), "blob_references", ["blob_id"], unique=False, schema="core")
    op.create_table(
        "blobs",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("is_encrypted", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("blobs_pkey")),
        schema="core",
    )
    op.create_index(
        "blobs_content_idx",
        "blobs",
        ["project_id", "sha256"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("state = 'stored'"),
    )
    op.create_index("blobs_created_idx", "blobs", ["created_at"], unique=False, schema="core")
    op.create_table(
        "credentials",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("principal_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("on_behalf_of", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replaced_by", postgresql.UUID(as_uuid=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("credentials_pkey")),
        sa.UniqueConstraint("digest", name=op.f("credentials_digest_key")),
        schema="core",
    )
    op.create_index("credentials_principal_idx", "credentials", ["principal_id"], unique=False, schema="core")
    op.create_index(
        "credentials_project_idx",
        "credentials",
        ["project_id", "id"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    op.create_table(
        "duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("duties_pkey")),
        schema="core",
    )
    op.create_table(
        "event_cursors",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("consumer", name=op.f("event_cursors_pkey")),
        schema="core",
    )
    op.create_table(
        "event_dead_letters",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("event_dead_letters_pkey")),
        schema="core",
    )
    op.create_table(
        "events",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("principal_id", postgresql.UUID(as_uuid=True), nullable=True),
        sa.Column("trace_parent", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("events_pkey")),
        sa.UniqueConstraint("position", name=op.f("events_position_key")),
        schema="core",
    )
    op.create_index("events_project_position_idx", "events", ["project_id", "position"], unique=False, schema="core")
    op.create_index(
        "events_unplaced_idx",
        "events",
        ["sequence"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("position IS NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.LargeBinary(), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("idempotency_keys_pkey")),
        schema="core",
    )
    op.create_index(
        op.f("idempotency_keys_expires_at_idx"), "idempotency_keys", ["expires_at"], unique=False, schema="core"
    )
    op.create_table(
        "principals",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("principals_pkey")),
        sa.UniqueConstraint("name", name=op.f("principals_name_key")),
        schema="core",
    )
    op.create_table(
        "projects",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("projects_pkey")),
        sa.UniqueConstraint("name", name=op.f("projects_name_key")),
        schema="core",
    )
    op.create_table(
        "role_bindings",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("principal_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("pattern", sa.Text(), server_default="*", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", postgresql.UUID(as_uuid=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("role_bindings_pkey")),
        schema="core",
    )
    op.create_index(
        "role_bindings_once_idx",
        "role_bindings",
        ["principal_id", "project_id", "role", "pattern"],
        unique=True,
        schema="core",
    )
    op.create_index(op.f("role_bindings_project_id_idx"), "role_bindings", ["project_id"], unique=False, schema="core")
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("webhook_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("event_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("is_dead", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_deliveries_pkey")),
        schema="core",
    )
    op.create_index(
        "webhook_deliveries_due_idx",
        "webhook_deliveries",
        ["next_attempt_at"],
        unique=False,
        schema="core",
        postgresql_where=sa.text("delivered_at IS NULL AND NOT is_dead"),
    )
    op.create_index(
        "webhook_deliveries_once_idx", "webhook_deliveries", ["webhook_id", "event_id"], unique=True, schema="core"
    )
    op.create_table(
        "webhooks",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("project_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("webhooks_pkey")),
        schema="core",
    )
    op.create_index(op.f("webhooks_project_id_idx"), "webhooks", ["project_id"], unique=False, schema="core")
    for table in ("core.audit_entries", "core.audit_chain", "core.audit_heads"):
        schemas.make_append_only(table)


def downgrade() -> None:
    op.drop_index(op.f("webhooks_project_id_idx"), table_name="webhooks", schema="core")
    op.drop_table("webhooks", schema="core")
    op.drop_index("webhook_deliveries_once_idx", table_name="webhook_deliveries", schema="core")
    op.drop_index(
        "webhook_deliveries_due_idx",
        table_name="webhook_deliveries",
        schema="core",
        postgresql_where=sa.text("delivered_at IS NULL AND NOT is_dead"),
    )
    op.drop_table("webhook_deliveries", schema="core")
    op.drop_index(op.f("role_bindings_project_id_idx"), table_name="role_bindings", schema="core")
    op.drop_index("role_bindings_once_idx", table_name="role_bindings", schema="core")
    op.drop_table("role_bindings", schema="core")
    op.drop_table("projects", schema="core")
    op.drop_table("principals", schema="core")
    op.drop_index(op.f("idempotency_keys_expires_at_idx"), table_name="idempotency_keys", schema="core")
    op.drop_table("idempotency_keys", schema="core")
    op.drop_index("events_unplaced_idx", table_name="events", schema="core", postgresql_where=sa.text("position IS NULL"))
    op.drop_index("events_project_position_idx", table_name="events", schema="core")
    op.drop_table("events", schema="core")
    op.drop_table("event_dead_letters", schema="core")
    op.drop_table("event_cursors", schema="core")
    op.drop_table("duties", schema="core")
    op.drop_index(
        "credentials_project_idx", table_name="credentials", schema="core", postgresql_where=sa.text("revoked_at IS NULL")
    )
    op.drop_index("credentials_principal_idx", table_name="credentials", schema="core")
    op.drop_table("credentials", schema="core")
    op.drop_index("blobs_created_idx", table_name="blobs", schema="core")
    op.drop_index("blobs_content_idx", table_name="blobs", schema="core", postgresql_where=sa.text("state = 'stored'"))
    op.drop_table("blobs", schema="core")
    op.drop_index(op.f("blob_references_blob_id_idx"), table_name="blob_references", schema="core")
    op.drop_table("blob_references", schema="core")
    op.drop_table("audit_pending", schema="core")
    op.drop_table("audit_heads", schema="core")
    op.drop_index(op.f("audit_entries_project_id_sequence_idx"), table_name="audit_entries", schema="core")
    op.drop_table("audit_entries", schema="core")
    op.drop_table("audit_chain", schema="core")

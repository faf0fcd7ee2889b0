"""Steps that migrations share: a schema of one's own, and what the application role may do in it."""

from alembic import op

APP_ROLE = "mlops_app"


def create_service_schema(name: str) -> None:
    """Make a schema whose tables, also later ones, the application role reads and writes but does not change."""
    op.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"')
    _if_app_role(
        f'GRANT USAGE ON SCHEMA "{name}" TO {APP_ROLE}',
        f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {APP_ROLE}',
        f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{name}" GRANT USAGE, SELECT ON SEQUENCES TO {APP_ROLE}',
    )


def show_revision() -> None:
    """Let the application role see at which revision the database is: each service checks it when it starts."""
    # Alembic makes its table before the first migration, and so before default privileges are granted.
    _if_app_role(f"GRANT SELECT ON core.alembic_version TO {APP_ROLE}")


def make_append_only(table: str) -> None:
    """Take UPDATE and DELETE from the application role, and refuse both, and TRUNCATE, to everyone by trigger."""
    _if_app_role(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {APP_ROLE}")
    op.execute(
        "CREATE OR REPLACE FUNCTION core.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = '42501'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION core.refuse_change()"
    )


def _if_app_role(*statements: str) -> None:
    """A deployment with one role for everything has no application role: nothing to grant."""
    body = " ".join(f"EXECUTE $statement${statement}$statement$;" for statement in statements)
    # Names and roles come from the migrations themselves.
    op.execute(f"DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN {body} END IF; END $$")

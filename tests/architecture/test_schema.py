"""The tables and their history."""

import asyncio
import subprocess
import sys

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import UniqueConstraint, pool
from sqlalchemy.ext.asyncio import create_async_engine

from mlops_platform.core.db import migrate
from mlops_platform.core.db.database import sqlalchemy_url
from mlops_platform.migrations.metadata import ALL
from tests.factories.embedded import connected

TABLES = [table for metadata in ALL for table in metadata.tables.values()]
# What belongs to no project, each with its reason.
WITHOUT_PROJECT = {
    "core.projects": "is the project",
    "core.principals": "a principal has roles in several projects",
    "core.audit_entries": "has one, which is null for what concerns the platform",
    "core.audit_chain": "one chain for the platform",
    "core.audit_heads": "one chain for the platform",
    "core.audit_pending": "one chain for the platform",
    "core.credentials": "has one, which is null when it is bound to none",
    "core.event_cursors": "a consumer reads all projects",
    "core.event_dead_letters": "follows its event",
    "core.duties": "background duties of the platform",
}


def test_no_foreign_key_crosses_a_schema():
    crossing = [
        f"{table.fullname}.{key.parent.name} -> {key.target_fullname}"
        for table in TABLES
        for key in table.foreign_keys
        if key.target_fullname.split(".")[0] != table.schema
    ]
    assert crossing == []


def test_each_table_names_its_project():
    without = {table.fullname for table in TABLES if "project_id" not in table.c or table.c.project_id.nullable}
    assert without - set(WITHOUT_PROJECT) == set()


def test_each_schema_belongs_to_one_service():
    schemas = [metadata.schema for metadata in ALL]
    assert len(schemas) == len(set(schemas))
    assert {table.schema for table in TABLES} <= set(schemas)


def test_constraints_have_names():
    unnamed = [
        table.fullname for table in TABLES for it in table.constraints if isinstance(it, UniqueConstraint) and not it.name
    ]
    assert unnamed == []


def test_the_history_is_one_line():
    script = ScriptDirectory.from_config(migrate.config())
    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1


def test_revisions_are_named_like_their_files_and_numbered_in_order():
    history = [revision.revision for revision in ScriptDirectory.from_config(migrate.config()).walk_revisions()]
    assert migrate.revisions() == history[::-1]
    assert migrate.head_revision() == history[0]


def test_a_server_that_starts_loads_nothing_that_it_may_never_need():
    heavy = ("alembic", "duckdb", "scipy", "sklearn", "pandas", "mlflow", "optuna")
    program = f"import sys, mlops_platform.server.embedded\nprint([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


class TestMigrations:
    async def run(self, dsn, function):
        engine = create_async_engine(sqlalchemy_url(dsn), poolclass=pool.NullPool)
        async with engine.connect() as connection:
            result = await connection.run_sync(function)
            await connection.commit()
        await engine.dispose()
        return result

    def differences(self, connection):
        schemas = {metadata.schema for metadata in ALL}
        options = {
            "include_schemas": True,
            "compare_type": True,
            "target_metadata": ALL,
            "include_name": lambda name, kind, _: (
                name in schemas if kind == "schema" else (kind, name) != ("table", "alembic_version")
            ),
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), ALL)  # type: ignore[arg-type]  # a list is what env.py gives too

    async def test_the_migrated_tables_are_those_of_the_code(self, database):
        assert await self.run(database.owner_dsn, self.differences) == []

    async def test_down_and_up_again_gives_the_same(self, fresh_database):
        def down_and_up(connection):
            config = migrate.config(connection)
            command.downgrade(config, "base")
            command.upgrade(config, "head")

        before = await catalogue(fresh_database.owner_dsn)
        await self.run(fresh_database.owner_dsn, down_and_up)
        assert await catalogue(fresh_database.owner_dsn) == before

    async def test_upgrading_what_is_new_changes_nothing_also_from_several_processes(self, fresh_database):
        before = await catalogue(fresh_database.owner_dsn)
        await asyncio.gather(*(migrate.upgrade(fresh_database.owner_dsn) for _ in range(3)))
        assert await catalogue(fresh_database.owner_dsn) == before


class TestRights:
    async def test_the_application_may_change_no_table(self, database):
        async with connected(database.app_dsn) as connection:
            for statement in (
                "CREATE TABLE core.x (a int)",
                "DROP TABLE core.events",
                "CREATE SCHEMA x",
                "ALTER TABLE core.events ADD x int",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)

    async def test_the_application_reads_and_writes_every_table_that_is_not_append_only(self, database):
        async with connected(database.app_dsn) as connection:
            rights = {
                table.fullname: [
                    right
                    for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
                    if await connection.fetchval("SELECT has_table_privilege($1, $2)", table.fullname, right)
                ]
                for table in TABLES
            }
        append_only = {name for name, given in rights.items() if given == ["SELECT", "INSERT"]}
        assert append_only == {"core.audit_entries", "core.audit_chain", "core.audit_heads"}
        assert all(len(given) == 4 for name, given in rights.items() if name not in append_only)


async def catalogue(dsn):
    """Columns, indexes, triggers and rights, as the database has them."""
    questions = [
        """SELECT table_schema, table_name, column_name, data_type, is_nullable, column_default, collation_name
           FROM information_schema.columns WHERE table_schema NOT LIKE ALL ('{pg_%,inf%}') ORDER BY 1, 2, 3""",
        "SELECT schemaname, indexname, indexdef FROM pg_indexes WHERE schemaname <> 'pg_catalog' ORDER BY 1, 2",
        """SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger
           WHERE NOT tgisinternal ORDER BY 1, 2""",
        """SELECT table_schema, table_name, grantee, privilege_type FROM information_schema.role_table_grants
           WHERE grantee = 'mlops_app' ORDER BY 1, 2, 3, 4""",
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace NOT IN
           (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema')) ORDER BY 1, 2""",
    ]
    async with connected(dsn) as connection:
        return [[tuple(row) for row in await connection.fetch(question)] for question in questions]

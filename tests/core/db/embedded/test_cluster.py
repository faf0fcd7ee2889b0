from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import pytest

from mlops_platform.core.db.embedded.address import EmbeddedAddress
from mlops_platform.core.db.embedded.server import EmbeddedPostgres
from tests.factories.embedded import connected, embedded_server, server_directory


@dataclass(frozen=True)
class Running:
    server: EmbeddedPostgres
    address: EmbeddedAddress
    home: Path


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One server for all the tests here: they only look at it."""
    with server_directory() as base:
        server = embedded_server(base, fsync=True)
        yield Running(server, server.start(), base / "home")
        server.stop()


async def refused(dsn: str) -> str:
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await asyncpg.connect(dsn, timeout=10)
    return str(refusal.value.sqlstate)


class TestRoles:
    @pytest.mark.parametrize("role", ["mlops_app", "mlops_owner"])
    async def test_neither_role_of_the_platform_has_a_special_power(self, running: Running, role: str) -> None:
        async with connected(running.address.app_dsn()) as connection:
            powers = await connection.fetchrow(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, "
                "EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid) FROM pg_roles WHERE rolname = $1",
                role,
            )
        assert tuple(powers) == (False,) * 6

    @pytest.mark.parametrize(
        "forbidden",
        [
            "CREATE TABLE public.mine (x int)",
            "CREATE TEMPORARY TABLE mine (x int)",
            "CREATE SCHEMA mine",
            "CREATE DATABASE mine",
            "CREATE ROLE mine",
            "SELECT rolpassword FROM pg_authid",
            "SET ROLE mlops_owner",
            "SET ROLE postgres",
            "SELECT pg_read_file('PG_VERSION')",
            "SELECT pg_reload_conf()",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "SET session_replication_role = replica",
        ],
    )
    async def test_the_application_role_may_not(self, running: Running, forbidden: str) -> None:
        async with connected(running.address.app_dsn()) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)

    @pytest.mark.parametrize(
        "forbidden",
        [
            "SELECT rolpassword FROM pg_authid",
            "CREATE ROLE mine",
            "CREATE DATABASE mine",
            "SET ROLE postgres",
            "COPY (SELECT 1) TO PROGRAM 'id'",
        ],
    )
    async def test_the_owner_role_may_not(self, running: Running, forbidden: str) -> None:
        async with connected(running.address.owner_dsn()) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)

    async def test_the_owner_migrates_and_what_it_makes_is_closed_to_the_application_until_granted(
        self, running: Running
    ) -> None:
        async with connected(running.address.owner_dsn()) as owner, connected(running.address.app_dsn()) as app:
            await owner.execute("CREATE SCHEMA registry CREATE TABLE models (name text)")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.fetch("SELECT name FROM registry.models")
            await owner.execute("GRANT USAGE ON SCHEMA registry TO mlops_app; GRANT SELECT ON registry.models TO mlops_app")
            assert await app.fetch("SELECT name FROM registry.models") == []

    async def test_nobody_enters_with_a_wrong_password_or_with_another_s(self, running: Running) -> None:
        address = running.address
        assert await refused(address.dsn("mlops_app", "wrong", database="mlops")) == "28P01"
        assert await refused(address.dsn("mlops_app", address.owner_password, database="mlops")) == "28P01"
        assert await refused(address.dsn("postgres", address.owner_password, database="postgres")) == "28P01"

    @pytest.mark.parametrize("database", ["postgres", "template1"])
    async def test_the_application_enters_no_other_database(self, running: Running, database: str) -> None:
        assert await refused(running.address.app_dsn(database)) == "42501"

    async def test_passwords_are_kept_as_scram_verifiers(self, running: Running) -> None:
        async with connected(running.server.superuser_dsn()) as superuser:
            verifiers = await superuser.fetch("SELECT rolpassword FROM pg_authid WHERE rolcanlogin")
        assert len(verifiers) == 3
        assert all(verifier.startswith("SCRAM-SHA-256$") for (verifier,) in verifiers)

    def test_passwords_show_neither_in_repr_nor_in_the_process_list_nor_in_the_log(self, running: Running) -> None:
        address = running.address
        assert running.server.pid is not None
        shown = repr(address) + " ".join(psutil.Process(running.server.pid).cmdline())
        shown += (running.home / "logs" / "postgres.log").read_text()
        assert address.app_password not in shown
        assert address.owner_password not in shown


class TestConfiguration:
    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("data_checksums", "on"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("server_encoding", "UTF8"),
            ("listen_addresses", ""),
            ("unix_socket_permissions", "0700"),
            ("TimeZone", "UTC"),
            ("max_connections", "100"),
            ("jit", "off"),
        ],
    )
    async def test_setting(self, running: Running, setting: str, value: str) -> None:
        async with connected(running.server.superuser_dsn()) as superuser:
            assert await superuser.fetchval("SELECT current_setting($1)", setting) == value

    async def test_text_sorts_alike_on_every_system(self, running: Running) -> None:
        async with connected(running.address.app_dsn()) as connection:
            locale = await connection.fetchrow(
                "SELECT datlocprovider::text, datlocale FROM pg_database WHERE datname = 'mlops'"
            )
        assert tuple(locale) == ("b", "C.UTF-8")

    async def test_every_way_in_asks_for_a_password(self, running: Running) -> None:
        async with connected(running.server.superuser_dsn()) as superuser:
            methods = await superuser.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        assert [method for (method,) in methods] == ["scram-sha-256"]

    async def test_the_configuration_cannot_be_changed_from_within(self, running: Running) -> None:
        async with connected(running.server.superuser_dsn()) as superuser:
            with pytest.raises(asyncpg.FeatureNotSupportedError):
                await superuser.execute("ALTER SYSTEM SET fsync = off")

    async def test_neither_statements_nor_rows_get_into_the_log(self, running: Running) -> None:
        async with connected(running.address.owner_dsn()) as owner:
            with pytest.raises(asyncpg.PostgresError):
                await owner.execute("SELECT 'canary-4711'::int")
            await owner.execute("CREATE TABLE once (name text PRIMARY KEY); INSERT INTO once VALUES ('canary-4711')")
            with pytest.raises(asyncpg.UniqueViolationError):
                await owner.execute("INSERT INTO once VALUES ('canary-4711')")
        assert "canary" not in (running.home / "logs" / "postgres.log").read_text()

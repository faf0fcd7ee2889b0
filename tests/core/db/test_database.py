"""Sessions over a real server that refuses, waits, breaks off and comes back."""

import asyncio
import os
import signal
import time
from contextlib import contextmanager

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from mlops_platform.core.db import migrate
from mlops_platform.core.db.database import open_database
from mlops_platform.core.db.session import translated_errors
from mlops_platform.core.errors import DependencyUnavailable, InvalidInput, StorageFull
from tests.factories.embedded import connected, embedded_server, server_directory

# The eight bytes with which a client asks for TLS: https://www.postgresql.org/docs/18/protocol-message-formats.html
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
INSERT = text("INSERT INTO core.things (n) VALUES (:n)")


@pytest.fixture(scope="module")
async def dsn(fresh_database):
    async with connected(fresh_database.owner_dsn) as connection:
        await connection.execute(
            "CREATE TABLE core.things (n int PRIMARY KEY, later int UNIQUE DEFERRABLE INITIALLY DEFERRED, word text)"
        )
    return fresh_database.app_dsn


@pytest.fixture
async def make(settings, dsn):
    opened = []

    def it(pool_size=5, **changes):
        opened.append(open_database(settings.model_copy(update=changes), dsn, pool_size=pool_size))
        return opened[-1]

    yield it
    for database in opened:
        async with database.write() as session:
            await session.execute(text("DELETE FROM core.things"))
        await database.close()


async def count(database):
    async with database.read() as session:
        return await session.scalar(text("SELECT count(*) FROM core.things"))


class TestUrls:
    async def test_what_the_driver_takes_in_a_url_the_pool_takes_too(self, settings, dsn):
        database = open_database(settings, f"{dsn}&sslmode=disable", pool_size=1)
        await database.ping()
        await database.close()
        assert await migrate.current_revision(f"{dsn}&sslmode=disable") == migrate.head_revision()

    async def test_tls_that_is_demanded_is_asked_for_before_anything_is_said(self, settings):
        heard = []

        async def refuse(reader, writer):
            heard.append(await reader.read(1024))
            writer.write(b"N")
            writer.close()

        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"postgresql://ada:secret@127.0.0.1:{port}/db?sslmode=require"
            database = open_database(settings, url, pool_size=1)
            with pytest.raises(DependencyUnavailable):
                await database.ping()
            await database.close()
        assert heard == [SSL_REQUEST]

    @pytest.mark.parametrize(
        "change", [("mlops_app:", "mlops_app:not-"), ("mlops_app:", "nobody:"), ("/test_", "/no_test_")]
    )
    async def test_a_login_that_is_refused_is_an_outage_and_not_a_crash(self, settings, dsn, change):
        """Passwords are rotated and databases moved while services run."""
        database = open_database(settings, dsn.replace(*change), pool_size=1)
        with pytest.raises(DependencyUnavailable):
            await database.ping()
        await database.close()


class TestSessions:
    async def test_a_write_is_kept_when_its_block_ends_and_undone_when_it_raises(self, make):
        database = make()
        async with database.write() as session:
            await session.execute(INSERT, {"n": 1})

        async def fail():
            async with database.write() as session:
                await session.execute(INSERT, {"n": 2})
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert await count(database) == 1

    async def test_a_reading_session_cannot_write_and_leaves_the_connection_able_to(self, make):
        database = make(pool_size=1)

        async def sly():
            async with database.read() as session:
                await session.scalar(text("INSERT INTO core.things (n) VALUES (1) RETURNING n"))

        with pytest.raises(DependencyUnavailable):
            await sly()
        async with database.write() as session:
            await session.execute(INSERT, {"n": 2})
        with pytest.raises(DependencyUnavailable):
            await sly()
        assert await count(database) == 1

    async def test_callbacks_run_after_the_commit_and_only_then(self, make):
        database, called = make(), []

        async def fail():
            async with database.write() as session:
                session.after_commit(lambda: called.append("failed"))
                await session.execute(text("INSERT INTO core.things (n, later) VALUES (1, 7), (2, 7)"))

        with pytest.raises(IntegrityError):
            await fail()
        async with database.write() as session:
            session.after_commit(lambda: called.append("kept"))
            assert called == []
        assert called == ["kept"]

    async def test_a_savepoint_fails_alone(self, make):
        database = make()

        async def twice(session):
            async with session.savepoint():
                await session.execute(INSERT, {"n": 1})

        async with database.write() as session:
            await twice(session)
            with pytest.raises(IntegrityError):
                await twice(session)
            await session.execute(INSERT, {"n": 2})
        assert await count(database) == 2

    async def test_what_is_deferred_is_written_last_and_all_of_a_kind_at_once(self, make):
        database, written = make(), []

        async def note(session, records):
            written.append((await session.scalar(text("SELECT count(*) FROM core.things")), list(records)))

        async with database.write() as session:
            session.defer(note, ["first"])
            await session.execute(INSERT, {"n": 1})
            session.defer(note, ["second", "third"])
            assert written == []
        assert written == [(1, ["first", "second", "third"])]

    async def test_what_was_deferred_within_a_part_that_failed_is_forgotten_with_it(self, make):
        database, written = make(), []

        async def note(session, records):
            written.extend(records)

        async def part(session, n):
            async with session.savepoint():
                session.defer(note, [n])
                await session.execute(INSERT, {"n": 1})

        async with database.write() as session:
            await part(session, "kept")
            with pytest.raises(IntegrityError):
                await part(session, "undone")
        assert written == ["kept"]

    async def test_a_deferred_write_that_fails_undoes_the_change(self, make):
        database = make()

        async def twice(session, records):
            await session.execute(INSERT, {"n": records[0]})

        async def change():
            async with database.write() as session:
                await session.execute(INSERT, {"n": 1})
                session.defer(twice, [1])

        with pytest.raises(IntegrityError):
            await change()
        assert await count(database) == 0

    async def test_a_setting_of_statements_that_belong_together_ends_with_them(self, make):
        database, shown = make(pool_size=1), text("SHOW enable_sort")
        async with database.read() as session:
            async with session.together():
                await session.scalar(text("SELECT set_config('enable_sort', 'off', true)"))
                assert await session.scalar(shown) == "off"
            assert await session.scalar(shown) == "on"

    async def test_a_mistake_among_statements_that_belong_together_leaves_a_connection_that_works(self, make):
        database = make(pool_size=1)

        async def wrong():
            async with database.read() as session, session.together():
                await session.scalar(text("SELECT set_config('enable_sort', 'off', true)"))
                await session.all(text("SELECT nothing FROM nowhere"))

        async def never_ends():
            async with database.read() as session, session.together():
                await session.scalar(text("SELECT pg_sleep(30)"))

        with pytest.raises(DBAPIError):
            await wrong()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(never_ends(), 0.2)
        async with database.read() as session:
            assert await session.scalar(text("SHOW enable_sort")) == "on"
            assert await session.scalar(text("SELECT count(*) FROM core.things")) == 0

    async def test_a_reading_session_cannot_write_together_either(self, make):
        database = make()

        async def sly():
            async with database.read() as session, session.together():
                await session.scalar(text("INSERT INTO core.things (n) VALUES (1) RETURNING n"))

        with pytest.raises(DependencyUnavailable):
            await sly()
        assert await count(database) == 0


class TestNotNow:
    async def test_who_waits_too_long_for_a_lock_is_told_to_come_back(self, make):
        database = make(database_lock_timeout_seconds=0.1)

        async def wait():
            async with database.write() as session:
                await session.execute(text("LOCK core.things"))

        async with database.write() as session:
            await session.execute(text("LOCK core.things"))
            with pytest.raises(DependencyUnavailable) as refused:
                await wait()
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"] == "1"
        assert "conflicting" in refused.value.detail

    async def test_a_statement_that_takes_too_long_is_cancelled(self, make):
        database = make(database_statement_timeout_seconds=0.1)

        async def slow():
            async with database.read() as session:
                await session.scalar(text("SELECT pg_sleep(10)"))

        with pytest.raises(DependencyUnavailable, match="too long"):
            await slow()
        assert await count(database) == 0

    async def test_when_all_connections_are_busy_it_waits_and_then_says_so(self, make):
        database = make(pool_size=1, database_lock_timeout_seconds=0.1)
        async with database.read():
            with pytest.raises(DependencyUnavailable, match="busy"):
                await count(database)
        assert await count(database) == 0

    async def test_a_full_disk_is_told_apart(self):
        with pytest.raises(StorageFull) as refused, translated_errors():
            raise asyncpg.DiskFullError("could not extend file")
        assert refused.value.status == 507

    @pytest.mark.parametrize(
        "error",
        [
            asyncpg.CannotConnectNowError,
            asyncpg.AdminShutdownError,
            asyncpg.TooManyConnectionsError,
            asyncpg.DeadlockDetectedError,
            asyncpg.ConnectionDoesNotExistError,
            asyncpg.SerializationError,
            asyncpg.OutOfMemoryError,
        ],
    )
    async def test_what_the_driver_says_in_a_bulk_path_is_understood_too(self, error):
        with pytest.raises(DependencyUnavailable), translated_errors():
            raise error("now not")


class TestNever:
    async def test_a_value_that_no_column_takes_is_invalid_input(self, make):
        database = make()
        for values in ({"n": 2**40, "word": "x"}, {"n": 2**70, "word": "x"}, {"n": 1, "word": "a\x00b"}):
            with pytest.raises(InvalidInput):
                await self.insert(database, values)
        assert await count(database) == 0

    async def insert(self, database, values):
        async with database.write() as session:
            await session.execute(text("INSERT INTO core.things (n, word) VALUES (:n, :word)"), values)

    async def test_a_mistake_in_a_statement_stays_a_mistake(self, make):
        database = make()

        async def wrong():
            async with database.read() as session:
                await session.all(text("SELECT nothing FROM nowhere"))

        with pytest.raises(DBAPIError):
            await wrong()

    async def test_an_error_of_the_file_system_within_the_block_is_not_taken_for_an_outage(self, make):
        database = make()

        async def fail():
            async with database.write() as session:
                await session.execute(INSERT, {"n": 1})
                raise FileNotFoundError(2, "no such artifact")

        with pytest.raises(FileNotFoundError):
            await fail()
        assert await count(database) == 0

    async def test_errors_do_not_carry_what_was_sent(self, make):
        database = make()
        async with database.write() as session:
            await session.execute(INSERT, {"n": 424242})
        with pytest.raises(IntegrityError) as refused:
            await self.insert(database, {"n": 424242, "word": "c4nary"})
        assert "c4nary" not in str(refused.value)


class TestBrokenConnections:
    async def test_one_that_breaks_in_the_middle_undoes_the_change_and_the_next_is_fine(self, make):
        database = make(pool_size=2)

        async def broken():
            async with database.write() as session:
                await session.execute(INSERT, {"n": 1})
                await session.scalar(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        with pytest.raises(DependencyUnavailable):
            await broken()
        assert await count(database) == 0

    async def test_one_that_breaks_during_the_commit_does_not_claim_that_nothing_was_changed(self, make, fresh_database):
        database = make(pool_size=1)

        async def broken():
            async with database.write() as session:
                await session.execute(INSERT, {"n": 1})
                pid = await session.scalar(text("SELECT pg_backend_pid()"))
                async with connected(fresh_database.superuser_dsn) as other:
                    await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)

        with pytest.raises(DependencyUnavailable) as refused:
            await broken()
        assert "may or may not" in str(refused.value.hint)
        assert await count(database) == 0

    async def test_a_cancelled_change_is_undone_and_gives_its_connection_back(self, make):
        database = make(pool_size=1)
        begun = asyncio.Event()

        async def change():
            async with database.write() as session:
                await session.execute(INSERT, {"n": 1})
                begun.set()
                await session.scalar(text("SELECT pg_sleep(30)"))

        task = asyncio.create_task(change())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await count(database) == 0


async def backend(session):
    return await session.scalar(text("SELECT pg_backend_pid()"))


@contextmanager
def silent(pid):
    """A backend that keeps its connection and answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class TestPastSqlalchemy:
    """Statements that go to the driver alone: what happens to their connection is told to nobody else."""

    async def test_connections_that_the_server_closed_are_replaced(self, make, fresh_database):
        database = make(pool_size=3)

        async def held(session):
            async with session() as opened:
                pid = await backend(opened)
                await all_here.wait()
                return pid

        for way in (database.write, database.read):
            all_here = asyncio.Barrier(3)
            pids = await asyncio.gather(*(held(way) for _ in range(3)))
            async with connected(fresh_database.superuser_dsn) as other:
                for pid in pids:
                    await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        for _ in range(6):
            async with database.autocommit() as session:
                assert [tuple(row) for row in await session.fetch("SELECT 1")] == [(1,)]
        for _ in range(6):
            async with database.read() as session, session.together():
                assert await session.scalar(text("SELECT 1")) == 1

    async def test_a_transaction_that_was_given_up_while_it_began_is_not_given_to_others(self, make):
        database = make(pool_size=1)
        async with database.read() as session:
            pid = await backend(session)

        async def read():
            async with asyncio.timeout(0.3), database.read() as session, session.together():
                await session.scalar(text("SELECT 1"))

        with silent(pid), pytest.raises(TimeoutError):
            await read()
        with pytest.raises(InvalidInput):
            async with database.read() as session:
                await session.scalar(text("SELECT 1 / (SELECT 0)"))
        async with database.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1

    async def test_a_statement_that_was_given_up_does_not_wait_for_a_silent_server(self, make):
        database = make(pool_size=1)
        begun = asyncio.Event()

        async def change():
            async with database.write() as session:
                pids.append(await backend(session))
                begun.set()
                await go_on.wait()
                await session.fetch("SELECT 1")

        pids: list[int] = []
        go_on = asyncio.Event()
        task = asyncio.create_task(change())
        await begun.wait()
        with silent(pids[0]):
            go_on.set()
            done, _ = await asyncio.wait([task], timeout=0.3)
            assert not done
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=10)
            assert done, "the rollback waits for a server that is silent"
        assert await count(database) == 0


class TestRestart:
    async def test_a_server_that_restarts_under_load_is_503_meanwhile_and_fine_within_ten_seconds(self, settings):
        with server_directory() as base:
            server = embedded_server(base, max_connections=40)
            address = await asyncio.to_thread(server.start)
            database = open_database(settings, address.app_dsn(), pool_size=5)
            async with connected(address.owner_dsn()) as owner:
                await owner.execute("CREATE SCHEMA t; CREATE TABLE t.acks (n bigint)")
                await owner.execute("GRANT USAGE ON SCHEMA t TO mlops_app; GRANT ALL ON t.acks TO mlops_app")
            acknowledged: list[int] = []
            outcomes: list[str] = []
            done = asyncio.Event()

            async def write(worker):
                for turn in range(10**6):
                    if done.is_set():
                        return
                    number = worker * 10**6 + turn
                    try:
                        async with database.write() as session:
                            await session.execute(text("INSERT INTO t.acks (n) VALUES (:n)"), {"n": number})
                    except DependencyUnavailable as error:
                        outcomes.append(f"503 after {error.headers['Retry-After']}")
                        await asyncio.sleep(0.01)
                    else:
                        acknowledged.append(number)
                        outcomes.append("ok")

            writers = [asyncio.create_task(write(worker)) for worker in range(8)]
            try:
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.start)
                back = time.monotonic()
                seen = len(acknowledged)
                while len(acknowledged) < seen + 50:
                    assert time.monotonic() - back < 10
                    await asyncio.sleep(0.02)
                done.set()
                await asyncio.gather(*writers)  # any other error than a 503 ends a writer, and this raises it
                async with database.read() as session:
                    kept = {row.n for row in await session.all(text("SELECT n FROM t.acks"))}
            finally:
                done.set()
                await database.close()
                await asyncio.to_thread(server.stop)
        assert set(acknowledged) <= kept
        assert [outcome for outcome in outcomes if outcome.startswith("503")]

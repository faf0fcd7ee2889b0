"""Whoever writes to the database beside the platform is found out."""

import asyncio
import contextlib
import threading

import asyncpg
import pytest

from mlops_platform.core.audit import chain
from mlops_platform.core.audit.chain import Head
from mlops_platform.core.audit.record import AuditEntry, record
from tests.factories.embedded import connected

KEY = b"k" * 32
TABLES = ["audit_entries", "audit_chain", "audit_heads"]


class Log:
    """An audit log of its own, and somebody with every right over its database."""

    def __init__(self, runtime, database):
        self.runtime, self.database = runtime, database

    async def write(self, *actions, resource="thing:1"):
        async with self.runtime.database.write() as session:
            for action in actions:
                await record(session, AuditEntry(None, action, resource, self.runtime.clock.now(), after={"a": action}))

    async def seal(self, limit=1000):
        async with self.runtime.database.write() as session:
            return await chain.seal(session, KEY, self.runtime.clock.now(), limit=limit)

    async def problems(self, anchor=None, key=KEY):
        async with self.runtime.database.read() as session:
            return (await chain.verify(session, key, anchor)).problems

    async def reset(self):
        await self.tamper("TRUNCATE core.audit_entries, core.audit_pending, core.audit_chain, core.audit_heads")

    async def tamper(self, *statements):
        async with connected(self.database.superuser_dsn) as connection:
            await connection.execute("SET session_replication_role = replica")  # triggers do not fire
            for statement in statements:
                assert not (await connection.execute(statement)).endswith(" 0"), statement


@pytest.fixture
async def empty(fresh_runtime, fresh_database):
    log = Log(fresh_runtime, fresh_database)
    await log.reset()
    return log


@pytest.fixture
async def log(empty):
    written = empty
    await written.write("a", "b", "c")
    await written.seal()
    await written.write("d", "e")
    await written.seal()
    return written


class TestIntact:
    async def test_an_untouched_chain_has_no_problems(self, log):
        head = await log.seal()
        assert head is None
        async with log.runtime.database.read() as session:
            found = await chain.verify(session, KEY)
        assert (found.sealed, found.unsealed, found.problems) == (5, 0, ())
        assert await log.problems(anchor=found.head) == ()

    async def test_what_waits_for_its_seal_is_counted_and_no_problem(self, log):
        await log.write("f")
        async with log.runtime.database.read() as session:
            found = await chain.verify(session, KEY)
        assert (found.sealed, found.unsealed, found.problems) == (5, 1, ())

    async def test_an_older_anchor_is_still_in_the_chain(self, log):
        async with log.runtime.database.read() as session:
            older = (await chain.verify(session, KEY)).head
        await log.write("f")
        await log.seal()
        assert await log.problems(anchor=older) == ()

    async def test_an_empty_log_is_intact(self, empty):
        async with empty.runtime.database.read() as session:
            assert await chain.verify(session, KEY) == chain.Verification(0, 0, None, ())

    async def test_small_and_large_batches_make_the_same_links(self, log, fresh_runtime):
        await log.write(*"fghijk")
        while await log.seal(limit=2):
            pass
        assert await log.problems() == ()

    async def test_a_chain_longer_than_a_batch_of_verify_is_walked(self, log, monkeypatch):
        monkeypatch.setattr(chain, "_VERIFY_BATCH", 2)
        assert await log.problems() == ()
        await log.tamper("UPDATE core.audit_entries SET action = 'x' WHERE action = 'e'")
        assert "edited" in (await log.problems())[0]


class TestManners:
    """A long record must not take the event loop from everybody else, nor the memory."""

    async def test_hashing_is_done_in_threads(self, log, monkeypatch):
        loop_thread, hashed_in = threading.get_ident(), set()
        digest = chain.entry_digest

        def noting(row):
            hashed_in.add(threading.get_ident())
            return digest(row)

        monkeypatch.setattr(chain, "entry_digest", noting)
        await log.write(*"fghij")
        await log.seal()
        assert await log.problems() == ()
        assert hashed_in
        assert loop_thread not in hashed_in

    async def test_heads_are_walked_in_batches_like_links(self, log, monkeypatch):
        monkeypatch.setattr(chain, "_VERIFY_BATCH", 2)
        for action in "fghijkl":
            await log.write(action)
            await log.seal()
        largest = 0
        async with log.runtime.database.read() as session:
            every = session.all

            async def noting(*arguments):
                nonlocal largest
                rows = await every(*arguments)
                largest = max(largest, len(rows))
                return rows

            monkeypatch.setattr(session, "all", noting)
            assert (await chain.verify(session, KEY)).problems == ()
        assert largest == 2
        await log.tamper("UPDATE core.audit_heads SET signature = '\\x00' WHERE position > 2")
        assert len(await log.problems()) == 9

    async def test_a_wholly_broken_chain_is_told_in_a_hundred_lines(self, log):
        await log.write(*["f"] * 300)
        await log.seal()
        await log.tamper("UPDATE core.audit_entries SET principal_name = 'nobody'")
        assert len(await log.problems()) == 100


class TestTampering:
    @pytest.mark.parametrize(
        "change",
        [
            "action = 'harmless'",
            "principal_name = 'somebody else'",
            "occurred_at = occurred_at - interval '1 microsecond'",
            "resource = 'thing:2'",
            "after_digest = NULL",
            "detail = '{}'",
            "project_id = gen_random_uuid()",
            "on_behalf_of = 'x'",
            "request_id = 'x'",
            "sequence = DEFAULT",
        ],
    )
    async def test_an_edit_of_any_column_is_found(self, log, change):
        await log.tamper("UPDATE core.audit_entries SET " + change + " WHERE action = 'b'")  # noqa: S608  # of this test
        assert [problem for problem in await log.problems() if "was edited" in problem]

    async def test_an_edit_with_a_mended_digest_is_found(self, log):
        await log.tamper(
            "UPDATE core.audit_entries SET action = 'x' WHERE action = 'b'",
            "UPDATE core.audit_chain SET entry_digest = sha256('x') WHERE position = 2",
        )
        assert await log.problems()

    async def test_a_deleted_entry_is_found(self, log):
        await log.tamper("DELETE FROM core.audit_entries WHERE action = 'c'")
        assert [problem for problem in await log.problems() if "was deleted" in problem]

    async def test_a_deleted_entry_with_its_link_is_found(self, log):
        await log.tamper(
            "DELETE FROM core.audit_chain WHERE entry_id = (SELECT id FROM core.audit_entries WHERE action = 'b')",
            "DELETE FROM core.audit_entries WHERE action = 'b'",
        )
        assert [problem for problem in await log.problems() if "missing" in problem]

    async def test_closing_the_gap_is_found(self, log):
        await log.tamper(
            "DELETE FROM core.audit_chain WHERE position = 2",
            "DELETE FROM core.audit_entries WHERE action = 'b'",
            "UPDATE core.audit_chain SET position = position - 1 + 1000 WHERE position > 2",
            "UPDATE core.audit_chain SET position = position - 1000 WHERE position > 1000",
        )
        assert [problem for problem in await log.problems() if "does not follow" in problem]

    async def test_reordering_is_found(self, log):
        await log.tamper(
            "UPDATE core.audit_chain SET position = -2 WHERE position = 2",
            "UPDATE core.audit_chain SET position = 2 WHERE position = 3",
            "UPDATE core.audit_chain SET position = 3 WHERE position = -2",
        )
        assert [problem for problem in await log.problems() if "reordered" in problem]

    async def test_entries_that_change_places_are_found(self, log):
        await log.tamper(
            "UPDATE core.audit_chain SET entry_id = gen_random_uuid() WHERE position = 2",
            "UPDATE core.audit_chain SET entry_id = e.id FROM core.audit_entries e WHERE e.action = 'b' AND position = 3",
        )
        assert await log.problems()

    async def test_unsealing_entries_is_found(self, log):
        await log.tamper(
            "DELETE FROM core.audit_chain WHERE position > 3", "DELETE FROM core.audit_heads WHERE position > 3"
        )
        assert [problem for problem in await log.problems() if "neither sealed nor waiting" in problem]

    async def test_a_removed_waiting_entry_is_found(self, log):
        await log.write("f")
        await log.tamper("DELETE FROM core.audit_pending")
        assert [problem for problem in await log.problems() if "neither sealed nor waiting" in problem]

    async def test_a_cut_end_is_found_with_the_anchor(self, log):
        async with log.runtime.database.read() as session:
            anchor = (await chain.verify(session, KEY)).head
        await log.tamper(
            "DELETE FROM core.audit_entries WHERE action IN ('d', 'e')",
            "DELETE FROM core.audit_chain WHERE position > 3",
            "DELETE FROM core.audit_heads WHERE position > 3",
        )
        assert await log.problems() == ()  # what the anchor is for
        assert "anchored head" in (await log.problems(anchor=anchor))[0]

    async def test_a_rewritten_chain_is_found_by_the_signature(self, log):
        async with log.runtime.database.read() as session:
            anchor = (await chain.verify(session, KEY)).head
        await log.tamper(
            "DELETE FROM core.audit_chain",
            "DELETE FROM core.audit_heads",
            "UPDATE core.audit_entries SET action = 'x' WHERE action = 'b'",
            "INSERT INTO core.audit_pending SELECT id FROM core.audit_entries",
        )
        async with log.runtime.database.write() as session:
            await chain.seal(session, b"not the key" * 3, log.runtime.clock.now())
        problems = await log.problems()
        assert [problem for problem in problems if "wrong signature" in problem]
        assert [problem for problem in await log.problems(anchor=anchor) if "anchored head" in problem]

    async def test_a_forged_head_is_found(self, log):
        await log.tamper("UPDATE core.audit_heads SET signature = sha256('x') WHERE position = 3")
        assert "wrong signature" in (await log.problems())[0]

    async def test_links_without_a_signed_head_are_found(self, log):
        await log.tamper("DELETE FROM core.audit_heads WHERE position = 5")
        assert "carry no signed head" in (await log.problems())[0]

    async def test_the_wrong_key_confirms_nothing(self, log):
        assert await log.problems(key=b"z" * 32)


class TestAppendOnly:
    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("statement", ["DELETE FROM core.{}", "TRUNCATE core.{}", "UPDATE core.{} SET {} = {}"])
    @pytest.mark.parametrize("role", ["app_dsn", "owner_dsn", "superuser_dsn"])
    async def test_nobody_changes_what_is_written(self, database, table, statement, role):
        column = "action" if table == "audit_entries" else "position"
        async with connected(getattr(database, role)) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement.format(table, column, column))

    async def test_the_application_cannot_take_the_guard_away(self, database):
        for statement in (
            "ALTER TABLE core.audit_entries DISABLE TRIGGER ALL",
            "DROP TRIGGER append_only ON core.audit_entries",
            "DROP TABLE core.audit_entries",
            "SET session_replication_role = replica",
            "CREATE OR REPLACE FUNCTION core.refuse_change() RETURNS trigger LANGUAGE sql AS ''",
        ):
            async with connected(database.app_dsn) as connection:
                with pytest.raises(asyncpg.PostgresError, match=r"permission denied|must be owner"):
                    await connection.execute(statement)


class TestSealers:
    async def test_many_at_once_make_one_chain_while_others_write(self, log):
        async def write(number):
            await log.write(f"w{number}")

        async def seal():
            for _ in range(5):
                await log.seal(limit=3)

        await asyncio.gather(*(write(number) for number in range(30)), *(seal() for _ in range(4)))
        while await log.seal():
            pass
        async with log.runtime.database.read() as session:
            found = await chain.verify(session, KEY)
        assert (found.sealed, found.unsealed, found.problems) == (35, 0, ())

    async def test_a_sealer_that_dies_leaves_the_entries_waiting(self, log):
        await log.write("f")
        with contextlib.suppress(ZeroDivisionError):
            async with log.runtime.database.write() as session:
                await chain.seal(session, KEY, log.runtime.clock.now())
                raise ZeroDivisionError
        assert await log.problems() == ()
        assert (await log.seal()).position == 6


class TestTransaction:
    async def test_an_entry_is_there_exactly_when_the_change_is(self, log):
        with contextlib.suppress(ZeroDivisionError):
            async with log.runtime.database.write() as session:
                await record(session, AuditEntry(None, "undone", "thing:1", log.runtime.clock.now()))
                raise ZeroDivisionError
        async with connected(log.database.superuser_dsn) as connection:
            assert await connection.fetchval("SELECT count(*) FROM core.audit_entries WHERE action = 'undone'") == 0
            assert await connection.fetchval("SELECT count(*) FROM core.audit_pending") == 0


class TestAnchor:
    async def test_it_is_kept_whole_and_read_again(self, fresh_runtime):
        assert fresh_runtime.kept_anchor() is None
        head = Head(7, b"\x01" * 32)
        fresh_runtime.keep_anchor(str(head))
        assert Head.parse(fresh_runtime.kept_anchor()) == head
        assert [path.name for path in fresh_runtime.settings.home.iterdir() if path.name.startswith(".audit")] == []

    @pytest.mark.parametrize("text", ["", "x", "1", "1:", ":ab", "1:xyz", "\u00b2:00"])
    def test_what_is_no_head_is_a_value_error(self, text):
        with pytest.raises(ValueError, match=r".+"):
            Head.parse(text)

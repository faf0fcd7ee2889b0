"""A database that is silent, and one that is only slow."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest

from mlops_platform.core.db.pulse import Pulse
from mlops_platform.core.errors import DependencyUnavailable


@asynccontextmanager
async def watching(dsn):
    pulse = Pulse(dsn, long_seconds=0.1, answer_seconds=0.2)
    pulse.start()
    try:
        yield pulse
    finally:
        await pulse.stop()


@asynccontextmanager
async def silent_server():
    """Something that takes connections and never says a word."""
    held = []

    async def hold(reader, writer):
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield f"postgresql://u:p@127.0.0.1:{server.sockets[0].getsockname()[1]}/d"
    finally:
        for writer in held:
            writer.close()
        server.close()


async def test_who_waits_for_a_silent_database_is_told_that_it_is_away_and_others_are_refused_at_once():
    async with silent_server() as dsn, watching(dsn) as pulse:
        with pytest.raises(DependencyUnavailable):
            async with asyncio.timeout(5), pulse.guarding():
                await asyncio.Event().wait()
        with pytest.raises(DependencyUnavailable):
            async with pulse.guarding():
                pytest.fail("nobody may come in")


async def test_long_work_over_a_database_that_answers_goes_on(database):
    connection = await asyncpg.connect(database.app_dsn)
    try:
        async with watching(database.app_dsn) as pulse, pulse.guarding():
            assert await connection.fetchval("SELECT 1 FROM pg_sleep(1)") == 1
    finally:
        await connection.close()


async def test_a_time_out_of_the_block_itself_stays_what_it_is(database):
    async with watching(database.app_dsn) as pulse:
        with pytest.raises(TimeoutError):
            async with pulse.guarding():
                raise TimeoutError


async def test_a_database_that_answers_again_is_used_again(database, monkeypatch):
    async with silent_server() as dsn, watching(dsn) as pulse:
        with pytest.raises(DependencyUnavailable):
            async with asyncio.timeout(5), pulse.guarding():
                await asyncio.Event().wait()
        monkeypatch.setattr(pulse, "_dsn", database.app_dsn)
        async with asyncio.timeout(5):
            while pulse._is_away:  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.01)
        async with pulse.guarding():
            pass

"""A migrated PostgreSQL that stands until its standard input ends: for runs of many test sessions.

Each line that comes in drops the databases that sessions have left behind, and is answered with a line.
"""

import asyncio
import json
import sys

import asyncpg

from tests.factories.embedded import migrated_server


async def drop_leftovers(superuser_dsn: str) -> None:
    connection = await asyncpg.connect(superuser_dsn)
    rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%'")
    for row in rows:
        try:
            await connection.execute(f'DROP DATABASE "{row["datname"]}"')
        except asyncpg.ObjectInUseError:
            continue  # of a session that still runs
    await connection.close()


def main() -> None:
    with migrated_server() as place:
        sys.stdout.write(json.dumps(place) + "\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            asyncio.run(drop_leftovers(place["superuser"]))
            sys.stdout.write("dropped\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

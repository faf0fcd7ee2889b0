"""python -m benchmarks.tracking.growth: what ingest costs as the table of points grows, as one table or in partitions.

The statement of the hot path, without HTTP. Commits do not wait for the disk here: that wait is the same at any size,
varies from one moment to the next, and would hide the difference.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from benchmarks.tracking.target import NOW_MS
from mlops_platform.core.db import migrate
from mlops_platform.core.db.database import Database, open_database
from mlops_platform.core.db.embedded.server import EmbeddedPostgres
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.settings import load_settings
from mlops_platform.tracking.domain.points import Points
from mlops_platform.tracking.repository.metrics import IngestItem, store

PROJECT, EXPERIMENT = ProjectId(new_id()), new_id()
ACTIVE_RUNS = 50
POINTS_OF_A_RUN = 10_000
_PARTITIONED = """
    ALTER TABLE tracking.metric_points RENAME TO metric_points_whole;
    CREATE TABLE tracking.metric_points (LIKE tracking.metric_points_whole,
        PRIMARY KEY (run_id, key_id, step, timestamp, value)) PARTITION BY HASH (run_id);
    CREATE UNIQUE INDEX ON tracking.metric_points (run_id, key_id, step, value) WHERE arrived;
    DO $$ BEGIN FOR n IN 0..{last} LOOP
        EXECUTE format('CREATE TABLE tracking.metric_points_%s PARTITION OF tracking.metric_points
                        FOR VALUES WITH (MODULUS {count}, REMAINDER %s)', n, n);
    END LOOP; END $$;
"""
_SEED = """
    INSERT INTO tracking.metric_points (project_id, run_id, step, timestamp, value, key_id, arrived)
    SELECT $1::uuid, (lpad(to_hex(x'0198b000'::bigint), 8, '0') || '00007000a000' || lpad(to_hex(r), 12, '0'))::uuid, n,
        to_timestamp($2::bigint / 1000 + n), n / 7.0, $3::int, false
    FROM generate_series($4::int, $5::int) AS r, generate_series(0, $6::int - 1) AS n
"""


@contextmanager
def migrated() -> Iterator[str]:
    """A database of its own with every table; its owner's address."""
    with tempfile.TemporaryDirectory(prefix="mlops-growth-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        server = EmbeddedPostgres(Path(name) / "home")
        dsn = server.start().owner_dsn()
        try:
            asyncio.run(migrate.upgrade(dsn))
            yield dsn
        finally:
            server.stop()


async def grow(dsn: str, millions: list[float], partitions: int) -> None:
    """Seed up to each size, and measure there."""
    db = await asyncpg.connect(dsn, timeout=10)
    await db.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    await db.execute("SET synchronous_commit = off")
    if partitions:
        await db.execute(_PARTITIONED.format(count=partitions, last=partitions - 1))
    await db.execute(
        "INSERT INTO tracking.experiments (id, project_id, name, created_by, created_at, updated_at) "
        "VALUES ($1, $2, 'growth', 'x', now(), now())", EXPERIMENT, PROJECT,
    )  # fmt: skip
    runs = [new_id() for _ in range(ACTIVE_RUNS)]
    await db.executemany(
        "INSERT INTO tracking.runs (id, project_id, experiment_id, name, status, created_by, created_at, updated_at) "
        "VALUES ($1, $2, $3, 'x', 'RUNNING', 'x', now(), now())", [(run, PROJECT, EXPERIMENT) for run in runs],
    )  # fmt: skip
    key = await db.fetchval("INSERT INTO tracking.metric_keys (project_id, name) VALUES ($1, 'a') RETURNING id", PROJECT)
    database = open_database(load_settings(), dsn, pool_size=2)
    seeded, steps = 0, iter(range(10**9))
    for size in millions:
        until = int(size * 1_000_000 / POINTS_OF_A_RUN)
        begun = time.perf_counter()
        for first in range(seeded, until, 100):
            await db.execute(_SEED, PROJECT, NOW_MS, key, first, min(first + 100, until) - 1, POINTS_OF_A_RUN)
        seeding, seeded = time.perf_counter() - begun, until
        await db.execute("VACUUM (ANALYZE) tracking.metric_points")
        single = await measured(database, runs, key, steps, points=1, times=600)
        batch = await measured(database, runs, key, steps, points=1000, times=40)
        bytes_, index = await db.fetchrow(
            "SELECT sum(pg_table_size(oid)), sum(pg_indexes_size(oid)) FROM pg_class "
            "WHERE relkind = 'r' AND relname LIKE 'metric_points%' AND relnamespace = 'tracking'::regnamespace"
        )
        print(
            f"partitions {partitions or 'none':>4}  {size:5.1f} M  single {single:6.3f} ms  1,000 points {batch:7.2f}"
            f" ms  table {bytes_ / 2**30:.2f} GiB  indexes {index / 2**30:.2f} GiB  (seeded in {seeding:.0f} s, "
            f"load average {os.getloadavg()[0]:.1f})",
            flush=True,
        )
    await database.close()
    await db.close()


async def measured(
    database: Database, runs: list[str], key: int, steps: Iterator[int], *, points: int, times: int
) -> float:
    """Milliseconds for storing so many new points of an active run: the fastest tenth, as others use the cores too."""
    taken = []
    now = datetime.now(UTC)
    for number in range(times):
        given = Points(
            ["a"] * points, [next(steps) for _ in range(points)], [now] * points, [0.5] * points, [False] * points
        )
        item = IngestItem(PROJECT, runs[number % len(runs)], EXPERIMENT, given)
        begun = time.perf_counter()
        async with database.autocommit() as session:
            await store(session, [item], {(PROJECT, "a"): key})
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.quantiles(taken, n=10)[0]


def main() -> None:
    """One size after the other, for each layout."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--millions", type=float, nargs="+", default=[1, 10, 50])
    arguments.add_argument("--partitions", type=int, nargs="+", default=[0, 16], help="0 is one table")
    options = arguments.parse_args()
    for partitions in options.partitions:
        with migrated() as dsn:
            asyncio.run(grow(dsn, options.millions, partitions))


if __name__ == "__main__":
    main()

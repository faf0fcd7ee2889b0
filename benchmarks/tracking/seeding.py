# ruff: noqa: S608, E501  # every fragment is a constant of this package; statements read better whole
"""Runs and points by SQL, past both servers: what is measured afterwards is reading."""

import asyncpg

from benchmarks.tracking.target import KEYS, NOW_MS

# The same runs for both: a cheap hash of the number stands for chance, another one for each metric.
_NUMBER = "((n * 2654435761) % 1000003) / 1000003.0"
_PRIMES = (999983, 999979, 999961)


async def our_runs(dsn: str, experiment: str, count: int) -> None:
    """Runs with three metrics, three parameters and two tags each."""
    db = await asyncpg.connect(dsn, timeout=10)
    try:
        project = await db.fetchval("SELECT project_id FROM tracking.experiments WHERE id = $1::uuid", experiment)
        await db.execute(
            """INSERT INTO tracking.runs (id, project_id, experiment_id, name, status, user_name, start_time, end_time,
                   created_by, created_at, updated_at)
               SELECT (lpad(to_hex(x'0198c0ff'::bigint), 8, '0') || '00007000a000' || lpad(to_hex(n), 12, '0'))::uuid,
                   $1::uuid, $2::uuid, 'run-' || n, 'FINISHED', 'ada', now(), now(), 'bench', now(), now()
               FROM generate_series(1, $3::int) AS n""",
            project, experiment, count,
        )  # fmt: skip
        rows = "SELECT id, row_number() OVER (ORDER BY id) AS n FROM tracking.runs WHERE experiment_id = $2::uuid"
        for key in KEYS:
            number = await db.fetchval(
                "INSERT INTO tracking.metric_keys (project_id, name) VALUES ($1, $2) "
                "ON CONFLICT (project_id, name, context) DO UPDATE SET name = excluded.name RETURNING id", project, key,
            )  # fmt: skip
            value = f"((n * 2654435761) % {_PRIMES[KEYS.index(key)]}) / {_PRIMES[KEYS.index(key)]}.0"
            await db.execute(
                f"""INSERT INTO tracking.run_metrics (project_id, experiment_id, run_id, key_id, last_step, last_timestamp,
                        last_value, min_value, max_value, total, count, nan_count)
                    SELECT $1::uuid, $2::uuid, id, {number}, 0, now(), {value}, {value}, {value}, {value}, 1, 0
                    FROM ({rows}) AS r""",
                project, experiment,
            )  # fmt: skip
        for key, text, numeric in (
            ("lr", "(n % 100) / 1000.0", True),
            ("kind", "chr(97 + (n % 3)::int)", False),
            ("seed", "n", True),
        ):
            await db.execute(
                f"""INSERT INTO tracking.run_params (project_id, experiment_id, run_id, key, kind, text, number)
                    SELECT $1::uuid, $2::uuid, id, '{key}', '{"float" if numeric else "string"}', ({text})::text,
                        {text if numeric else "NULL"} FROM ({rows}) AS r""",
                project, experiment,
            )  # fmt: skip
        for key in ("team", "stage"):
            await db.execute(
                f"""INSERT INTO tracking.run_tags (project_id, experiment_id, run_id, key, value)
                    SELECT $1::uuid, $2::uuid, id, '{key}', 'v' || n % 7 FROM ({rows}) AS r""",
                project, experiment,
            )  # fmt: skip
        await db.execute(
            "INSERT INTO tracking.run_counts VALUES ($1, $2::uuid, 0, 'FINISHED', $3) "
            "ON CONFLICT (experiment_id, shard, status) DO UPDATE SET runs = excluded.runs", project, experiment, count,
        )  # fmt: skip
        await db.execute("ANALYZE")
    finally:
        await db.close()


async def our_points(dsn: str, runs: list[str], points: int) -> None:
    """One metric of so many points for each run."""
    db = await asyncpg.connect(dsn, timeout=10)
    try:
        project = await db.fetchval("SELECT project_id FROM tracking.runs WHERE id = $1::uuid", runs[0])
        number = await db.fetchval("SELECT id FROM tracking.metric_keys WHERE project_id = $1 AND name = 'loss'", project)
        await db.execute(
            f"""INSERT INTO tracking.metric_points (project_id, run_id, step, timestamp, value, key_id, arrived)
                SELECT $1::uuid, r.run::uuid, n, to_timestamp({NOW_MS} / 1000 + n), sin(n / 500.0) + {_NUMBER}, $2::int, false
                FROM unnest($3::text[]) AS r(run), generate_series(0, $4::int - 1) AS n""",
            project, number, runs, points,
        )  # fmt: skip
        await db.execute(
            """INSERT INTO tracking.run_metrics (project_id, experiment_id, run_id, key_id, last_step, last_timestamp,
                   last_value, min_value, max_value, total, count, nan_count)
               SELECT $1::uuid, (SELECT experiment_id FROM tracking.runs WHERE id = r.run::uuid), r.run::uuid, $2::int,
                   $4::int - 1, now(), 0, -1, 2, 0, $4::int, 0 FROM unnest($3::text[]) AS r(run)""",
            project, number, runs, points,
        )  # fmt: skip
        await db.execute("VACUUM ANALYZE tracking.metric_points")
    finally:
        await db.close()


async def peer_runs(dsn: str, experiment: str, count: int) -> None:
    """The same runs in MLflow's tables."""
    db = await asyncpg.connect(dsn, timeout=10)
    try:
        await db.execute(
            f"""INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage,
                    artifact_uri, experiment_id)
                SELECT lpad(to_hex(n), 32, '0'), 'run-' || n, 'LOCAL', 'ada', 'FINISHED', {NOW_MS} + n, {NOW_MS} + n, 'active',
                    'mlflow-artifacts:/0/' || n, $1::int FROM generate_series(1, $2::int) AS n""",
            int(experiment), count,
        )  # fmt: skip
        ids = f"SELECT lpad(to_hex(n), 32, '0') AS id, n FROM generate_series(1, {int(count)}) AS n"
        for key in KEYS:
            value = f"((n * 2654435761) % {_PRIMES[KEYS.index(key)]}) / {_PRIMES[KEYS.index(key)]}.0"
            for table in ("metrics", "latest_metrics"):
                await db.execute(
                    f"""INSERT INTO {table} (key, value, timestamp, step, is_nan, run_uuid)
                        SELECT '{key}', {value}, {NOW_MS}, 0, false, id FROM ({ids}) AS r"""
                )
        for key, text in (("lr", "(n % 100) / 1000.0"), ("kind", "chr(97 + (n % 3)::int)"), ("seed", "n")):
            await db.execute(
                f"INSERT INTO params (key, value, run_uuid) SELECT '{key}', ({text})::text, id FROM ({ids}) AS r"
            )
        for key in ("team", "stage"):
            await db.execute(f"INSERT INTO tags (key, value, run_uuid) SELECT '{key}', 'v' || n % 7, id FROM ({ids}) AS r")
        await db.execute("ANALYZE")
    finally:
        await db.close()


async def peer_points(dsn: str, runs: list[str], points: int) -> None:
    """One metric of so many points for each run, in MLflow's tables."""
    db = await asyncpg.connect(dsn, timeout=10)
    try:
        await db.execute(
            f"""INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
                SELECT 'loss', sin(n / 500.0) + {_NUMBER}, {NOW_MS} + n * 1000, n, false, r.run
                FROM unnest($1::text[]) AS r(run), generate_series(0, $2::int - 1) AS n""",
            runs, points,
        )  # fmt: skip
        await db.execute(
            f"""INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
                SELECT 'loss', 0.5, {NOW_MS}, $2::int - 1, false, r.run FROM unnest($1::text[]) AS r(run)""",
            runs, points,
        )  # fmt: skip
        await db.execute("VACUUM ANALYZE metrics")
    finally:
        await db.close()

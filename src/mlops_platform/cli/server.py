"""The commands that run the platform itself: up, down, serve, worker, db, doctor. They need the extra `server`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, NoReturn

import typer

db = typer.Typer(name="db", help="The database of a server-mode deployment.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Hang the commands into the top level."""
    for command in (up, down, serve, worker, doctor):
        app.command()(command)
    app.add_typer(db)


def up(
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever a source file changes.")] = False,
) -> None:
    """Start the whole platform here: PostgreSQL, five services, a worker. Ctrl-C stops it.

    Data and generated secrets live under MLOPS_HOME (default ~/.mlops).

    Example: MLOPS_HOME=/srv/mlops mlops up
    """
    begun = perf_counter()
    with one_clear_line():
        from mlops_platform.core.settings import load_settings
        from mlops_platform.core.telemetry import logs
        from mlops_platform.server import embedded, reloading
        from mlops_platform.server.loop import run

        if reload:
            reloading.keep_reloading([sys.executable, "-m", "mlops_platform.cli", "up"])
            return
        settings = load_settings()
        logs.configure(settings)

        def ready(started: embedded.Up) -> None:
            typer.echo(_greeting(started.urls, started.key_file, started.home, perf_counter() - begun), err=True)

        run(lambda: embedded.up(settings, ready))


def down() -> None:
    """Stop the platform that runs under MLOPS_HOME, wherever it was started."""
    with one_clear_line():
        from mlops_platform.core.settings import load_settings
        from mlops_platform.server.stopping import stop

        pid = stop(load_settings().home)
        typer.echo(f"Stopped (process {pid})." if pid else "Nothing runs under MLOPS_HOME.", err=True)


def serve(
    service: Annotated[str, typer.Argument(help="model-registry, feature-store, experiment-tracking, ...")],
) -> None:
    """Serve one service against MLOPS_DATABASE_URL: server mode, any number of replicas.

    Example: mlops serve model-registry
    """
    with one_clear_line():
        from mlops_platform.core.settings import load_settings
        from mlops_platform.core.telemetry import logs
        from mlops_platform.server import process
        from mlops_platform.server.loop import run

        settings = load_settings()
        logs.configure(settings)
        run(lambda: process.serve(settings, service, lambda url: typer.echo(f"{service} answers at {url}", err=True)))


def worker(
    path: Annotated[list[Path] | None, typer.Option(help="Directory with the code of tasks; may be repeated.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Modules that tasks may name, for example 'acme.*'; may be repeated.")
    ] = None,
    run_as: Annotated[str | None, typer.Option(help="System user that tasks run as; needs root.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="Environment variable that tasks may see; may be repeated.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs that tasks may reserve here.")] = 0,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Run pipeline tasks, each in a process of its own. 'mlops up' runs one already.

    Example: mlops worker --path ./pipelines --allow 'training.*'
    """
    with one_clear_line():
        from mlops_platform.core.settings import load_settings
        from mlops_platform.core.telemetry import logs
        from mlops_platform.server.loop import run
        from mlops_platform.server.worker import Offer, work

        settings = load_settings()
        logs.configure(settings)
        offer = Offer(tuple(path or ()), tuple(allow or ()), tuple(env or ()), run_as, gpus)
        run(lambda: work(settings, offer, with_parent=with_parent))


@db.command()
def upgrade() -> None:
    """Bring the database to this version. Safe while older services run: migrations expand first."""
    with one_clear_line():
        from mlops_platform.core.db import migrate
        from mlops_platform.core.settings import load_settings

        migrate.upgrade_now(load_settings().database_dsn(owner=True))
        typer.echo(f"The database is at revision {migrate.head_revision()}.", err=True)


def doctor() -> None:
    """Look for what is wrong here: versions, ports, disk, clock, database, keys. Each finding has its remedy."""
    with one_clear_line():
        from mlops_platform.core.settings import load_settings
        from mlops_platform.server.doctor import examine

        findings = examine(load_settings())
        for finding in findings:
            typer.echo(f"{finding.mark} {finding.what}: {finding.found}")
            if finding.remedy:
                typer.echo(f"    {finding.remedy}")
        if any(finding.is_wrong for finding in findings):
            raise typer.Exit(1)


@contextmanager
def one_clear_line() -> Iterator[None]:
    """What a user can mend is one line on standard error, never a traceback."""
    try:
        from asyncpg import PostgresError
        from sqlalchemy.exc import DBAPIError

        from mlops_platform.core.errors import ConfigurationError, PlatformError
    except ModuleNotFoundError as error:
        fail(f"This command needs the server: pip install 'mlops-platform[server]' ({error.name} is missing).")
    try:
        yield
    except (ConfigurationError, PlatformError) as error:
        fail(str(error))
    except (PostgresError, DBAPIError) as error:
        fail(f"The database refuses: {getattr(error, 'orig', None) or error}")
    except OSError as error:
        # A database that nobody answers for, a file that cannot be had; doctor tells them apart.
        fail(f"{error}. To see what is wrong: mlops doctor")
    except ModuleNotFoundError as error:
        fail(f"This command needs the server: pip install 'mlops-platform[server]' ({error.name} is missing).")


def fail(message: str) -> NoReturn:
    """Say it and end with code 1."""
    typer.echo(f"mlops: {message}", err=True)
    raise typer.Exit(1)


def _greeting(urls: dict[str, str], key_file: Path, home: Path, seconds: float) -> str:
    lines = [f"  {name:<12} {url}   docs: {url}/docs" for name, url in urls.items()]
    return "\n".join(
        [
            f"The platform is up ({seconds:.1f} s). Data: {home}",
            *lines,
            f"  key          in {key_file} (the SDK and the CLI find it by themselves)",
            "Try 'make demo' or 'mlops demo' in another terminal. Ctrl-C stops everything.",
        ]
    )

"""The command `mlops`: one module for each noun."""

from typing import Annotated

import typer

from mlops_platform.cli import (
    ab,
    audit,
    auth,
    events,
    experiment,
    experiment_settings,
    feature,
    imports,
    lineage,
    model,
    pipeline,
    project,
    reproduction,
    run,
    run_editing,
    server,
    sweep,
)
from mlops_platform.cli.demo import command as demo

HELP = """The MLOps platform: models, experiments, features, pipelines and A/B tests.

Addresses and key come from the MLOPS_* variables, else from what 'mlops up' left under MLOPS_HOME.

Exit codes: 0 done, 1 error, 2 wrong usage, 3 not found, 4 not allowed, 5 the platform does not answer."""

app = typer.Typer(name="mlops", help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

NOUNS = {
    "model": model.app,
    "experiment": experiment.app,
    "run": run.app,
    "import": imports.app,
    "sweep": sweep.app,
    "feature": feature.app,
    "pipeline": pipeline.app,
    "ab": ab.app,
    "auth": auth.app,
    "project": project.app,
    "audit": audit.app,
    "events": events.app,
}

for name, group in NOUNS.items():
    app.add_typer(group, name=name)
lineage.add_to(app)
experiment_settings.add_to(experiment.app)
run_editing.add_to(run.app)
reproduction.add_to(run.app, app)
server.add_to(app)
demo.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mlops-platform {version('mlops-platform')}")
        raise typer.Exit


@app.callback()
def mlops(
    version: Annotated[  # noqa: ARG001  # its callback has done its work
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    # The text of `mlops --help` is HELP; this only carries the option.
    return


def main() -> None:
    """The entry point of the distribution."""
    app()


if __name__ == "__main__":
    main()

"""`mlops import`: what others recorded."""

from pathlib import Path
from typing import Annotated

import typer

from mlops_platform.cli.console import ExitCode, Printer, command, connect, noun

app = noun("Bring in what another system recorded.")

EXAMPLES = [
    "mlops import mlflow http://mlflow.example:5000 --experiment churn --dry-run",
    "mlops import mlflow ./mlruns",
    "mlops import mlflow ./mlflow.db --artifacts ./mlartifacts",
]


@command(app, "mlflow", examples=EXAMPLES)
def mlflow(
    out: Printer,
    source: Annotated[
        str, typer.Argument(help="The address of a server, a folder 'mlruns', or a file 'mlflow.db'.", show_default=False)
    ],
    experiment: Annotated[list[str], typer.Option(help="Name or id there; again for each. Absent: all.")] = [],  # noqa: B006  # typer copies it
    name: Annotated[str | None, typer.Option(help="Another name for the one experiment.")] = None,
    artifacts: Annotated[Path | None, typer.Option(help="Where the files of a database lie.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is.")] = False,
) -> None:
    """Bring experiments of MLflow in, with deleted runs, full histories and files. Again: only what is new.

    A server is asked with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Ends with 1 when
    something was left out or is there with other content; each is named.
    """
    with connect() as platform:
        reports = platform.tracking.import_mlflow(
            source, experiments=experiment, name=name, artifacts=artifacts, dry_run=dry_run
        )
    columns = {"ID": "experiment_id", "NAME": "name", "NEW": "created", "SAME": "unchanged", "POINTS": "points"}
    out.many([report.summary() for report in reports], {**columns, "FILES": "files", "WHOLE": "whole"})
    for report in reports:
        for line in report.conflicts:
            out.say(f"There with other content, and left as it is: {line}")
        for line in report.left_out:
            out.say(f"Left out: {line}")
    if not all(report.is_whole for report in reports):
        raise typer.Exit(ExitCode.ERROR)

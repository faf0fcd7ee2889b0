"""`mlops experiment`: experiments of Experiment Tracking."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_platform.cli.console import ExitCode, Printer, command, confirm, connect, noun, texts

if TYPE_CHECKING:
    from mlops_platform.sdk.transfer import ImportReport

app = noun("Experiments: what runs belong to.")

Experiment = Annotated[str, typer.Argument(help="Name or id.", show_default=False)]


@command(app, "create", examples=["mlops experiment create churn --description 'Who leaves?' --tag team=growth"])
def create(
    out: Printer,
    name: Annotated[str, typer.Argument(show_default=False)],
    description: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[list[str], typer.Option(help="key=value; again for each.")] = [],  # noqa: B006  # typer copies it
) -> None:
    """Make an experiment."""
    tags = texts(tag, "--tag")
    with connect() as platform:
        out.one(platform.tracking.create_experiment(name, description=description, tags=tags or None), name="id")


@command(app, "list", examples=["mlops experiment list"])
def list_experiments(out: Printer, limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100) -> None:
    """List experiments."""
    with connect() as platform:
        columns = {"ID": "id", "NAME": "name", "RUNS": "run_count", "UPDATED": "updated_at"}
        out.many(platform.tracking.experiments(limit=limit), columns)


@command(app, "show", examples=["mlops experiment show churn"])
def show(out: Printer, experiment: Experiment) -> None:
    """Show an experiment."""
    with connect() as platform:
        out.one(platform.tracking.experiment(experiment), name="id")


@command(app, "delete", examples=["mlops experiment delete churn --yes"])
def delete(
    out: Printer, experiment: Experiment, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Hide an experiment with its runs. It can be restored."""
    confirm(f"Delete {experiment}?", yes=yes)
    with connect() as platform:
        platform.tracking.delete_experiment(experiment)
    out.say(f"{experiment} is deleted.")


@command(app, "tree", examples=["mlops experiment tree", "mlops experiment tree vision/cats"])
def tree(
    out: Printer,
    path: Annotated[str, typer.Argument(help="A folder: the part of names before a slash.")] = "",
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 1000,
) -> None:
    """Show one level of the folders that names with slashes make."""
    with connect() as platform:
        columns = {
            "PATH": "path",
            "FOLDER": "is_folder",
            "EXPERIMENTS": "experiments",
            "RUNS": "runs",
            "ID": "experiment_id",
        }
        out.many(platform.tracking.folder(path, limit=limit), columns)


@command(app, "archive", examples=["mlops experiment archive churn"])
def archive(out: Printer, experiment: Experiment) -> None:
    """Put an experiment away: read as ever, not listed, no new runs."""
    with connect() as platform:
        out.one(platform.tracking.archive_experiment(experiment), name="id")


@command(app, "restore", examples=["mlops experiment restore 0198c0ffee00700080000000deadbeef"])
def restore(out: Printer, experiment_id: Annotated[str, typer.Argument(help="Its id.", show_default=False)]) -> None:
    """Bring a deleted or archived experiment back."""
    with connect() as platform:
        out.one(platform.tracking.restore_experiment(experiment_id), name="id")


@command(app, "purge", examples=["mlops experiment purge 0198c0ffee00700080000000deadbeef --confirm churn"])
def purge(
    out: Printer,
    experiment_id: Annotated[str, typer.Argument(help="Its id.", show_default=False)],
    confirm_name: Annotated[
        str | None, typer.Option("--confirm", help="Its name, to remove it for ever. Absent: only say what would go.")
    ] = None,
) -> None:
    """Say what removing an experiment for ever would remove, or remove it."""
    with connect() as platform:
        out.one(platform.tracking.purge_experiment(experiment_id, confirm=confirm_name), name="experiment_id")


@command(app, "export", examples=["mlops experiment export churn churn.zip"])
def export(
    out: Printer,
    experiment: Experiment,
    file: Annotated[Path, typer.Argument(help="The file to write; one that is there is replaced.", show_default=False)],
) -> None:
    """Write an experiment with its runs, points and artifacts to one file."""
    with connect() as platform:
        target = platform.tracking.export_experiment(experiment, file)
    out.one({"file": str(target), "bytes": target.stat().st_size}, name="file")


@command(
    app, "import", examples=["mlops experiment import churn.zip", "mlops experiment import churn.zip --name 'old churn'"]
)
def import_(
    out: Printer,
    file: Annotated[Path, typer.Argument(help="What 'mlops experiment export' wrote.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Another name for the experiment.")] = None,
) -> None:
    """Bring an exported experiment in, ids kept. Doing it again changes nothing, and goes on with what broke off.

    Ends with 1 when something is there with other content: that stays as it is, and is named.
    """
    with connect() as platform:
        told(out, platform.tracking.import_experiment(file, name=name))


def told(out: Printer, report: "ImportReport") -> None:
    """Print what an import did; the exit code says whether it is whole."""
    out.one(report.summary(), name="experiment_id")
    for line in report.conflicts:
        out.say(f"There with other content, and left as it is: {line}")
    for line in report.left_out:
        out.say(f"Left out: {line}")
    if not report.is_whole:
        raise typer.Exit(ExitCode.ERROR)

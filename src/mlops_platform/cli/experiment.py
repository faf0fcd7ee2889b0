"""`mlops experiment`: experiments of Experiment Tracking."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, confirm, connect, noun, texts

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

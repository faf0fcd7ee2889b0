"""`mlops experiment`, second part: what an experiment says of its runs."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, connect, texts
from mlops_platform.cli.experiment import Experiment

Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]


def add_to(experiments: typer.Typer) -> None:
    """Add to the noun `experiment`."""
    _add_settings(experiments)
    _add_goals(experiments)


def _add_settings(experiments: typer.Typer) -> None:
    @command(experiments, "update", examples=["mlops experiment update churn --name growth/churn --retention-days 30"])
    def update(
        out: Printer,
        experiment: Experiment,
        name: Annotated[str | None, typer.Option(help="A new name; its id stays.")] = None,
        description: Annotated[str | None, typer.Option()] = None,
        owner: Annotated[str | None, typer.Option()] = None,
        retention_days: Annotated[
            int | None, typer.Option(help="How long deleted runs are kept; 0: for ever.", min=0)
        ] = None,
        tag: Annotated[list[str], typer.Option(help="key=value; again for each.")] = [],  # noqa: B006  # typer copies it
    ) -> None:
        """Rename an experiment, or change what is said of it."""
        given = {"name": name, "description": description, "owner": owner, "retention_days": retention_days}
        changes = {field: value for field, value in given.items() if value is not None}
        with connect() as platform:
            out.one(platform.tracking.update_experiment(experiment, **changes, tags=texts(tag, "--tag")), name="id")

    @command(
        experiments,
        "baseline",
        examples=["mlops experiment baseline churn 0198c0ffee00700080000000deadbeef", "mlops experiment baseline churn"],
    )
    def baseline(
        out: Printer,
        experiment: Experiment,
        run_id: Annotated[str | None, typer.Argument(help="The run. Absent: none is pinned any more.")] = None,
    ) -> None:
        """Pin the run that others are compared with."""
        with connect() as platform:
            out.one(platform.tracking.set_baseline(experiment, run_id), name="id")

    @command(experiments, "views", examples=["mlops experiment views churn"])
    def views(out: Printer, experiment: Experiment, limit: Limit = 100) -> None:
        """List the saved views of an experiment."""
        with connect() as platform:
            columns = {"ID": "id", "NAME": "name", "FILTER": "filter", "BY": "created_by"}
            out.many(platform.tracking.views(experiment, limit=limit), columns)


def _add_goals(experiments: typer.Typer) -> None:
    @command(
        experiments,
        "goal",
        examples=["mlops experiment goal churn loss minimize", "mlops experiment goal churn loss none"],
    )
    def goal(
        out: Printer,
        experiment: Experiment,
        key: Annotated[str, typer.Argument(help="The metric's name.", show_default=False)],
        direction: Annotated[str, typer.Argument(help="minimize, maximize or none.", show_default=False)],
    ) -> None:
        """Declare which values of a metric are better."""
        with connect() as platform:
            if direction == "none":
                platform.tracking.clear_goal(experiment, key)
                out.say(f"{key} has no goal in {experiment}.")
            else:
                out.one(platform.tracking.set_goal(experiment, key, direction), name="key")

    @command(experiments, "goals", examples=["mlops experiment goals churn"])
    def goals(out: Printer, experiment: Experiment) -> None:
        """List the metrics for which an experiment says which values are better."""
        with connect() as platform:
            out.many(platform.tracking.goals(experiment), {"KEY": "key", "GOAL": "goal", "SINCE": "updated_at"})

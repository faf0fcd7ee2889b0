"""`mlops project`: the unit of tenancy."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, connect, noun

app = noun("Projects: every thing belongs to one.")


@command(app, "create", examples=["mlops project create fraud --description 'Card fraud'"])
def create(
    out: Printer,
    name: Annotated[str, typer.Argument(show_default=False)],
    description: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Make a project; you become its admin."""
    with connect() as platform:
        out.one(platform.admin.create_project(name, description=description), name="name")


@command(app, "list", examples=["mlops project list"])
def list_projects(out: Printer, limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100) -> None:
    """List the projects that you see."""
    with connect() as platform:
        columns = {"NAME": "name", "ID": "id", "DESCRIPTION": "description", "CREATED": "created_at"}
        out.many(platform.admin.projects(limit=limit), columns)

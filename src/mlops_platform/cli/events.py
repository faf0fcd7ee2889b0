"""`mlops events`: what happens, as it happens."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, connect, noun

app = noun("The event feed.")


@command(app, "tail", examples=["mlops events tail", "mlops events tail --type 'model_version.*' -o json"])
def tail(
    out: Printer,
    type: Annotated[list[str], typer.Option(help="Such as model_version.*; again for each.")] = [],  # noqa: B006, A002
    after: Annotated[str | None, typer.Option(help="Begin after this event id.")] = None,
    limit: Annotated[int | None, typer.Option(help="End after so many.", min=1)] = None,
) -> None:
    """Follow events until Ctrl-C; with JSON, one object a line."""
    with connect() as platform:
        for count, event in enumerate(platform.admin.events(types=type, after=after), start=1):
            out.line(event, f"{event.id}  {event.type}  {event.data}")
            if count == limit:
                return

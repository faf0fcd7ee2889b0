"""`mlops lineage`: where something comes from, and what came of it."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, connect


def add_to(app: typer.Typer) -> None:
    """A command of its own, without a noun: the graph spans all of them."""

    @command(
        app,
        "lineage",
        examples=["mlops lineage my-classifier@champion", "mlops lineage my-classifier/1.0.0 --downstream -o json"],
    )
    def lineage(
        out: Printer,
        subject: Annotated[str, typer.Argument(help="model/version, model@alias, or a URN.", show_default=False)],
        downstream: Annotated[
            bool, typer.Option("--downstream", help="What came of it, instead of where it comes from.")
        ] = False,
        depth: Annotated[int, typer.Option(help="How many steps.", min=1, max=100)] = 20,
    ) -> None:
        """Show the path through the lineage graph."""
        with connect() as platform:
            edges = platform.registry.lineage(subject, downstream=downstream, depth=depth)
            out.many(edges, {"SUBJECT": "subject", "RELATION": "relation", "OBJECT": "object"})

"""`mlops lineage`: where something comes from, and what came of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_platform.cli.console import OutputFormat, Printer, command, connect, printable

if TYPE_CHECKING:
    from mlops_platform.contracts.registry import LineageGraph


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
            graph = platform.registry.lineage(subject, downstream=downstream, depth=depth)
        if out.output == OutputFormat.JSON:
            out.one(graph, name="root")
        elif out.quiet:
            out.many(graph.nodes, {"URN": "urn"})
        else:
            for line in tree(graph):
                typer.echo(line)
            if graph.is_truncated:
                out.say("The graph goes on: ask for the next part by one of its URNs.")


def tree(graph: "LineageGraph") -> Iterator[str]:
    """The graph as an indented list. A thing that is reached twice is written out once, and named the second time."""
    names = {node.urn: f"{node.kind} {node.name}" for node in graph.nodes}
    distance = {node.urn: node.distance for node in graph.nodes}
    seen: set[str] = set()

    def walk(urn: str, relation: str, indent: int) -> Iterator[str]:
        again = urn in seen
        seen.add(urn)
        yield printable(f"{'  ' * indent}{relation}{names.get(urn, urn)}{' (see above)' if again else ''}")
        if again:
            return
        for edge in graph.edges:
            ends = {edge.subject: edge.object, edge.object: edge.subject}
            if urn in ends and distance.get(ends[urn], -1) == distance.get(urn, 0) + 1:
                arrow = f"{edge.relation} -> " if edge.subject == urn else f"{edge.relation} <- "
                yield from walk(ends[urn], arrow, indent + 1)

    yield from walk(graph.root, "", 0)

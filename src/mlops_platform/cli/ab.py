"""`mlops ab`: A/B tests."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, connect, noun, pairs

app = noun("A/B tests between model versions.")

Name = Annotated[str, typer.Argument(help="The test.", show_default=False)]
UserId = Annotated[str, typer.Argument(help="The unit: a user, a session.", show_default=False)]
VARIANT_PARTS = 3


@command(
    app,
    "create",
    examples=["mlops ab create model_v2_test --variant control:0.5:v1.0 --variant treatment:0.5:v2.0 --metric converted"],
)
def create(
    out: Printer,
    name: Name,
    variant: Annotated[list[str], typer.Option(help="name:weight:model version; again for each.", show_default=False)],
    metric: Annotated[list[str], typer.Option(help="name, or name=kind (proportion, mean, count).")] = [],  # noqa: B006
    description: Annotated[str | None, typer.Option()] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Do not start it yet.")] = False,
) -> None:
    """Make a test; it runs at once unless it is a draft."""
    named = pairs([text if "=" in text else f"{text}=proportion" for text in metric], "--metric")
    metrics = [{"name": key, "kind": kind} for key, kind in named.items()]
    with connect() as platform:
        made = platform.ab.create(
            name,
            [_variant(text) for text in variant],
            description=description,
            metrics=metrics or None,
            status="draft" if draft else None,
        )
        out.one(made, name="name")


@command(app, "list", examples=["mlops ab list"])
def list_tests(out: Printer, limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100) -> None:
    """List tests."""
    with connect() as platform:
        columns = {
            "NAME": "name",
            "STATUS": "status",
            "TRAFFIC": "traffic_share",
            "WINNER": "winner",
            "STARTED": "started_at",
        }
        out.many(platform.ab.list(limit=limit), columns)


@command(app, "show", examples=["mlops ab show model_v2_test"])
def show(out: Printer, name: Name) -> None:
    """Show a test."""
    with connect() as platform:
        out.one(platform.ab.get(name), name="name")


@command(app, "route", examples=["mlops ab route model_v2_test user_123"])
def route(out: Printer, name: Name, user_id: UserId) -> None:
    """Ask which model version a unit gets. This counts as an exposure."""
    with connect() as platform:
        out.one(platform.ab.route(name, user_id), name="model_version")


@command(app, "outcome", examples=["mlops ab outcome model_v2_test user_123 converted true"])
def outcome(
    out: Printer,
    name: Name,
    user_id: UserId,
    metric: Annotated[str, typer.Argument(help="The outcome's metric.", show_default=False)],
    value: Annotated[str, typer.Argument(help="A number, true or false.", show_default=False)],
) -> None:
    """Record what a unit did."""
    with connect() as platform:
        out.one(platform.ab.outcome(name, user_id, metric=metric, value=_value(value)), name="recorded")


@command(app, "results", examples=["mlops ab results model_v2_test", "mlops ab results model_v2_test -o json"])
def results(out: Printer, name: Name) -> None:
    """Show the evidence so far: each variant against the control."""
    with connect() as platform:
        found = platform.ab.results(name)
        if out.output == "json":
            out.one(found, name="experiment")
            return
        for warning in found.warnings:
            out.say(f"Warning: {warning.message}")
        for metric in found.metrics:
            out.say(f"{metric.metric} ({metric.kind.value}, {metric.goal.value})")
            columns = {
                "VARIANT": "variant",
                "VERDICT": "verdict",
                "DIFFERENCE": "difference",
                "LOW": "difference_interval.low",
                "HIGH": "difference_interval.high",
                "P (ADJUSTED)": "p_value_adjusted",
            }
            out.many(metric.comparisons, columns)


@command(app, "start", examples=["mlops ab start model_v2_test"])
def start(out: Printer, name: Name) -> None:
    """Start a draft, or go on after a pause."""
    with connect() as platform:
        out.one(platform.ab.start(name), name="status")


@command(app, "pause", examples=["mlops ab pause model_v2_test"])
def pause(out: Printer, name: Name) -> None:
    """Pause a test: all units get the control's model."""
    with connect() as platform:
        out.one(platform.ab.pause(name), name="status")


@command(app, "stop", examples=["mlops ab stop model_v2_test --winner treatment"])
def stop(
    out: Printer,
    name: Name,
    winner: Annotated[str | None, typer.Option(help="The variant that all units get from now on.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """End a test."""
    with connect() as platform:
        out.one(platform.ab.stop(name, winner=winner, note=note), name="status")


def _value(text: str) -> float | bool:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a number nor true or false.", param_hint="VALUE") from error


def _variant(text: str) -> dict[str, object]:
    parts = text.split(":", VARIANT_PARTS - 1)
    try:
        name, weight, model_version = parts
        return {"name": name, "weight": float(weight), "model_version": model_version}
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not of the form name:weight:model version.", param_hint="--variant"
        ) from error

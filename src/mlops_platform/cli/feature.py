"""`mlops feature`: feature sets and their values."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mlops_platform.cli.console import Printer, command, confirm, connect, document, noun, texts

app = noun("Features: sets, ingest, online values, training sets.")

SetName = Annotated[str, typer.Argument(help="The feature set.", show_default=False)]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]
Features = Annotated[
    list[str], typer.Option("--feature", "-f", help="feature, or set:feature; again for each.", show_default=False)
]


@command(
    app,
    "create-set",
    examples=["mlops feature create-set user_features --entity user_id --feature age=int --feature score=float"],
)
def create_set(
    out: Printer,
    name: SetName,
    feature: Annotated[list[str], typer.Option("--feature", "-f", help="name=type; again for each.", show_default=False)],
    entity: Annotated[str | None, typer.Option(help="The column of the entity key.")] = None,
    description: Annotated[str | None, typer.Option()] = None,
    ttl_seconds: Annotated[int | None, typer.Option(help="How long a value holds.", min=1)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not serve it online.")] = False,
) -> None:
    """Make a feature set. Types: int, float, string, bool, timestamp, float_list."""
    types = texts(feature, "--feature")
    with connect() as platform:
        made = platform.features.create_set(
            name, types, entity=entity, description=description, ttl_seconds=ttl_seconds, online=False if offline else None
        )
        out.one(made, name="name")


@command(app, "list", examples=["mlops feature list"])
def list_sets(out: Printer, limit: Limit = 100) -> None:
    """List feature sets."""
    with connect() as platform:
        columns = {"NAME": "name", "VERSION": "version", "ENTITY": "entity", "ONLINE": "online", "UPDATED": "updated_at"}
        out.many(platform.features.sets(limit=limit), columns)


@command(app, "show", examples=["mlops feature show user_features"])
def show(out: Printer, name: SetName) -> None:
    """Show a feature set."""
    with connect() as platform:
        out.one(platform.features.get_set(name), name="name")


@command(app, "delete", examples=["mlops feature delete user_features --yes"])
def delete(out: Printer, name: SetName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Hide a feature set. It can be restored."""
    confirm(f"Delete {name}?", yes=yes)
    with connect() as platform:
        platform.features.delete_set(name)
    out.say(f"{name} is deleted.")


@command(
    app,
    "ingest",
    examples=["mlops feature ingest user_features rows.jsonl", "mlops feature ingest user_features rows.parquet"],
)
def ingest(
    out: Printer,
    name: SetName,
    source: Annotated[
        str, typer.Argument(help="A .json, .jsonl or .parquet file; - is standard input.", show_default=False)
    ],
) -> None:
    """Ingest rows: each holds the entity column, event_timestamp and features."""
    with connect() as platform:
        out.one(platform.features.ingest(name, _rows(source)), name="batch_id")


@command(app, "serve", examples=["mlops feature serve user_123 -f age -f score"])
def serve(
    out: Printer,
    entity: Annotated[list[str], typer.Argument(help="Entity keys.", show_default=False)],
    feature: Features,
) -> None:
    """Read the newest values of entities."""
    with connect() as platform:
        columns = {"ENTITY": "entity", "VALUES": "values", "STATUSES": "statuses"}
        out.many(platform.features.serve_many(entity, feature), columns)


@command(app, "materialize", examples=["mlops feature materialize user_features"])
def materialize(out: Printer, name: SetName) -> None:
    """Write the newest rows online."""
    with connect() as platform:
        out.one(platform.features.materialize(name), name="entities")


@command(
    app,
    "training-set",
    examples=["mlops feature training-set labels.jsonl -f user_features:age --name churn-2026 --to churn.parquet"],
)
def training_set(
    out: Printer,
    labels: Annotated[str, typer.Argument(help="Rows with event_timestamp and entity columns.", show_default=False)],
    feature: Features,
    name: Annotated[str | None, typer.Option()] = None,
    to: Annotated[Path | None, typer.Option(help="Write the Parquet file here.")] = None,
) -> None:
    """Join labels with features as they were at each label's time."""
    with connect() as platform:
        made = platform.features.training_set(_rows(labels), feature, name=name)
        if to is not None:
            from mlops_platform.sdk.files import place

            place(platform.features.training_data(made), to)
        out.one(made, name="id")


def _rows(source: str) -> Any:
    if source.endswith(".parquet"):
        from mlops_platform.sdk.frames import read_parquet

        return read_parquet(source)
    found = document(source, "SOURCE")
    rows = found["rows"] if isinstance(found, dict) and "rows" in found else [found] if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise typer.BadParameter(f"{source} holds no rows: a list of objects, or one object a line.", param_hint="SOURCE")
    return rows

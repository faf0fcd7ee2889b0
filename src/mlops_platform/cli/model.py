"""`mlops model`: registered models and their versions."""

from pathlib import Path
from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, confirm, connect, noun, pairs

app = noun("Registered models: versions, files, aliases.")

Name = Annotated[str, typer.Argument(help="The model.", show_default=False)]
Version = Annotated[str, typer.Argument(help="The version, or @alias.", show_default=False)]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]
VERSION_COLUMNS = {
    "VERSION": "version",
    "STATUS": "status",
    "FRAMEWORK": "framework",
    "ALIASES": "aliases",
    "TAGS": "tags",
    "METRICS": "metrics",
    "CREATED": "created_at",
}


@command(
    app,
    "create",
    examples=[
        "mlops model create my-classifier 1.0.0 --framework scikit-learn --metric accuracy=0.95 --tag production",
        "mlops model create my-classifier --file model.joblib --finalize",
    ],
)
def create(
    out: Printer,
    name: Name,
    version: Annotated[str | None, typer.Argument(help="Absent: the next whole number.", show_default=False)] = None,
    framework: Annotated[str | None, typer.Option(help="Such as scikit-learn.")] = None,
    metric: Annotated[list[str], typer.Option(help="key=value; again for each.")] = [],  # noqa: B006  # typer copies it
    tag: Annotated[list[str], typer.Option(help="Again for each.")] = [],  # noqa: B006
    param: Annotated[list[str], typer.Option(help="key=value; again for each.")] = [],  # noqa: B006
    description: Annotated[str | None, typer.Option()] = None,
    run_id: Annotated[str | None, typer.Option(help="The tracked run that made it.")] = None,
    file: Annotated[Path | None, typer.Option(help="Upload this file or directory.", exists=True)] = None,
    finalize: Annotated[bool, typer.Option("--finalize", help="Make it ready: from then on it does not change.")] = False,
) -> None:
    """Add a version; its model is made when absent."""
    with connect() as platform:
        origin = {"run_id": run_id} if run_id else {}
        made = platform.registry.create_version(
            name,
            version,
            framework=framework,
            metrics=pairs(metric, "--metric") or None,
            tags=tag or None,
            params=pairs(param, "--param") or None,
            description=description,
            **origin,  # type: ignore[typeddict-item]  # the key is right or absent
        )
        if file is not None:
            platform.registry.upload(name, made.version, file)
        if finalize:
            made = platform.registry.finalize(name, made.version)
        out.one(made, name="version")


@command(app, "list", examples=["mlops model list --tag production", "mlops model list -o json"])
def list_models(
    out: Printer,
    tag: Annotated[list[str], typer.Option(help="Models with a version that carries all tags.")] = [],  # noqa: B006
    limit: Limit = 100,
) -> None:
    """List models."""
    with connect() as platform:
        columns = {
            "NAME": "name",
            "LATEST": "latest_version",
            "VERSIONS": "version_count",
            "ALIASES": "aliases",
            "TAGS": "tags",
        }
        out.many(platform.registry.models(tags=tag, limit=limit), columns)


@command(app, "show", examples=["mlops model show my-classifier", "mlops model show my-classifier @champion"])
def show(
    out: Printer,
    name: Name,
    version: Annotated[str | None, typer.Argument(help="A version, or @alias.", show_default=False)] = None,
) -> None:
    """Show a model, or one of its versions."""
    with connect() as platform:
        if version is None:
            out.one(platform.registry.get_model(name), name="name")
        else:
            out.one(platform.registry.get_version(name, version), name="version")


@command(app, "versions", examples=["mlops model versions my-classifier"])
def versions(out: Printer, name: Name, limit: Limit = 100) -> None:
    """List the versions of a model, the newest first."""
    with connect() as platform:
        out.many(platform.registry.versions(name, limit=limit), VERSION_COLUMNS)


@command(app, "upload", examples=["mlops model upload my-classifier 1.0.0 model.joblib"])
def upload(
    out: Printer,
    name: Name,
    version: Version,
    source: Annotated[Path, typer.Argument(help="A file or a directory.", exists=True, show_default=False)],
    path: Annotated[str | None, typer.Option(help="The path that it gets within the version.")] = None,
) -> None:
    """Upload files to a pending version."""
    with connect() as platform:
        files = platform.registry.upload(name, version, source, path=path)
        out.many(files, {"PATH": "path", "SIZE": "size", "SHA-256": "sha256"})


@command(app, "finalize", examples=["mlops model finalize my-classifier 1.0.0"])
def finalize(out: Printer, name: Name, version: Version) -> None:
    """Verify the files of a version and make it ready: from then on it does not change."""
    with connect() as platform:
        out.one(platform.registry.finalize(name, version), name="version")


@command(app, "download", examples=["mlops model download my-classifier @champion --to ./model"])
def download(
    out: Printer,
    name: Name,
    version: Version,
    to: Annotated[Path, typer.Option(help="The directory to put them in.")] = Path(),
) -> None:
    """Download the files of a version, each verified against its digest."""
    with connect() as platform:
        landed = platform.registry.download(name, version, to=to)
        out.one({"name": name, "version": version, "directory": str(landed)}, name="directory")


@command(
    app,
    "alias",
    examples=["mlops model alias my-classifier champion 1.0.0", "mlops model alias my-classifier champion --remove"],
)
def alias(
    out: Printer,
    name: Name,
    alias: Annotated[str, typer.Argument(help="Such as champion.", show_default=False)],
    version: Annotated[str | None, typer.Argument(help="The version it points at.", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
) -> None:
    """Point an alias at a version, atomically; or take it away."""
    if remove is (version is not None):
        raise typer.BadParameter("Give a version, or --remove.")
    with connect() as platform:
        if version is None:
            platform.registry.remove_alias(name, alias)
            out.say(f"{name}@{alias} is gone.")
        else:
            out.one(platform.registry.set_alias(name, alias, version), name="version")


@command(app, "delete", examples=["mlops model delete my-classifier 1.0.0 --yes"])
def delete(
    out: Printer,
    name: Name,
    version: Annotated[
        str | None, typer.Argument(help="Absent: the model with all its versions.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Hide a version, or a model with all its versions. Both can be restored."""
    what = name if version is None else f"{name} {version}"
    confirm(f"Delete {what}?", yes=yes)
    with connect() as platform:
        if version is None:
            platform.registry.delete_model(name)
        else:
            platform.registry.delete_version(name, version)
    out.say(f"{what} is deleted.")

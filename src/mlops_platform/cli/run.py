"""`mlops run`: runs of Experiment Tracking."""

from pathlib import Path
from typing import Annotated

import typer

from mlops_platform.cli.console import ExitCode, Printer, command, connect, noun, pairs

app = noun("Runs: parameters, metrics, artifacts.")

RunId = Annotated[str, typer.Argument(help="The run's id.", show_default=False)]
Experiments = Annotated[list[str], typer.Option("--experiment", "-e", help="Name or id; again for each.")]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]
RUN_COLUMNS = {
    "ID": "id",
    "NAME": "run_name",
    "STATUS": "status",
    "STARTED": "start_time",
    "SECONDS": "duration_seconds",
    "METRICS": "metrics",
}


@command(app, "create", examples=["mlops run create churn --name baseline --param lr=0.01"])
def create(
    out: Printer,
    experiment: Annotated[str, typer.Argument(help="Name or id; made when absent.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Absent: one is made up.")] = None,
    param: Annotated[list[str], typer.Option(help="key=value; again for each.")] = [],  # noqa: B006  # typer copies it
) -> None:
    """Start a run, for programs that record over HTTP."""
    with connect() as platform:
        started = platform.tracking.start_run(experiment, run_name=name, parameters=pairs(param, "--param") or None)
        out.one(started.info, name="id")


@command(app, "list", examples=["mlops run list -e churn"])
def list_runs(out: Printer, experiment: Experiments = [], limit: Limit = 50) -> None:  # noqa: B006
    """List runs."""
    with connect() as platform:
        out.many(platform.tracking.search(experiments=experiment, limit=limit), RUN_COLUMNS)


@command(
    app,
    "search",
    examples=["mlops run search 'metrics.accuracy > 0.9 AND params.lr <= 0.01' --order-by 'metrics.accuracy DESC'"],
)
def search(
    out: Printer,
    query: Annotated[str, typer.Argument(help="Conditions, such as metrics.accuracy > 0.9.", show_default=False)],
    experiment: Experiments = [],  # noqa: B006
    order_by: Annotated[list[str], typer.Option(help="Such as 'metrics.loss ASC'.")] = [],  # noqa: B006
    limit: Limit = 50,
) -> None:
    """Find runs."""
    with connect() as platform:
        found = platform.tracking.search(query, experiments=experiment, order_by=order_by, limit=limit)
        out.many(found, RUN_COLUMNS)


@command(app, "show", examples=["mlops run show 0198c0ffee00700080000000deadbeef"])
def show(out: Printer, run_id: RunId) -> None:
    """Show a run."""
    with connect() as platform:
        out.one(platform.tracking.get_run(run_id), name="id")


@command(app, "metrics", examples=["mlops run metrics 0198c0ffee00700080000000deadbeef --key loss"])
def metrics(
    out: Printer,
    run_id: RunId,
    key: Annotated[str | None, typer.Option(help="All points of this metric.")] = None,
    limit: Limit = 1000,
) -> None:
    """Show what is kept of each metric, or all points of one."""
    with connect() as platform:
        if key is None:
            columns = {
                "KEY": "key",
                "LAST": "last",
                "STEP": "step",
                "MIN": "min",
                "MAX": "max",
                "MEAN": "mean",
                "POINTS": "count",
            }
            out.many(platform.tracking.metrics(run_id), columns)
        else:
            columns = {"STEP": "step", "VALUE": "value", "TIME": "timestamp"}
            out.many(platform.tracking.history(run_id, key, limit=limit), columns)


@command(app, "artifacts", examples=["mlops run artifacts 0198c0ffee00700080000000deadbeef"])
def artifacts(out: Printer, run_id: RunId, path: Annotated[str, typer.Argument(help="A folder within them.")] = "") -> None:
    """List the artifacts of a run."""
    with connect() as platform:
        columns = {"PATH": "path", "FOLDER": "is_folder", "SIZE": "size", "SHA-256": "sha256"}
        out.many(platform.tracking.artifacts(run_id, path), columns)


@command(app, "download", examples=["mlops run download 0198c0ffee00700080000000deadbeef --to ./artifacts"])
def download(
    out: Printer,
    run_id: RunId,
    path: Annotated[str, typer.Argument(help="A file or a folder; absent: all.")] = "",
    to: Annotated[Path, typer.Option(help="The directory to put them in.")] = Path(),
) -> None:
    """Download artifacts, each verified against its digest."""
    with connect() as platform:
        landed = platform.tracking.download_artifacts(run_id, path, to=to)
        out.one({"run_id": run_id, "directory": str(landed)}, name="directory")


@command(app, "finish", examples=["mlops run finish 0198c0ffee00700080000000deadbeef --status FAILED"])
def finish(
    out: Printer, run_id: RunId, status: Annotated[str, typer.Option(help="FINISHED, FAILED or KILLED.")] = "FINISHED"
) -> None:
    """End a run."""
    with connect() as platform:
        out.one(platform.tracking.update_run(run_id, status=status), name="id")


@command(app, "sync", examples=["mlops run sync"])
def sync(out: Printer) -> None:
    """Send what was recorded on this machine while the platform was away."""
    with connect() as platform:
        delivered, remaining = platform.tracking.sync()
        out.one({"delivered": delivered, "remaining": remaining}, name="remaining")
    if remaining:
        raise typer.Exit(ExitCode.UNAVAILABLE)


Target = Annotated[str, typer.Argument(help="The experiment it goes to: name or id.", show_default=False)]


@command(app, "move", examples=["mlops run move 0198c0ffee00700080000000deadbeef archive/churn"])
def move(out: Printer, run_id: RunId, experiment: Target) -> None:
    """Give a run to another experiment."""
    with connect() as platform:
        out.one(platform.tracking.move_run(run_id, experiment), name="id")


@command(app, "copy", examples=["mlops run copy 0198c0ffee00700080000000deadbeef reference --name best-of-2026"])
def copy(
    out: Printer,
    run_id: RunId,
    experiment: Target,
    name: Annotated[str | None, typer.Option(help="Absent: that of the original.")] = None,
) -> None:
    """Copy a run that has ended, with its points and artifacts."""
    options = {"run_name": name} if name else {}
    with connect() as platform:
        out.one(platform.tracking.copy_run(run_id, experiment, **options), name="id")


@command(
    app,
    "correct",
    examples=["mlops run correct 0198c0ffee00700080000000deadbeef lr=0.1 --reason 'was logged as a percentage'"],
)
def correct(
    out: Printer,
    run_id: RunId,
    param: Annotated[str, typer.Argument(help="key=value, the value as it should have been.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit.", show_default=False)],
) -> None:
    """Correct a parameter that was logged wrong."""
    [(key, value)] = pairs([param], "PARAM").items()
    with connect() as platform:
        out.one(platform.tracking.correct_param(run_id, key, value, reason=reason), name="id")


@command(
    app,
    "compare",
    examples=["mlops run compare 0198c0ffee00700080000000deadbeef 0198c0ffee00700080000000deadbee0 --target accuracy"],
)
def compare(
    out: Printer,
    run_ids: Annotated[list[str], typer.Argument(help="Ids of runs.", show_default=False)],
    target: Annotated[str | None, typer.Option(help="A metric: how do parameters correlate with it?")] = None,
) -> None:
    """Show the parameters in which runs differ, and their metrics, a run in each column."""
    options = {"target": target} if target else {}
    with connect() as platform:
        found = platform.tracking.compare(run_ids, **options)
    names = [run.run_name for run in found.runs]
    # Two runs may have one name; columns may not. A row is keyed by ids, since a name may hold a dot.
    columns = {
        name if names.count(name) == 1 else f"{name} ({run.id[-6:]})": run.id
        for name, run in zip(names, found.runs, strict=True)
    }
    rows = [("params." + each.key, each.values) for each in found.params]
    rows += [("metrics." + each.key, each.values) for each in found.metrics]
    lines = [{"field": field, **dict(zip(columns.values(), values, strict=True))} for field, values in rows]
    out.many(lines, {"FIELD": "field", **columns})


@command(app, "comment", examples=["mlops run comment 0198c0ffee00700080000000deadbeef 'Overfits, @grace?'"])
def comment(
    out: Printer,
    run_id: RunId,
    text: Annotated[str, typer.Argument(help="Markdown; @name mentions somebody.", show_default=False)],
) -> None:
    """Comment on a run."""
    with connect() as platform:
        out.one(platform.tracking.comment(run_id, text), name="id")

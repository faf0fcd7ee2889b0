"""`mlops pipeline`: pipelines and their runs."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, confirm, connect, document, noun, pairs

app = noun("Pipelines: documents, runs, logs, schedules.")

Name = Annotated[str, typer.Argument(help="The pipeline.", show_default=False)]
RunId = Annotated[str, typer.Argument(help="The pipeline run's id.", show_default=False)]
Limit = Annotated[int, typer.Option(help="How many at most.", min=1)]
RUN_COLUMNS = {"ID": "id", "PIPELINE": "pipeline", "VERSION": "version", "STATE": "state", "CREATED": "created_at"}


@command(app, "create", examples=["mlops pipeline create pipeline.json"])
def create(
    out: Printer,
    source: Annotated[str, typer.Argument(help="The document as JSON; - is standard input.", show_default=False)],
) -> None:
    """Make a pipeline, or a new version of it, from its document."""
    with connect() as platform:
        out.one(platform.pipelines.create_from(document(source, "SOURCE")), name="version")


@command(app, "list", examples=["mlops pipeline list"])
def list_pipelines(out: Printer, limit: Limit = 100) -> None:
    """List pipelines."""
    with connect() as platform:
        columns = {"NAME": "name", "VERSION": "current_version", "SCHEDULE": "schedule.cron", "NEXT": "schedule.next_at"}
        out.many(platform.pipelines.list(limit=limit), columns)


@command(app, "show", examples=["mlops pipeline show nightly"])
def show(out: Printer, name: Name) -> None:
    """Show a pipeline."""
    with connect() as platform:
        out.one(platform.pipelines.get(name), name="name")


@command(app, "delete", examples=["mlops pipeline delete nightly --yes"])
def delete(out: Printer, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Hide a pipeline. Its runs stay."""
    confirm(f"Delete {name}?", yes=yes)
    with connect() as platform:
        platform.pipelines.delete(name)
    out.say(f"{name} is deleted.")


@command(app, "run", examples=["mlops pipeline run nightly --param rows=1000 --wait"])
def run(
    out: Printer,
    name: Name,
    param: Annotated[list[str], typer.Option(help="key=value; again for each.")] = [],  # noqa: B006  # typer copies it
    version: Annotated[int | None, typer.Option(help="Absent: the latest.", min=1)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 unless it succeeds.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Wait so many seconds at most.")] = None,
) -> None:
    """Start a run."""
    with connect() as platform:
        started = platform.pipelines.run(name, pairs(param, "--param") or None, version=version)
        if wait:
            out.say(f"Run {started.id} is under way.")
            out.one(platform.pipelines.wait(started.id, timeout_seconds=timeout), name="id")
        else:
            out.one(started, name="id")


@command(app, "runs", examples=["mlops pipeline runs nightly --state failed"])
def runs(
    out: Printer,
    name: Annotated[str | None, typer.Argument(help="Absent: of all pipelines.", show_default=False)] = None,
    state: Annotated[str | None, typer.Option(help="Such as running or failed.")] = None,
    limit: Limit = 50,
) -> None:
    """List runs, the newest first."""
    with connect() as platform:
        out.many(platform.pipelines.runs(name, state=state, limit=limit), RUN_COLUMNS)


@command(app, "status", examples=["mlops pipeline status 0198c0ffee00700080000000deadbeef"])
def status(out: Printer, run_id: RunId) -> None:
    """Show where a run stands."""
    with connect() as platform:
        out.one(platform.pipelines.get_run(run_id), name="state")


@command(app, "tasks", examples=["mlops pipeline tasks 0198c0ffee00700080000000deadbeef"])
def tasks(out: Printer, run_id: RunId) -> None:
    """List the tasks of a run."""
    with connect() as platform:
        columns = {"TASK": "task", "ITEM": "item", "STATE": "state", "ATTEMPT": "attempt", "ERROR": "error.message"}
        out.many(platform.pipelines.tasks(run_id), columns)


@command(app, "logs", examples=["mlops pipeline logs 0198c0ffee00700080000000deadbeef train --follow"])
def logs(
    out: Printer,
    run_id: RunId,
    task: Annotated[str | None, typer.Argument(help="Absent: all tasks in turn.", show_default=False)] = None,
    item: Annotated[int | None, typer.Option(help="The index within a fan-out.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task ends.")] = False,
) -> None:
    """Print what tasks wrote."""
    with connect() as platform:
        wanted = [(task, item)] if task else [(found.task, found.item) for found in platform.pipelines.tasks(run_id)]
        for name, index in wanted:
            prefix = "" if task else f"{name}{'' if index is None else f'[{index}]'}: "
            for line in platform.pipelines.logs(run_id, name, item=index, follow=follow):
                out.line(line, f"{prefix}{line.text}")


@command(app, "retry", examples=["mlops pipeline retry 0198c0ffee00700080000000deadbeef"])
def retry(out: Printer, run_id: RunId) -> None:
    """Run again what failed in a run."""
    with connect() as platform:
        out.one(platform.pipelines.retry(run_id), name="state")


@command(app, "cancel", examples=["mlops pipeline cancel 0198c0ffee00700080000000deadbeef"])
def cancel(out: Printer, run_id: RunId) -> None:
    """Cancel a run."""
    with connect() as platform:
        out.one(platform.pipelines.cancel(run_id), name="state")


@command(
    app,
    "schedule",
    examples=[
        "mlops pipeline schedule nightly --cron '30 2 * * *' --time-zone Europe/Paris",
        "mlops pipeline schedule nightly --pause",
    ],
)
def schedule(
    out: Printer,
    name: Name,
    cron: Annotated[str | None, typer.Option(help="Minute, hour, day, month, weekday.")] = None,
    time_zone: Annotated[str, typer.Option()] = "UTC",
    pause: Annotated[bool, typer.Option("--pause")] = False,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    remove: Annotated[bool, typer.Option("--remove")] = False,
) -> None:
    """Set, pause, resume or remove the schedule of a pipeline."""
    if [cron is not None, pause, resume, remove].count(True) != 1:
        raise typer.BadParameter("Give one of --cron, --pause, --resume, --remove.")
    with connect() as platform:
        if cron is not None:
            out.one(platform.pipelines.set_schedule(name, cron, time_zone=time_zone), name="next_at")
        elif remove:
            platform.pipelines.remove_schedule(name)
            out.say(f"{name} no longer runs by itself.")
        else:
            out.one(platform.pipelines.pause_schedule(name, is_paused=pause), name="next_at")

"""`mlops run reproduce`, `mlops run diff` and `mlops sync`: runs once more, side by side, and from offline."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_platform.cli.console import ExitCode, OutputFormat, Printer, command, confirm, connect

if TYPE_CHECKING:
    from mlops_platform.sdk import Platform
    from mlops_platform.sdk.differences import Facts

RunId = Annotated[str, typer.Argument(help="The run's id.", show_default=False)]
SYNC_COLUMNS = {
    "ID": "id",
    "EXPERIMENT": "experiment",
    "OUTCOME": "outcome",
    "SENT": "sent",
    "REFUSED": "refused",
    "WHY": "why",
}
READ_COLUMNS = {
    "ID": "id",
    "EXPERIMENT": "experiment",
    "NAME": "run_name",
    "STATUS": "status",
    "SYNCED": "synced",
    "METRICS": "metrics",
}


def add_to(runs: typer.Typer, app: typer.Typer) -> None:
    """Add to the noun `run`, and `sync` beside the nouns."""

    @command(
        runs,
        "reproduce",
        examples=[
            "mlops run reproduce 0198c0ffee00700080000000deadbeef",
            "mlops run reproduce 0198c0ffee00700080000000deadbeef --execute --to ../again --yes",
        ],
    )
    def reproduce(
        out: Printer,
        run_id: RunId,
        execute: Annotated[bool, typer.Option("--execute", help="Do it: run its code on this machine.")] = False,
        to: Annotated[Path | None, typer.Option(help="The folder to make. Absent: run-ID beside the repository.")] = None,
        repository: Annotated[Path, typer.Option(help="A clone of the repository that holds the commit.")] = Path(),
        arguments: Annotated[str | None, typer.Option(help="Arguments in place of those that were recorded.")] = None,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Print the steps that re-create a run, or perform them in a fresh environment and a git worktree."""
        _reproduce(out, run_id, execute=execute, to=to, repository=repository, arguments=arguments, yes=yes)

    @command(runs, "diff", examples=["mlops run diff 0198c0ffee00700080000000deadbeef 0198c0ffee00700080000000deadbee0"])
    def diff(
        out: Printer,
        a: Annotated[str, typer.Argument(help="The one run.", show_default=False)],
        b: Annotated[str, typer.Argument(help="The other run.", show_default=False)],
    ) -> None:
        """Show every difference of two runs: parameters, metrics, code, environment, machine, data, tags."""
        from mlops_platform.sdk.differences import differences

        with connect() as platform:
            found = differences(_facts(platform, a), _facts(platform, b))
        rows = (
            found
            if out.output is OutputFormat.JSON
            else [{key: _text(value) for key, value in row.items()} for row in found]
        )
        out.many(rows, {"AREA": "area", "KEY": "key", "A": "a", "B": "b"})

    @command(app, "sync", examples=["mlops sync", "mlops sync ./offline", "mlops sync --read -o json"])
    def sync(
        out: Printer,
        directory: Annotated[Path | None, typer.Argument(help="Absent: MLOPS_HOME/offline.", show_default=False)] = None,
        read: Annotated[bool, typer.Option("--read", help="Only show what was recorded; nothing is sent.")] = False,
    ) -> None:
        """Bring runs that were recorded offline to the server. Doing it again does nothing twice."""
        if read:
            _read(out, directory)
            return
        with connect() as platform:
            found = platform.tracking.sync_offline(directory)
            _, remaining = platform.tracking.sync()
        out.many([{column: getattr(run, column) for column in SYNC_COLUMNS.values()} for run in found], SYNC_COLUMNS)
        if remaining or any(run.outcome == "waiting" for run in found):
            raise typer.Exit(ExitCode.UNAVAILABLE)


def _read(out: Printer, directory: Path | None) -> None:
    from mlops_platform.sdk.offline import recorded
    from mlops_platform.sdk.settings import load_client_settings

    out.many([run.summary() for run in recorded(directory or load_client_settings().offline_runs)], READ_COLUMNS)


def _reproduce(
    out: Printer, run_id: str, *, execute: bool, to: Path | None, repository: Path, arguments: str | None, yes: bool
) -> None:
    from mlops_platform.sdk import replay

    with connect() as platform:
        facts = _facts(platform, run_id)
    source = repository.resolve()
    plan = replay.plan(
        facts.started,
        requirements=facts.requirements,
        changes=facts.changes,
        repository=source,
        target=(to or source.parent / f"run-{run_id}").resolve(),
        arguments=None if arguments is None else shlex.split(arguments),
    )
    for warning in plan.warnings:
        out.say(f"Note: {warning}")
    if not execute:
        out.many(
            [{"step": step.title, "command": str(step)} for step in plan.steps], {"STEP": "step", "COMMAND": "command"}
        )
        return
    if not yes:
        for step in plan.steps:
            out.say(f"{step.title}: {step}")
    confirm("Run this code of the run on this machine?", yes=yes)
    replay.execute(plan, say=out.say)
    out.one({"run_id": run_id, "folder": str(plan.steps[-1].folder)}, name="folder")


def _facts(platform: "Platform", run_id: str) -> "Facts":
    from mlops_platform.sdk import reproduction
    from mlops_platform.sdk.differences import Facts
    from mlops_platform.sdk.errors import MlopsError

    run = platform.tracking.get_run(run_id)
    started = _artifact(platform, run_id, reproduction.RUN_FILE)
    try:
        graph = platform.registry.lineage(f"run:{run_id}", depth=1)
        inputs = sorted(edge.object for edge in graph.edges if edge.relation == "used" and edge.subject == graph.root)
    except MlopsError:
        # Nothing was stated of it, or the Model Registry is away: the rest can still be compared.
        inputs = []
    return Facts(
        run=run,
        started=_object(started),
        requirements=_artifact(platform, run_id, reproduction.ENVIRONMENT_FILE).decode(errors="replace"),
        changes=_artifact(platform, run_id, reproduction.CHANGES_FILE),
        inputs=inputs,
    )


def _artifact(platform: "Platform", run_id: str, path: str) -> bytes:
    from mlops_platform.sdk.errors import NotFound

    try:
        return platform.tracking.read_artifact(run_id, path)
    except NotFound:
        return b""


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value

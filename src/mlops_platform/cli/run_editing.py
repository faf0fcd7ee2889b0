"""`mlops run`, second part: who writes a run, what is cut from it, and what becomes of it."""

from typing import Annotated

import typer

from mlops_platform.cli.console import Printer, command, confirm, connect, texts
from mlops_platform.cli.run import RUN_COLUMNS, Limit, RunId

Keys = Annotated[list[str], typer.Option("--key", help="A metric, such as loss or 'loss{split=val}'; again for each.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
ID = "0198c0ffee00700080000000deadbeef"


def add_to(runs: typer.Typer) -> None:
    """Add to the noun `run`."""
    _add_life(runs)
    _add_removal(runs)
    _add_metrics(runs)
    _add_talk(runs)


def _add_life(runs: typer.Typer) -> None:
    @command(runs, "resume", examples=[f"mlops run resume {ID} --writer trainer-1", f"mlops run resume {ID} --take-over"])
    def resume(
        out: Printer,
        run_id: RunId,
        writer: Annotated[str | None, typer.Option(help="Who goes on with it. Absent: a name is made up.")] = None,
        heartbeat_seconds: Annotated[
            int | None, typer.Option(help="For how long that one may be silent.", min=5, max=604_800)
        ] = None,
        take_over: Annotated[bool, typer.Option("--take-over", help="Also from another one, which is dead.")] = False,
    ) -> None:
        """Set a run running again, for one writer, for programs that record over HTTP."""
        from mlops_platform.sdk.heartbeat import new_writer

        with connect() as platform:
            name = writer or new_writer()
            platform.tracking.take_run(run_id, name, heartbeat_seconds=heartbeat_seconds, take_over=take_over)
            out.one(platform.tracking.lease(run_id), name="writer")

    @command(runs, "writer", examples=[f"mlops run writer {ID}"])
    def writer(out: Printer, run_id: RunId) -> None:
        """Show who writes a run, and when it was last heard."""
        with connect() as platform:
            out.one(platform.tracking.lease(run_id), name="writer")

    @command(runs, "children", examples=[f"mlops run children {ID}"])
    def children(out: Printer, run_id: RunId, limit: Limit = 100) -> None:
        """List the runs directly below a run."""
        with connect() as platform:
            out.many(platform.tracking.children(run_id, limit=limit), RUN_COLUMNS)


def _add_removal(runs: typer.Typer) -> None:
    @command(runs, "delete", examples=[f"mlops run delete {ID} --yes"])
    def delete(out: Printer, run_id: RunId, yes: Yes = False) -> None:
        """Hide a run. It can be restored."""
        confirm(f"Delete {run_id}?", yes=yes)
        with connect() as platform:
            platform.tracking.delete_run(run_id)
        out.say(f"{run_id} is deleted.")

    @command(runs, "restore", examples=[f"mlops run restore {ID}"])
    def restore(out: Printer, run_id: RunId) -> None:
        """Bring a deleted run back."""
        with connect() as platform:
            out.one(platform.tracking.restore_run(run_id), name="id")

    @command(runs, "purge", examples=[f"mlops run purge {ID} --yes"])
    def purge(out: Printer, run_id: RunId, yes: Yes = False) -> None:
        """Remove a deleted run for ever."""
        confirm(f"Remove {run_id} for ever?", yes=yes)
        with connect() as platform:
            out.one(platform.tracking.purge_run(run_id), name="runs")


def _add_metrics(runs: typer.Typer) -> None:
    @command(
        runs,
        "truncate",
        examples=[f"mlops run truncate {ID} --from-step 1000 --reason 'goes on from a checkpoint' --yes"],
    )
    def truncate(
        out: Printer,
        run_id: RunId,
        from_step: Annotated[int, typer.Option(help="Points of this step and later ones go.", show_default=False)],
        key: Keys = [],  # noqa: B006  # typer copies it
        reason: Annotated[str | None, typer.Option(help="Why; it stands in the audit.")] = None,
        yes: Yes = False,
    ) -> None:
        """Remove the points of a run from a step on: of all metrics, or of some."""
        confirm(f"Remove points of {run_id} from step {from_step} on?", yes=yes)
        with connect() as platform:
            done = platform.tracking.truncate_metrics(run_id, from_step=from_step, keys=key or None, reason=reason)
        columns = {"KEY": "key", "CONTEXT": "context", "REMOVED": "removed", "REMAINING": "remaining"}
        out.many(done.metrics, columns)

    @command(runs, "series", examples=[f"mlops run series {ID} --key loss --key 'loss{{split=val}}' --max-points 100"])
    def series(
        out: Printer,
        run_ids: Annotated[list[str], typer.Argument(help="Ids of runs.", show_default=False)],
        key: Keys = [],  # noqa: B006
        x: Annotated[str, typer.Option(help="step, time or relative_time.")] = "step",
        max_points: Annotated[int, typer.Option(help="Of each series.", min=4, max=2000)] = 320,
        method: Annotated[str, typer.Option(help="minmax keeps peaks, lttb the shape of the line.")] = "minmax",
    ) -> None:
        """Show metrics of runs as a chart has them: reduced, the extremes kept."""
        if not key:
            raise typer.BadParameter("Name at least one metric.", param_hint="--key")
        with connect() as platform:
            found = platform.tracking.series(run_ids, key, x=x, max_points=max_points, method=method)
        out.many(found.rows(), {"RUN": "run_id", "KEY": "key", "X": "x", "Y": "y"})


def _add_talk(runs: typer.Typer) -> None:
    @command(runs, "comments", examples=[f"mlops run comments {ID}"])
    def comments(out: Printer, run_id: RunId, limit: Limit = 100) -> None:
        """List the comments on a run."""
        with connect() as platform:
            columns = {"ID": "id", "AUTHOR": "author", "CREATED": "created_at", "TEXT": "text"}
            out.many(platform.tracking.comments(run_id, limit=limit), columns)

    @command(runs, "tag", examples=[f"mlops run tag {ID} team=growth stage=final --remove draft"])
    def tag(
        out: Printer,
        run_id: RunId,
        tags: Annotated[list[str], typer.Argument(help="key=value; again for each.", show_default=False)] = [],  # noqa: B006
        remove: Annotated[list[str], typer.Option(help="The key of a tag to remove; again for each.")] = [],  # noqa: B006
    ) -> None:
        """Set and remove tags of a run."""
        changes: dict[str, str | None] = {**texts(tags, "TAGS"), **dict.fromkeys(remove)}
        with connect() as platform:
            out.one(platform.tracking.update_run(run_id, tags=changes), name="id")

"""`mlops sweep`: searches for the best parameters."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from mlops_platform.cli.console import Printer, command, connect, document, noun

app = noun("Sweeps: searches for the best parameters.")

SweepId = Annotated[str, typer.Argument(help="The sweep's id.", show_default=False)]
TRIAL_COLUMNS = {
    "RUN": "run_id",
    "TRIAL": "number",
    "STATE": "state",
    "VALUES": "values",
    "PARAMETERS": "parameters",
}


@command(
    app,
    "create",
    examples=[
        "mlops sweep create churn sweep.json",
        """echo '{"parameters": {"lr": {"min": 0.001, "max": 0.1}}}' | mlops sweep create churn - --objective loss""",
    ],
)
def create(
    out: Printer,
    experiment: Annotated[str, typer.Argument(help="Name or id; made when absent.", show_default=False)],
    file: Annotated[
        str,
        typer.Argument(
            help="JSON, TOML or YAML: 'parameters' and more, or a sweep configuration of W&B; - is standard input.",
            show_default=False,
        ),
    ],
    objective: Annotated[str | None, typer.Option(help="The metric. Absent: as the file says.")] = None,
    goal: Annotated[str, typer.Option(help="minimize or maximize.")] = "minimize",
    method: Annotated[str | None, typer.Option(help="tpe, random, grid or qmc. Absent: as the file says.")] = None,
    max_trials: Annotated[int | None, typer.Option(help="How many points to try.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Absent: one is drawn, and shown.", min=0)] = None,
) -> None:
    """Start a sweep. Workers join it with platform.tracking.open_sweep(ID)."""
    config = _configuration(file)
    limits = {name: value for name, value in (("max_trials", max_trials), ("seed", seed)) if value is not None}
    with connect() as platform:
        try:
            made = platform.tracking.sweep(
                experiment,
                objective=objective,
                goal=goal,
                method=method,
                config=config,
                **limits,  # type: ignore[arg-type]  # two of the options by name
            )
        except ValueError as error:
            raise typer.BadParameter(f"{file}: {error}", param_hint="FILE") from error
        out.one(made.info, name="id")


@command(app, "list", examples=["mlops sweep list", "mlops sweep list -e churn"])
def list_sweeps(
    out: Printer,
    experiment: Annotated[str | None, typer.Option("--experiment", "-e", help="Name or id.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
) -> None:
    """List sweeps, the newest first."""
    with connect() as platform:
        columns = {"ID": "id", "NAME": "name", "STATUS": "status", "METHOD": "method", "SIZE": "size", "TRIALS": "trials"}
        out.many(platform.tracking.sweeps(experiment, limit=limit), columns)


@command(app, "show", examples=["mlops sweep show 0198c0ffee00700080000000deadbeef"])
def show(out: Printer, sweep_id: SweepId) -> None:
    """Show a sweep."""
    with connect() as platform:
        out.one(platform.tracking.open_sweep(sweep_id).info, name="id")


@command(app, "trials", examples=["mlops sweep trials 0198c0ffee00700080000000deadbeef"])
def trials(
    out: Printer, sweep_id: SweepId, limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100
) -> None:
    """List the trials of a sweep in the order in which they were asked for."""
    with connect() as platform:
        out.many(platform.tracking.open_sweep(sweep_id).trials(limit=limit), TRIAL_COLUMNS)


@command(app, "best", examples=["mlops sweep best 0198c0ffee00700080000000deadbeef"])
def best(out: Printer, sweep_id: SweepId) -> None:
    """Show the best trial; of several objectives all that no other one beats."""
    with connect() as platform:
        out.many(platform.tracking.open_sweep(sweep_id).best_trials(), TRIAL_COLUMNS)


@command(app, "stop", examples=["mlops sweep stop 0198c0ffee00700080000000deadbeef --reason 'good enough'"])
def stop(
    out: Printer, sweep_id: SweepId, reason: Annotated[str | None, typer.Option(help="Is shown with the sweep.")] = None
) -> None:
    """Hand out no more trials. Those that are under way go on."""
    with connect() as platform:
        out.one(platform.tracking.open_sweep(sweep_id).stop(reason), name="id")


@command(app, "resume", examples=["mlops sweep resume 0198c0ffee00700080000000deadbeef --max-trials 200"])
def resume(
    out: Printer,
    sweep_id: SweepId,
    max_trials: Annotated[int | None, typer.Option(help="How many points to try, with those tried.", min=1)] = None,
) -> None:
    """Go on with a sweep that was stopped or is over."""
    with connect() as platform:
        out.one(platform.tracking.open_sweep(sweep_id).resume(max_trials=max_trials), name="id")


def _configuration(file: str) -> dict[str, Any]:
    suffix = Path(file).suffix.lower()
    read = _toml(file) if suffix == ".toml" else _yaml(file) if suffix in {".yaml", ".yml"} else document(file, "FILE")
    if not isinstance(read, dict):
        raise typer.BadParameter(f"{file} holds no object with 'parameters'.", param_hint="FILE")
    return read


def _toml(file: str) -> Any:
    try:
        return tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise typer.BadParameter(f"{file} is not TOML: {error}.", param_hint="FILE") from error


def _yaml(file: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]  # it carries no types
    except ImportError as error:
        raise typer.BadParameter("YAML needs the package 'pyyaml'; JSON and TOML need none.", param_hint="FILE") from error
    try:
        # By way of JSON: what has no place there, such as a date, must not surprise the server.
        return json.loads(json.dumps(yaml.safe_load(_text(file))))
    except (yaml.YAMLError, TypeError) as error:
        raise typer.BadParameter(f"{file} is not YAML that can be sent: {error}.", param_hint="FILE") from error


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}.", param_hint="FILE") from error

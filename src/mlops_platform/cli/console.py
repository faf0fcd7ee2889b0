"""What all commands share: output, exit codes, and the wrapper that gives each of them both.

Only typer is imported here at the top: `mlops --help` must not wait for the client library.
"""

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mlops_platform.sdk import Platform
    from mlops_platform.sdk.errors import MlopsError


class ExitCode(IntEnum):
    """What the shell sees. Documented in `mlops --help`; they never change."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130


class OutputFormat(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


Columns = Mapping[str, str]
"""Heading and attribute, in order; the first one names the thing, and is what `--quiet` prints."""

_OUTPUT = inspect.Parameter(
    "output",
    inspect.Parameter.KEYWORD_ONLY,
    default=OutputFormat.TABLE,
    annotation=Annotated[
        OutputFormat, typer.Option("--output", "-o", envvar="MLOPS_OUTPUT", help="A table for people, JSON for programs.")
    ],
)
_QUIET = inspect.Parameter(
    "quiet",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--quiet", "-q", help="Print names or ids only.")],
)


class Printer:
    """Answers go to standard output and nothing else does; the rest goes to standard error."""

    def __init__(self, output: OutputFormat, *, quiet: bool) -> None:
        self.output = output
        self.quiet = quiet

    def one(self, item: "BaseModel | Mapping[str, Any]", *, name: str) -> None:
        """One thing; `name` is the attribute that `--quiet` prints."""
        fields = _plain(item)
        if self.output is OutputFormat.JSON:
            _write(json.dumps(fields, indent=2, ensure_ascii=False))
        elif self.quiet:
            _write(_cell(fields.get(name)))
        else:
            width = max((len(field) for field in fields), default=0)
            for field, value in fields.items():
                _write(f"{field.ljust(width)}  {_cell(value)}")

    def many(self, items: "Iterable[BaseModel | Mapping[str, Any]]", columns: Columns) -> None:
        """A list of things."""
        rows = [_plain(item) for item in items]
        if self.output is OutputFormat.JSON:
            _write(json.dumps(rows, indent=2, ensure_ascii=False))
            return
        cells = [[_cell(_pick(row, path)) for path in columns.values()] for row in rows]
        if self.quiet:
            for row in cells:
                _write(row[0])
            return
        _table(list(columns), cells)
        if not rows:
            self.say("Nothing found.")

    def line(self, item: "BaseModel", text: str) -> None:
        """One thing of an endless list, at once: a line of text, or of JSON."""
        _write(json.dumps(_plain(item), ensure_ascii=False) if self.output is OutputFormat.JSON else printable(text))

    def say(self, text: str) -> None:
        """A word to the person at the terminal."""
        if not self.quiet:
            typer.echo(text, err=True)


def command(app: typer.Typer, name: str, *, examples: Sequence[str] = ()) -> Callable[[Callable[..., None]], None]:
    """Make a command of a function whose first parameter is a `Printer`.

    The command gets `-o` and `-q`, prints the examples below its help, and turns errors into one line and an exit code.
    """

    def decorate(function: Callable[..., None]) -> None:
        signature = inspect.signature(function)
        parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "out"]

        @wraps(function)
        def run(*, output: OutputFormat, quiet: bool, **arguments: Any) -> None:
            with exit_codes():
                function(Printer(output, quiet=quiet), **arguments)

        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__signature__ = signature.replace(parameters=[*keyword_only, _OUTPUT, _QUIET])  # type: ignore[attr-defined]  # read by typer
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*keyword_only, _OUTPUT, _QUIET]}
        # The backspace keeps the lines as they are: a wrapped example cannot be copied.
        epilog = "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)]) if examples else None
        app.command(name, epilog=epilog)(run)

    return decorate


def noun(help: str) -> typer.Typer:  # noqa: A002  # the word of typer
    """A group of commands about one kind of thing."""
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors that people understand end the command with one line and a code; others are bugs and keep their traceback."""
    from mlops_platform.sdk.errors import MlopsError

    try:
        yield
    except MlopsError as error:
        typer.echo(f"mlops: {printable(str(error))}", err=True)
        raise typer.Exit(_code_of(error)) from error
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; without this Python complains once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.OK) from None
    except OSError as error:
        # A file that cannot be read or written here: the disk, its rights, its room.
        text = f"{error.filename}: {error.strerror}." if error.filename else str(error)
        typer.echo(f"mlops: {printable(text)}", err=True)
        raise typer.Exit(ExitCode.ERROR) from error
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


@contextmanager
def connect() -> "Iterator[Platform]":
    """The platform as the environment and `MLOPS_HOME` describe it."""
    from dataclasses import replace

    from mlops_platform.sdk import Platform
    from mlops_platform.sdk.settings import load_client_settings

    # A command works with the server, whatever the programs beside it do; and how it was started says nothing of a run.
    # It ends before the run does, so it promises no sign of life for it.
    settings = replace(
        load_client_settings(),
        offline=False,
        capture=False,
        system_metrics=False,
        heartbeat_seconds=0.0,
        must_reach=True,
    )
    with Platform(settings=settings) as platform:
        yield platform


def texts(given: Iterable[str], option: str) -> dict[str, str]:
    """`key=value` arguments whose values are text, whatever they look like: a tag `1.10` is not the number 1.1."""
    split = (text.partition("=") for text in given)
    return {_key(key, separator, value, option): value for key, separator, value in split}


def pairs(given: Iterable[str], option: str) -> dict[str, Any]:
    """`key=value` arguments; a value that is JSON is read as JSON, all else is text."""
    found: dict[str, Any] = {}
    for key, value in texts(given, option).items():
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _key(key: str, separator: str, value: str, option: str) -> str:
    if not separator or not key:
        raise typer.BadParameter(f"{key + separator + value!r} is not of the form key=value.", param_hint=option)
    return key


def document(path: str, option: str) -> Any:
    """A JSON file; `-` is standard input. One object or list, or JSON Lines."""
    try:
        text = sys.stdin.read() if path == "-" else _read(path)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint=option) from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not text in UTF-8.", param_hint=option) from error
    try:
        return json.loads(text)
    except ValueError:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise typer.BadParameter(f"{path} is neither JSON nor JSON Lines: {error}.", param_hint=option) from error


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is removed; without a terminal `--yes` must say it."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("This removes something: confirm with --yes.", param_hint="--yes")
        typer.confirm(question, abort=True, err=True)


def _code_of(error: "MlopsError") -> ExitCode:
    from mlops_platform.sdk import errors

    codes = (
        (errors.NotFound, ExitCode.NOT_FOUND),
        ((errors.Unauthenticated, errors.PermissionDenied), ExitCode.NOT_ALLOWED),
        ((errors.PlatformUnreachable, errors.ServiceUnavailable, errors.TooManyRequests), ExitCode.UNAVAILABLE),
    )
    return next((code for kinds, code in codes if isinstance(error, kinds)), ExitCode.ERROR)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  # pathlib costs start-up time that help does not have
        return file.read()


def _plain(item: "BaseModel | Mapping[str, Any]") -> dict[str, Any]:
    return dict(item) if isinstance(item, Mapping) else item.model_dump(mode="json")


def _pick(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return " ".join(f"{printable(str(key))}={_cell(item)}" for key, item in value.items()) or "-"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_cell(item) for item in value) or "-"
    return printable(str(value))


def printable(text: str) -> str:
    """Names come from other people: none of them gets to steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    lines = [list(headings), *[[cell.replace("\n", " ") for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        _write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _write(text: str) -> None:
    typer.echo(text)

"""The `${...}` references in a task's arguments: finding them, checking them, filling them in.

A string that is one reference and nothing else takes the referred value with its type; a reference inside a longer string
is written into it. There is no expression language: a reference is a path and nothing is evaluated.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_platform.pipelines.errors import UnresolvableReference

RESOLVED_BYTES = 1024 * 1024

# `$${` is an escaped `${` and is matched first, so that what follows it is never read as a reference.
_TOKEN = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_PARAMETER = re.compile(r"^params\.([A-Za-z_][A-Za-z0-9_]*)((?:\.[A-Za-z0-9_-]+)*)$")
# Task names may hold dots: the name is what stands before the last `.result`.
_TASK = re.compile(r"^tasks\.([A-Za-z0-9][A-Za-z0-9._-]*?)\.result((?:\.[A-Za-z0-9_-]+)*)$")
_ITEM = re.compile(r"^item((?:\.[A-Za-z0-9_-]+)*)$")
_RUN = re.compile(r"^run\.(id|scheduled_for)()$")
# No list is longer than these digits say, and Python refuses to read a number of thousands of digits at all.
_INDEX = re.compile(r"^[0-9]{1,9}$")


@dataclass(frozen=True, slots=True)
class Reference:
    """A path into what a run knows: `kind` is params, tasks, item or run."""

    kind: str
    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What references can see when one attempt starts."""

    parameters: Mapping[str, Any]
    results: Mapping[str, Any]
    run: Mapping[str, Any]
    item: Any = None
    has_item: bool = field(default=False)


def parse(text: str) -> Reference:
    """Read what stands between the braces. Raises ValueError with a sentence for the author."""
    for kind, pattern in (("params", _PARAMETER), ("tasks", _TASK), ("run", _RUN)):
        if match := pattern.match(text):
            return Reference(kind, match[1], _path(match[2]))
    if match := _ITEM.match(text):
        return Reference("item", "", _path(match[1]))
    raise ValueError(
        f"${{{text}}} is not a reference: use ${{params.NAME}}, ${{tasks.NAME.result}}, ${{item}} or ${{run.id}}, "
        "and $${ for a literal ${"
    )


def find(value: Any, at: str) -> Iterator[tuple[str, Reference]]:
    """Each reference within a JSON value, with the dotted path of the string that holds it."""
    for where, text in _strings(value, at):
        for match in _TOKEN.finditer(text):
            if match[0] == "$${":
                continue
            if match[1] is None:
                raise UnresolvableReference(f"{where}: '${{' is not closed; write $${{ for a literal ${{")
            try:
                yield where, parse(match[1])
            except ValueError as error:
                raise UnresolvableReference(f"{where}: {error}") from None


def is_one(text: str) -> bool:
    """Whether a string is one reference and nothing else, so that it takes the referred value with its type."""
    whole = _TOKEN.fullmatch(text)
    return whole is not None and whole[1] is not None


def resolve(value: Any, scope: Scope, *, limit_bytes: int = RESOLVED_BYTES) -> Any:
    """The value with each reference replaced. Raises `UnresolvableReference` when a path leads nowhere.

    It does so, too, when references bring in more than the limit: a short text may name a large value thousands of times.
    """
    brought = 0

    def look_up(text: str) -> Any:
        nonlocal brought
        found = _look_up(parse(text), scope)
        brought += len(_as_text(found))
        if brought > limit_bytes:
            raise UnresolvableReference(f"what the references bring in is more than {limit_bytes} bytes")
        return found

    return _fill(value, look_up)


def _fill(value: Any, look_up: Callable[[str], Any]) -> Any:
    match value:
        case str():
            return _resolve_text(value, look_up)
        case Mapping():
            return {key: _fill(inner, look_up) for key, inner in value.items()}
        case list() | tuple():
            return [_fill(inner, look_up) for inner in value]
        case _:
            return value


def _resolve_text(text: str, look_up: Callable[[str], Any]) -> Any:
    if is_one(text):
        return look_up(text[2:-1])
    return _TOKEN.sub(lambda match: "${" if match[1] is None else _as_text(look_up(match[1])), text)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _look_up(reference: Reference, scope: Scope) -> Any:
    match reference.kind:
        case "params":
            return _walk(_get(scope.parameters, reference.name, "parameter"), reference)
        case "tasks":
            return _walk(_get(scope.results, reference.name, "result of task"), reference)
        case "run":
            return _get(scope.run, reference.name, "fact of the run")
        case _:
            if not scope.has_item:
                raise UnresolvableReference("${item} is only known in a task with for_each")
            return _walk(scope.item, reference)


def _get(values: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in values:
        raise UnresolvableReference(f"there is no {what} {name!r}")
    return values[name]


def _walk(value: Any, reference: Reference) -> Any:
    for step in reference.path:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and _INDEX.match(step) and int(step) < len(value):
            value = value[int(step)]
        else:
            known = f"it has the keys {sorted(value)[:20]}" if isinstance(value, Mapping) else f"it is {_shape(value)}"
            raise UnresolvableReference(f"{_spell(reference)} has no {step!r}: {known}")
    return value


def _shape(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    return f"the {type(value).__name__} {str(value)[:50]!r}"


def _spell(reference: Reference) -> str:
    head = {"params": f"params.{reference.name}", "tasks": f"tasks.{reference.name}.result", "item": "item"}
    return "${" + ".".join((head[reference.kind], *reference.path)) + "}"


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split(".")[1:])


def _strings(value: Any, at: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield at, value
        case Mapping():
            for key, inner in value.items():
                yield from _strings(inner, f"{at}.{key}")
        case list() | tuple():
            for index, inner in enumerate(value):
                yield from _strings(inner, f"{at}.{index}")

"""What a call was given: the arguments of a tracked function as the parameters of a run."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LONGEST_TEXT = 500
RUN = "run"


def plain_arguments(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are numbers, texts, truths or small containers of such, defaults included; no data and no models."""
    given = named_arguments(function, arguments, named)
    return {name: value for name, value in given.items() if name not in {RUN, "self", "cls"} and is_plain(value)}


def named_arguments(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by their names, defaults included."""
    try:
        bound = inspect.signature(function).bind_partial(*arguments, **named)
    except TypeError:
        # The call itself will say what is wrong with it.
        return {}
    bound.apply_defaults()
    return dict(bound.arguments)


def with_run(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any], run: Any) -> dict[str, Any]:
    """The named arguments, with the run when the function asks for it and the caller has not given it."""
    signature = inspect.signature(function)
    wants = RUN in signature.parameters and RUN not in signature.bind_partial(*arguments, **named).arguments
    return {**named, RUN: run} if wants else dict(named)


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is a number, a text, a truth, or a small container of such."""
    if value is None or isinstance(value, bool | int | float):
        return not isinstance(value, int) or abs(value) < 2**63
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    if isinstance(value, Mapping):
        return (
            depth < 3
            and len(value) <= 50
            and all(isinstance(key, str) and is_plain(it, depth + 1) for key, it in value.items())
        )
    return (
        isinstance(value, list | tuple) and depth < 3 and len(value) <= 50 and all(is_plain(it, depth + 1) for it in value)
    )

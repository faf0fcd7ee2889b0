"""What a call was given: the arguments of a tracked function as the parameters of a run."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LONGEST_TEXT = 500
RUN = "run"


def plain_arguments(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are numbers, texts, truths or small containers of such, defaults included; no data and no models."""
    try:
        bound = inspect.signature(function).bind_partial(*arguments, **named)
    except TypeError:
        # The call itself will say what is wrong with it.
        return {}
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name not in {RUN, "self", "cls"} and _is_plain(value)}


def with_run(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any], run: Any) -> dict[str, Any]:
    """The named arguments, with the run when the function asks for it and the caller has not given it."""
    signature = inspect.signature(function)
    wants = RUN in signature.parameters and RUN not in signature.bind_partial(*arguments, **named).arguments
    return {**named, RUN: run} if wants else dict(named)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if value is None or isinstance(value, bool | int | float):
        return not isinstance(value, int) or abs(value) < 2**63
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    if isinstance(value, Mapping):
        return (
            depth < 3
            and len(value) <= 50
            and all(isinstance(key, str) and _is_plain(it, depth + 1) for key, it in value.items())
        )
    return (
        isinstance(value, list | tuple) and depth < 3 and len(value) <= 50 and all(_is_plain(it, depth + 1) for it in value)
    )

"""What a task may do of what its run's author may."""

from collections.abc import Iterable

_TASK_VERBS = ("read", "write")


def task_scopes(scopes: Iterable[str]) -> list[str]:
    """What a task may do of what its run's author could: reading and writing, never promoting or administering.

    >>> task_scopes(["*"]), task_scopes(["models:read", "keys:admin"])
    (['*:read', '*:write'], ['models:read'])
    """
    found: dict[str, None] = {}
    for scope in scopes:
        noun, _, verb = scope.partition(":")
        for allowed in _TASK_VERBS:
            if verb in {"", "*", allowed} and (verb or noun == "*"):
                found[f"{noun}:{allowed}"] = None
    return list(found)

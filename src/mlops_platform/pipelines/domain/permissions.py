"""What the routes of this service demand, and what a task may do."""

from collections.abc import Iterable

from mlops_platform.core.identity import Permission

PIPELINES_READ = Permission("pipelines:read")
PIPELINES_WRITE = Permission("pipelines:write")

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

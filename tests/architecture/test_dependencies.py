"""What the framework would run in a thread: a hop costs a request more than most statements."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from mlops_platform.core.http.app import routes_of
from mlops_platform.server.catalog import CATALOG

# Endpoints that compute for long, and therefore belong in one.
COMPUTES = {"get_sample_size"}


def asked_for(dependant: Dependant) -> Iterator[Any]:
    """What an endpoint and its dependencies call, however deep."""
    yield dependant.call
    for inner in dependant.dependencies:
        yield from asked_for(inner)


def is_coroutine(call: Any) -> bool:
    forms = (call, type(call).__call__)
    return any(inspect.iscoroutinefunction(form) or inspect.isasyncgenfunction(form) for form in forms)


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.service.name)
def test_no_route_asks_for_a_thread(entry):
    routes = [route for route in routes_of(entry.service) if isinstance(route, APIRoute)]
    calls = {call for route in routes for call in asked_for(route.dependant) if not is_coroutine(call)}
    assert {getattr(call, "__qualname__", repr(call)) for call in calls} <= COMPUTES

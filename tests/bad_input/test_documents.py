"""The five OpenAPI documents, held against what the services answer to generated requests, valid and not."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mlops_platform.server.openapi import documents
from tests.bad_input import places
from tests.bad_input.operations import Operation, operations
from tests.bad_input.wire import Answer, Request, Wire
from tests.conftest import Platform

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FEW, MANY = 2, 10
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
SCHEMAS = {
    service: schemathesis.openapi.from_dict(json.loads(document), config=schemathesis.Config(seed=1))
    for service, document in documents().items()
}


@pytest.mark.parametrize("operation", operations(), ids=str)
async def test_answers_are_as_documented(platform: Platform, operation: Operation) -> None:
    await hold_against_document(platform, operation, examples=FEW)


@pytest.mark.slow
@pytest.mark.parametrize("operation", operations(), ids=str)
async def test_answers_to_many_requests_are_as_documented(platform: Platform, operation: Operation) -> None:
    await hold_against_document(platform, operation, examples=MANY)


async def hold_against_document(platform: Platform, operation: Operation, *, examples: int) -> None:
    """Requests are generated in a thread and sent in the loop in which the apps live."""
    caller = await platform.caller(operation.service)
    place = await places.furnished(caller, operation.service)
    wire, loop = Wire(platform, operation.service, caller.key), asyncio.get_running_loop()

    def judge(case: Any) -> None:
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
        answer = asyncio.run_coroutine_threadsafe(wire.send(as_sent(prepared)), loop).result(30)
        case.validate_response(as_received(answer, prepared), checks=CHECKS)

    await asyncio.to_thread(explore, operation, place, judge, examples)


def explore(operation: Operation, place: places.Place, judge: Callable[[Any], None], examples: int) -> None:
    """Valid requests to what exists, then requests of which something is not valid."""
    described = SCHEMAS[operation.service][operation.path][operation.method.lower()]
    known = {one["name"]: place[one["name"]] for one in operation.named("path") if one["name"] in place}
    bounded = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    bounded(given(case=described.as_strategy(POSITIVE, path_parameters=known or None))(judge))()
    if operation.parameters or operation.body is not None:
        bounded(given(case=described.as_strategy(NEGATIVE))(judge))()


def as_sent(prepared: requests.PreparedRequest) -> Request:
    """The request as it goes over the wire."""
    path, _, query = prepared.path_url.partition("?")
    body = prepared.body or b""
    assert isinstance(body, bytes | str)
    content = body.encode() if isinstance(body, str) else body
    headers = [
        (name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for name, value in prepared.headers.items()
        if name.lower() not in {"content-length", "host", "authorization", "x-api-key"}
    ]
    return Request(prepared.method or "GET", path.encode(), query.encode(), headers, content)


def as_received(answer: Answer, prepared: requests.PreparedRequest) -> schemathesis.Response:
    """The answer as the checks want it."""
    headers = {name: [value] for name, value in answer.headers.items()}
    return schemathesis.Response(answer.status, headers, answer.body, prepared, 0.1, verify=False)

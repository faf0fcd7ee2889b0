"""Requests made to cost more to answer than to send. A limit refuses each, not luck."""

import re

import pytest

from mlops_platform.core.errors import RangeNotSatisfiable
from mlops_platform.core.query import lexer, parser
from mlops_platform.core.storage.ranges import parse_range
from tests.bad_input.corpus import in_url
from tests.bad_input.hostile import Attack
from tests.bad_input.operations import Operation, encoded, fields, operations, with_json
from tests.bad_input.wire import JSON, Request
from tests.conftest import Platform

MANY = 100_000
# The search language bounds its text, its depth and its terms; each of these runs into another of the bounds.
FILTERS = {
    "long": "metrics.loss > 0 AND " * 5_000 + "metrics.loss > 0",
    "terms": " AND ".join(["metrics.a>0"] * (parser.MAX_TERMS + 1)),
    "parentheses": "(" * 4_000 + "metrics.loss > 0" + ")" * 4_000,
    "not": "NOT " * 2_000 + "metrics.loss > 0",
    "quotes": "params.a = '" + "''" * 4_900,
    "spaces": " " * lexer.MAX_LENGTH + "x",
    "digits": "metrics.loss > " + "9" * 9_000,
    "in": "params.a IN (" + ",".join(["'a'"] * (parser.MAX_VALUES + 1)) + ")",
    "dots": "params" + ".a" * 4_000 + " = 1",
}
LIKES = {"percent": "%a" * 2_000 + "b", "underscores": "_" * 4_000, "backslashes": "\\" * 3_999}
RANGES = {
    "many": "bytes=" + ",".join(f"{at}-{at}" for at in range(10_000)),
    "overlapping": "bytes=" + ",".join(["0-"] * 10_000),
    "digits": "bytes=" + "9" * 100_000 + "-",
    "suffix digits": "bytes=-" + "9" * 100_000,
    "other digits": "bytes=٣-٤",
    "spaces": "bytes=" + " " * 50_000 + "0-1",
    "unit": "b" * 50_000 + "=0-1",
}
FILTERED = ["/api/runs", "/api/experiments/{experiment_id}/runs"]
LISTS = frozenset({"array"})
MOST_COMPLAINTS = 200


def the(service: str, method: str, path: str) -> Operation:
    """One operation."""
    return next(one for one in operations() if (one.service, one.method, one.path) == (service, method, path))


@pytest.mark.parametrize("path", FILTERED)
async def test_a_filter_that_is_too_long_deep_or_wide_is_refused(platform: Platform, path: str) -> None:
    attack = await Attack.begin(platform, the("experiment-tracking", "GET", path))
    for what, text in FILTERS.items():
        request = attack.request(query={"filter": in_url(text)})
        await attack.try_(what, request, must_refuse=True)
    await attack.finish()


async def test_a_pattern_that_backtracks_is_bounded_in_length(platform: Platform) -> None:
    attack = await Attack.begin(platform, the("experiment-tracking", "POST", "/api/runs/search"))
    for what, pattern in LIKES.items():
        await attack.try_(what, attack.request(body={"filter": f"params.a LIKE '{pattern}'"}))
    await attack.finish()


@pytest.mark.parametrize("what", RANGES)
def test_a_range_costs_one_comparison_however_many_are_asked_for(what: str) -> None:
    try:
        part = parse_range(RANGES[what], 1000)
    except RangeNotSatisfiable:
        return
    assert part is None or 0 <= part.start < part.end <= 1000


@pytest.mark.parametrize("service", ["model-registry", "experiment-tracking"])
@pytest.mark.parametrize("what", RANGES)
async def test_a_monster_of_a_range_gets_the_whole_or_a_refusal(platform: Platform, service: str, what: str) -> None:
    path = next(
        one
        for one in operations()
        if one.service == service and one.method == "GET" and one.path.endswith("artifacts/{path}")
    )
    attack = await Attack.begin(platform, path)
    plain = attack.request()
    ranged = Request(plain.method, plain.path, plain.query, [(b"range", RANGES[what].encode())])
    answer = await attack.try_(what, ranged)
    assert answer.status in {200, 206, 416}
    assert len(answer.body) < 1000, "more was sent than there is"
    await attack.finish()


@pytest.mark.parametrize("operation", [one for one in operations() if one.named("query")], ids=str)
async def test_ten_thousand_query_parameters_are_refused_or_ignored(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    plain = attack.request()
    name = operation.named("query")[0]["name"].encode()
    unknown, repeated = (b"x%d=1" % at for at in range(10_000)), [name + b"=1"] * 10_000
    for what, surplus in {"unknown": b"&".join(unknown), "repeated": b"&".join(repeated)}.items():
        query = plain.query + b"&" * bool(plain.query) + surplus
        await attack.try_(what, Request(plain.method, plain.path, query, [JSON], plain.body))
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_a_hundred_thousand_items_are_refused(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    plain = attack.request()
    for what, body in {"list": [{}] * MANY, "map": {f"key{at}": 0 for at in range(MANY)}}.items():
        request = Request(plain.method, plain.path, plain.query, [JSON], encoded(body))
        await attack.try_(what, request, must_refuse=True)
    for field in fields(operation.service, operation.body, kinds=LISTS):
        request = attack.request(body=attack.with_field(field, [0] * MANY))
        await attack.try_(f"{'.'.join(map(str, field))} = list", request, must_refuse=True)
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_complaints_about_a_list_do_not_grow_with_it(platform: Platform, operation: Operation) -> None:
    """Work is counted as complaints that the validator writes: one about each item took seconds."""
    attack = await Attack.begin(platform, operation)
    for field in [(), *fields(operation.service, operation.body, kinds=LISTS)]:
        answer = await attack.wire.send(attack.request(body=attack.with_field(field, [{}] * 5_000)))
        more = re.search(r"\(and (\d+) more\)", answer.json()["detail"] if answer.status == 422 else "")
        assert more is None or int(more[1]) < MOST_COMPLAINTS, f"{'.'.join(map(str, field))}: {answer}"

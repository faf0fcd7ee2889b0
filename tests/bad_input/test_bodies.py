"""Bodies of the wrong type, size, form or encoding, at every route that reads JSON. A new route joins by itself."""

import gzip
from typing import Any

import pytest

from tests.bad_input import corpus
from tests.bad_input.hostile import Attack
from tests.bad_input.operations import Operation, encoded, fields, kinds_at, resolve, schema_at, with_json
from tests.bad_input.wire import JSON, Request
from tests.conftest import Platform

MIB = 1024 * 1024
NUMBERS = frozenset({"integer", "number"})
ANYTHING = frozenset({"string", "integer", "number", "boolean", "array", "object"})
# Which JSON types each of the corpus' kinds must be refused for. Digits in a text and whole fractions are let through.
WRONG = {
    "true": {"string", "integer", "number", "array", "object"},
    "number": {"string", "array", "object"},
    "negative": {"string", "array", "object"},
    "fraction": {"string", "integer", "boolean", "array", "object"},
    "text": {"integer", "number", "boolean", "array", "object"},
    "list": {"string", "integer", "number", "boolean", "object"},
    "list of lists": {"string", "integer", "number", "boolean", "object"},
    "object": {"string", "integer", "number", "boolean", "array"},
    "object of object": {"string", "integer", "number", "boolean", "array"},
}
NOT_JSON = {"NaN literal", "Infinity literal", "-Infinity literal", "leading zero"}
DEEP = 5_000
RAW: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \n\t ",
    "null": b"null",
    "text": b'"text"',
    "number": b"1",
    "truth": b"true",
    "half an object": b'{"name": "a"',
    "two objects": b"{}{}",
    "comment": b"{/* */}",
    "trailing comma": b'{"name": "a",}',
    "single quotes": b"{'name': 'a'}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"name": "a"}'.encode("utf-16"),
    "latin-1": b'{"name": "caf\xe9"}',
    "overlong utf-8": b'{"name": "\xc0\xaf"}',
    "surrogate utf-8": b'{"name": "\xed\xa0\x80"}',
    "raw nul": b'{"name": "a\x00b"}',
    "raw line break": b'{"name": "a\nb"}',
    "bad escape": b'{"name": "\\x41"}',
    "half an escape": b'{"name": "\\ud8"}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and open": b"[" * 100_000,
    "form": b"name=a&version=1",
    "yaml": b"!!python/object/apply:os.system ['id']",
    "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.",
    "xml": b'<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
}
CONTENT_TYPES: dict[str, list[tuple[bytes, bytes]]] = {
    "none": [],
    "text": [(b"content-type", b"text/plain")],
    "form": [(b"content-type", b"application/x-www-form-urlencoded")],
    "multipart": [(b"content-type", b"multipart/form-data; boundary=x")],
    "xml": [(b"content-type", b"application/xml")],
    "almost JSON": [(b"content-type", b"application/jsonp")],
    "hidden": [(b"content-type", b"text/plain, application/json")],
    "not latin": [(b"content-type", b"\xff\xfe/\x80")],
    "long": [(b"content-type", b"x" * 8000)],
}


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_a_value_of_the_wrong_type_is_refused(platform: Platform, operation: Operation) -> None:
    await attack_types(platform, operation, shares=3)


@pytest.mark.slow
@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_no_value_of_any_wrong_type_is_taken(platform: Platform, operation: Operation) -> None:
    await attack_types(platform, operation, shares=1)


async def attack_types(platform: Platform, operation: Operation, *, shares: int) -> None:
    attack = await Attack.begin(platform, operation)
    for turn, field in enumerate(fields(operation.service, operation.body, kinds=ANYTHING), operation.turn):
        allowed = kinds_at(operation.service, operation.body, field)
        for what, value in corpus.share(corpus.KINDS, turn, of=shares).items():
            must_refuse = bool(allowed) and allowed <= WRONG.get(what, set())
            request = attack.request(body=attack.with_field(field, value))
            named = field if must_refuse else ()  # else it may be what the value lacks that is named
            await attack.try_(f"{dotted(field)} = {what}", request, field=named, must_refuse=must_refuse)
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_a_number_of_any_size_is_refused_or_kept(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    for field in fields(operation.service, operation.body, kinds=NUMBERS):
        for what, value in corpus.NUMBERS.items():
            request = attack.request(body=attack.with_field(field, value))
            # A number that JSON itself cannot hold is refused before there are fields to name.
            await attack.try_(f"{dotted(field)} = {what}", request, field=field, must_refuse=what in NOT_JSON)
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_a_body_of_another_form_is_refused(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    good = encoded(attack.body())
    plain = attack.request()
    path, query = plain.path, plain.query
    is_optional = not operation.needs_body
    for what, body in RAW.items():
        may_pass = is_optional and what in {"nothing", "null"}
        request = Request(operation.method, path, query, [JSON], body)
        await attack.try_(what, request, must_refuse=not may_pass)
    for what, headers in CONTENT_TYPES.items():
        await attack.try_(f"content type {what}", Request(operation.method, path, query, headers, good), must_refuse=True)
    packed = Request(operation.method, path, query, [JSON, (b"content-encoding", b"gzip")], gzip.compress(good))
    await attack.try_("gzip", packed, must_refuse=True)
    large = Request(operation.method, path, query, [JSON], b'{"name": "' + b"x" * (10 * MIB) + b'"}')
    await attack.try_("10 MiB", large, must_refuse=True)
    chunks = [b'{"name": "', *[b"x" * MIB] * 10, b'"}']
    endless = Request(operation.method, path, query, [JSON, (b"transfer-encoding", b"chunked")], chunks, has_length=False)
    await attack.try_("10 MiB in chunks", endless, must_refuse=True)
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_a_body_in_chunks_without_a_length_is_read(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    plain = attack.request()
    assert isinstance(plain.body, bytes)
    headers = [JSON, (b"transfer-encoding", b"chunked")]
    pieces = [plain.body[at : at + 7] for at in range(0, len(plain.body), 7)] + [b""]
    chunked = Request(plain.method, plain.path, plain.query, headers, pieces, has_length=False)
    answer = await attack.try_("chunked", chunked)
    assert answer.status not in {400, 413, 415, 422} or attack.is_refused_anyway, str(answer)
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_an_unknown_field_is_refused_by_name(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    closed = [(), *fields(operation.service, operation.body, kinds=frozenset({"object"}))]
    for place in closed:
        if is_open(operation, place):
            continue
        for name in ("surplus", "__proto__", "__class__", "a" * 10_000):
            body = attack.with_inner(place, {name: 1})
            answer = await attack.try_(f"{dotted(place)} + {name[:20]}", attack.request(body=body), must_refuse=True)
            named = [error["field"] for error in answer.json().get("errors", [])]
            assert any(name[:100] in field for field in named), f"{dotted(place)} + {name[:20]}: {answer}"
    await attack.finish()


@pytest.mark.parametrize("operation", with_json(), ids=str)
async def test_a_key_given_twice_does_not_break_anything(platform: Platform, operation: Operation) -> None:
    attack = await Attack.begin(platform, operation)
    good = encoded(attack.body())
    plain = attack.request()
    if good.startswith(b"{") and len(good) > 2:
        doubled = good[:-1] + b", " + good[1:]
        await attack.try_("doubled", Request(plain.method, plain.path, plain.query, [JSON], doubled))
    await attack.finish()


def is_open(operation: Operation, place: Any) -> bool:
    """Whether the object at a place takes any name."""
    schema = resolve(operation.service, schema_at(operation.service, operation.body, place))
    return schema.get("additionalProperties", True) is not False


def dotted(field: Any) -> str:
    return ".".join(map(str, field)) or "body"

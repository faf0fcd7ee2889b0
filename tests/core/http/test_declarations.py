"""Deny by default, without any app: what a route declares, and what the declaration lets through."""

from typing import Any

import pytest
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import PlainTextResponse

from mlops_platform.core.errors import ContentTooLarge, MalformedRequest, NotFound, PermissionDenied
from mlops_platform.core.http import routing
from mlops_platform.core.identity import Grant, Permission, Principal, PrincipalId, PrincipalKind, ProjectId, Role

READ, WRITE = Permission("toys:read"), Permission("toys:write")


def request_of(*grants: Grant, **path_params: str) -> Request:
    who = Principal(PrincipalId("p"), "ada", PrincipalKind.USER, ProjectId("x"), grants)
    return Request({"type": "http", "state": {"principal": who}, "path_params": path_params, "headers": []})


async def is_let_in(request: Request, permission: Permission, **declared: Any) -> bool:
    try:
        await routing.Requires(permission, declared.pop("resource", None), **declared)(request)
    except PermissionDenied:
        return False
    return True


class TestRequires:
    async def test_who_has_the_permission_is_let_in_and_nobody_else(self):
        assert await is_let_in(request_of(Grant(Role.VIEWER)), READ)
        assert not await is_let_in(request_of(Grant(Role.VIEWER)), WRITE)
        assert not await is_let_in(request_of(), READ)

    async def test_the_named_resource_is_the_one_in_the_path(self):
        grant = Grant(Role.VIEWER, "fraud-*")
        assert await is_let_in(request_of(grant, name="fraud-eu"), READ, resource="name")
        assert not await is_let_in(request_of(grant, name="churn"), READ, resource="name")
        assert not await is_let_in(request_of(grant, name="churn", other="fraud-eu"), READ, resource="name")

    async def test_a_route_that_names_no_resource_lets_in_who_has_some(self):
        assert await is_let_in(request_of(Grant(Role.VIEWER, "fraud-*"), name="churn"), READ)

    async def test_what_concerns_everything_needs_every_name(self):
        assert await is_let_in(request_of(Grant(Role.VIEWER)), READ, everywhere=True)
        assert not await is_let_in(request_of(Grant(Role.VIEWER, "fraud-*"), name="fraud-eu"), READ, everywhere=True)

    async def test_the_short_form_declares_the_same(self):
        declared = routing.requires(WRITE, resource="name", everywhere=True).dependency
        assert isinstance(declared, routing.Requires)
        assert (declared.permission, declared.resource, declared.everywhere) == (WRITE, "name", True)
        plain = routing.requires(WRITE).dependency
        assert isinstance(plain, routing.Requires)
        assert (plain.resource, plain.everywhere) == (None, False)


class TestUndeclared:
    def routes(self, *dependencies: Any, path: str = "/api/things/{name}") -> list[Any]:
        router = routing.platform_router(tags=["x"])
        router.add_api_route(path, lambda: None, methods=["PUT", "GET"], dependencies=list(dependencies))
        return router.routes

    def test_a_route_that_declares_nothing_is_told_with_its_methods(self):
        assert routing.undeclared_routes(self.routes(), frozenset()) == ["GET,PUT /api/things/{name}"]

    def test_a_public_route_needs_no_declaration(self):
        assert routing.undeclared_routes(self.routes(), frozenset({"/api/things/{name}"})) == []
        assert routing.undeclared_routes(self.routes(), frozenset({"/api/things"})) != []

    def test_a_declared_route_is_guarded(self):
        for declared in (routing.requires(READ), routing.requires(READ, resource="name")):
            assert routing.undeclared_routes(self.routes(declared), frozenset()) == []

    def test_a_resource_that_the_path_does_not_have_guards_nothing(self):
        assert routing.undeclared_routes(self.routes(routing.requires(READ, resource="nmae")), frozenset()) != []

    def test_one_wrong_declaration_of_two_is_wrong(self):
        both = (routing.requires(READ, resource="name"), routing.requires(READ, resource="nmae"))
        assert routing.undeclared_routes(self.routes(*both), frozenset()) != []

    def test_another_dependency_is_no_guard(self):
        other = routing.requires(READ)
        lookalike = type(other)(dependency=lambda: None)
        assert routing.undeclared_routes(self.routes(lookalike), frozenset()) != []
        assert routing.undeclared_routes(self.routes(lookalike, other), frozenset()) == []

    def test_what_is_no_http_route_cannot_be_guarded(self):
        class Odd:
            path = "/api/odd"

        router = APIRouter()
        router.mount("/files", PlainTextResponse())
        assert routing.undeclared_routes([Odd(), *router.routes], frozenset()) == ["? /api/odd", "? /files"]

    def test_the_permission_of_a_route_is_what_it_declares(self):
        for declared, permission in ((routing.requires(READ), READ), (routing.requires(WRITE), WRITE)):
            (route,) = self.routes(declared)
            assert isinstance(route, APIRoute)
            assert routing.declared_permission(route) == permission
        (route,) = self.routes()
        assert routing.declared_permission(route) is None


class TestJson:
    @pytest.mark.parametrize(
        ("content_type", "is_json"),
        [
            ("application/json", True),
            ("Application/JSON; charset=utf-8", True),
            (" application/json ;x", True),
            ("application/problem+json", True),
            ("text/x+json", False),
            ("application/jsonp", False),
            ("text/plain", False),
            ("", False),
            (None, False),
        ],
    )
    def test_which_content_types_say_json(self, content_type, is_json):
        assert routing.is_json(content_type) is is_json

    @pytest.mark.parametrize("body", [b"[[[1]]]", b'{"a":{"b":{"c":1}}}', b'[{"a":[]}]', b"[[[]],[[]],[[]]]"])
    def test_three_levels_are_three_levels(self, body):
        routing.read_json(body, 3)
        with pytest.raises(MalformedRequest, match="deeper than 2 levels"):
            routing.read_json(body, 2)

    def test_many_containers_beside_each_other_are_not_deep(self):
        assert routing.read_json(b"[[],[],[],{},{}]", 2) == [[], [], [], {}, {}]

    def test_a_value_alone_has_no_depth(self):
        assert routing.read_json(b"7", 0) == 7

    async def read(self, limit: int, *chunks: bytes) -> bytes:
        async def stream():
            for chunk in chunks:
                yield chunk

        return b"".join([chunk async for chunk in routing.limited(stream(), limit)])

    async def test_as_many_bytes_as_the_limit_pass_in_any_pieces(self):
        assert await self.read(4, b"ab", b"", b"cd") == b"abcd"

    async def test_one_byte_more_does_not(self):
        with pytest.raises(ContentTooLarge, match="larger than 4 bytes"):
            await self.read(4, b"ab", b"cd", b"e")


def test_errors_of_one_status_share_one_line_of_the_documentation():
    class Gone(NotFound):
        code = "gone"

    told = routing.problems(NotFound, Gone, PermissionDenied)
    assert set(told) == {404, 403}
    assert told[404]["description"] == f"{NotFound.title}: {NotFound.code}; gone"
    assert told[403]["description"] == f"{PermissionDenied.title}: {PermissionDenied.code}"

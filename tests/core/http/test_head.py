"""HEAD is answered wherever GET is: the same head, and no body."""

import asyncio

import pytest

from mlops_platform.core.identity import Role
from tests.factories.sample_service import asgi_call


def known(caller):
    return [(b"host", b"localhost"), (b"authorization", f"Bearer {caller.key}".encode())]


PATHS = [
    *("/health", "/health/", "/ready", "/version", "/metrics", "/docs", "/openapi.json", "/nowhere", "/api/hot/bear"),
    *("/api/toys", "/api/toys?page_size=0", "/api/toys/count/bear", "/api/toys/crash"),
]


class TestHead:
    @pytest.mark.parametrize("path", PATHS)
    async def test_it_is_what_get_says_without_the_body(self, ada, toys, path):
        got, said, body = await asgi_call(toys, path=path, headers=known(ada))
        head, also_said, nothing = await asgi_call(toys, method="HEAD", path=path, headers=known(ada))
        assert (head, also_said["content-type"]) == (got, said["content-type"])
        assert body
        assert nothing == b""
        if path not in {"/metrics", "/health", "/health/"}:  # these differ each time
            assert also_said.get("content-length") == said.get("content-length") or got >= 400

    async def test_it_needs_what_get_needs(self, play, toys):
        bob = await play.caller(scopes=("boxes:read",))
        assert (await asgi_call(toys, method="HEAD", path="/api/toys", headers=[(b"host", b"localhost")]))[0] == 401
        assert (await asgi_call(toys, method="HEAD", path="/api/toys", headers=known(bob)))[0] == 403
        assert (await asgi_call(toys, method="HEAD", path="/api/hot/bear", headers=known(bob)))[0] == 403

    async def test_where_there_is_no_get_it_is_405(self, ada, toys):
        status, headers, _ = await asgi_call(toys, method="HEAD", path="/api/toys/upload", headers=known(ada))
        assert (status, headers["allow"]) == (405, "POST")
        status, headers, _ = await asgi_call(toys, method="DELETE", path="/api/toys/crash", headers=known(ada))
        assert (status, headers["allow"]) == (405, "GET, HEAD")

    async def test_an_endless_answer_ends(self, play, toys):
        ada = await play.caller(Role.ADMIN)
        async with asyncio.timeout(5):
            path = "/api/platform/events"
            status, headers, body = await asgi_call(toys, method="HEAD", path=path, headers=known(ada))
        assert (status, headers["content-type"], body) == (200, "text/event-stream; charset=utf-8", b"")

"""What a body may be, and what is said of one that may not."""

import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi import APIRouter
from sqlalchemy import func, select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.http import routing
from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.http.service import Service
from tests.factories.sample_service import READ, asgi_call, toy_app

JSON = (b"content-type", b"application/json")
LIMIT = 4096


def headers_of(caller, *more):
    return [(b"host", b"localhost"), (b"authorization", f"Bearer {caller.key}".encode()), *more]


async def post(caller, content: bytes, content_type: str | None = "application/json", path: str = "/api/toys") -> Any:
    headers = {"Content-Type": content_type} if content_type else {}
    return await caller.http.post(path, content=content, headers=headers)


def sized(size: int) -> bytes:
    """A valid body of exactly this many bytes."""
    empty = json.dumps({"name": "a", "note": ""}).encode()
    return json.dumps({"name": "a", "note": "x" * (size - len(empty))}).encode()


class TestJson:
    @pytest.mark.parametrize(
        "body",
        [
            b'{"name": NaN}',
            b'{"name": Infinity}',
            b'{"name": "a"',
            b"{'name': 'a'}",
            b'{"name": "\xff\xfe"}',
            b'{"name": "a"}}',
            b"\x00",
            b'{"name": "a",}',
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" * 500_000 + b"]" * 500_000,
            b'\xef\xbb\xbf{"name": "a"}',
            b'{"extra": ' + b"[" * 40 + b"]" * 40 + b', "name": "a"}',
            b'{"name": "a", "extra": {"a": 1e999999}}',
            b'{"name": "a", "extra": {"n": ' + b"9" * 5000 + b"}}",
        ],
    )
    async def test_what_is_not_strict_json_is_refused_with_a_reason_and_nothing_is_written(self, ada, runtime, body):
        response = await post(ada, body)
        assert response.status_code in {400, 422}, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert "There was an error parsing" not in response.text
        async with runtime.database.read() as session:
            count = select(func.count()).where(audit_entries.c.project_id == ada.project)
            assert await session.scalar(count) == 0

    async def test_too_deep_is_told_apart_from_malformed(self, ada):
        response = await post(ada, b'{"name": "a", "extra": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}")
        assert response.status_code == 400
        assert "deeper than 32" in response.json()["detail"]

    @pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**300, 10**4000], ids=["past", "before", "long", "huge"])
    async def test_an_integer_that_no_column_takes_is_a_422(self, ada, value):
        response = await ada.http.post("/api/toys", json={"name": "a", "extra": {"n": value}})
        assert response.status_code == 422

    async def test_an_empty_body_is_a_missing_one(self, ada):
        response = await post(ada, b"")
        assert response.status_code == 422

    @pytest.mark.parametrize("value", ["\ud800", "a\x00b"])
    async def test_text_that_cannot_be_stored_is_refused_and_the_answer_is_still_json(self, ada, value):
        response = await post(ada, json.dumps({"name": "a", "note": value}).encode())
        assert response.status_code in {400, 422}
        assert response.json()["code"]


class TestContentType:
    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "json",
        ],
    )
    async def test_anything_but_json_is_a_415(self, ada, content_type):
        response = await post(ada, b'{"name": "a"}', content_type)
        assert response.status_code == 415
        assert response.json()["code"] == "unsupported_media_type"

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"]
    )
    async def test_json_by_any_of_its_names_is_read(self, ada, content_type):
        assert (await post(ada, b'{"name": "a"}', content_type)).status_code == 201


class TestSize:
    @pytest.fixture
    async def small(self, play, runtime):
        return await play.caller(app=toy_app(runtime, max_body_bytes=LIMIT))

    async def test_the_limit_itself_is_accepted_and_one_byte_more_is_not(self, small):
        assert (await post(small, sized(LIMIT))).status_code == 201
        response = await post(small, sized(LIMIT + 1))
        assert response.status_code == 413
        assert response.json()["code"] == "content_too_large"
        assert str(LIMIT) in response.json()["detail"]

    async def test_a_chunked_body_without_a_length_has_the_same_limit(self, small, runtime):
        app = toy_app(runtime, max_body_bytes=LIMIT)
        headers = headers_of(small, JSON, (b"transfer-encoding", b"chunked"))
        body = sized(LIMIT)
        chunks = [body[at : at + 100] for at in range(0, len(body), 100)]
        assert (await asgi_call(app, method="POST", path="/api/toys", headers=headers, body=chunks))[0] == 201
        assert (await asgi_call(app, method="POST", path="/api/toys", headers=headers, body=[*chunks, b" " * LIMIT]))[
            0
        ] == 413

    async def test_reading_stops_at_the_limit(self, small, runtime):
        app = toy_app(runtime, max_body_bytes=LIMIT)
        given = 0

        async def endless() -> dict[str, Any]:
            nonlocal given
            given += 1
            return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

        async def send(message: Any) -> None:
            assert message.get("status", 413) == 413

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/toys",
            "query_string": b"",
            "headers": headers_of(small, JSON),
        }
        await app(
            {**scope, "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 1), "root_path": ""}, endless, send
        )
        assert given <= LIMIT // 1024 + 2

    async def test_ten_megabytes_are_too_large_by_default(self, ada):
        assert (await post(ada, b" " * 10 * 1024**2)).status_code == 413

    async def test_a_body_of_another_type_is_no_way_around_the_limit(self, small):
        assert (await post(small, b"x" * (LIMIT + 1), "text/plain")).status_code == 413

    async def test_an_upload_is_not_limited_as_json_is(self, small):
        assert (await post(small, b"x" * LIMIT * 4, "application/octet-stream", "/api/toys/upload")).json() == LIMIT * 4


class TestTimeLimit:
    async def test_a_request_that_takes_too_long_is_undone(self, play, runtime):
        ada = await play.caller(app=toy_app(runtime, request_timeout_seconds=0.2))
        response = await ada.http.post("/api/toys/slow", json={"name": "bear"})
        assert response.status_code == 503
        assert response.json()["code"] == "request_timed_out"
        assert response.headers["retry-after"] == "1"
        assert (await ada.http.get("/api/toys/count/bear")).json() == 0

    async def test_an_upload_takes_as_long_as_it_takes(self, play, runtime):
        ada = await play.caller(app=toy_app(runtime, request_timeout_seconds=1e-9))
        assert (await post(ada, b"x", "application/octet-stream", "/api/toys/upload")).status_code == 200


class TestDeclarations:
    def service(self, router: APIRouter) -> Service:
        return Service(name="bad", title="Bad", description="", routers=(router,))

    async def test_a_route_without_a_permission_keeps_the_app_from_starting(self, runtime):
        router = routing.platform_router(tags=["x"])
        router.add_api_route("/api/open", lambda: None)
        with pytest.raises(ConfigurationError, match="/api/open"):
            ServiceApp(self.service(router), runtime)

    async def test_a_websocket_keeps_the_app_from_starting(self, runtime):
        router = APIRouter()

        @router.websocket("/api/ws")
        async def socket() -> None: ...

        with pytest.raises(ConfigurationError, match="/api/ws"):
            ServiceApp(self.service(router), runtime)

    async def test_a_resource_that_is_no_parameter_of_the_path_keeps_the_app_from_starting(self, runtime):
        router = routing.platform_router(tags=["x"])
        guard = routing.requires(READ, resource="nmae")
        router.add_api_route("/api/things/{name}", lambda name: None, dependencies=[guard])
        with pytest.raises(ConfigurationError, match="/api/things"):
            ServiceApp(self.service(router), runtime)


class TestCommitBeforeResponse:
    async def test_no_success_leaves_when_the_commit_fails(self, ada):
        """A deferred constraint fails at COMMIT, after the endpoint has returned its 201."""
        assert (await ada.http.post("/api/toys", json={"name": "bear"})).status_code == 201
        response = await ada.http.post("/api/toys", json={"name": "bear"})
        assert response.status_code == 500
        assert response.json()["code"] == "internal_error"
        assert (await ada.http.get("/api/toys/count/bear")).json() == 1

    async def test_the_change_is_visible_to_others_when_the_first_byte_leaves(self, ada, runtime, toys):
        seen: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                async with runtime.database.read() as session:
                    seen.append(await session.scalar(select(func.count()).where(audit_entries.c.project_id == ada.project)))

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b'{"name": "bear"}', "more_body": False}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/toys",
            "query_string": b"",
            "headers": headers_of(ada, JSON),
        }
        await toys(
            {**scope, "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 1), "root_path": ""}, receive, send
        )
        assert seen == [1]

    async def test_a_get_cannot_write(self, ada):
        response = await ada.http.get("/api/toys/writes-by-reading")
        assert response.status_code == 503
        assert (await ada.http.get("/api/toys/count/sly")).json() == 0


def test_the_time_limit_has_a_documented_default(settings):
    assert timedelta(seconds=settings.request_timeout_seconds) == timedelta(minutes=1)
